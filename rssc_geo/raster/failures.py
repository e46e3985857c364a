"""What rasterio raises where GDAL fails."""

from __future__ import annotations

from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, RasterioError, RPCError

GDAL_ERRORS = (RasterioError, CPLE_BaseError, CRSError, RPCError)
"""All classes of errors; rasterio passes GDAL's own (CPLE) on from warps, copies and properties."""
