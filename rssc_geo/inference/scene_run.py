"""A scene between its plan and its map: what is left to classify, what came back, what is made of
it. No torch here.

Who classifies is left open: the same job is fed by a loop in this process, by several devices or by
other machines.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyproj
from pyproj.exceptions import CRSError

from rssc_geo.errors import InputError, UsageError
from rssc_geo.inference.aggregate import CellAggregator, CellMap, TileResult
from rssc_geo.inference.plan import Plan, TilingOptions, describe_options
from rssc_geo.inference.sink import CellSink
from rssc_geo.models import ModelCard
from rssc_geo.output import LandUseSummary, LandUseWriter, OutputOptions, check_output
from rssc_geo.raster import fit_radiometry

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Maker:
    """What of the model, the captioner (by name) and the precision ("float32") decides about a result."""

    card: ModelCard
    captioner: str
    dtype: str

    def describe(self) -> dict[str, Any]:
        """All that decides, the program included, as plain data.

        For provenance and for telling runs apart.
        """
        return {
            "model": {
                "name": self.card.name,
                "version": self.card.version,
                "sha256": dict(self.card.sha256),
                "classes": {c.name: c.description for c in self.card.classes},
            },
            "captioner": self.captioner,
            "dtype": self.dtype,
            "program": version("rssc-geo"),
        }


def output_options(
    plan: Plan,
    output: str | Path,
    *,
    crs: str | None = None,
    aoi_clip: bool = False,
    min_area_m2: float = 0.0,
    probabilities: bool = False,
    class_raster: str | Path | None = None,
    overwrite: bool = False,
) -> OutputOptions:
    """What is written of a scene and where, checked; the arguments are those of ``classify``.

    Raises ``UsageError`` and ``OutputError`` for what cannot be written, or would replace the
    raster itself.
    """
    if aoi_clip and plan.area is None:
        raise UsageError("--aoi-clip needs --aoi or --bounds to clip to")
    wanted = OutputOptions(
        path=Path(output),
        crs=_parse_crs(crs),
        min_area_m2=min_area_m2,
        probabilities=probabilities,
        overwrite=overwrite,
        aoi_clip=plan.area if aoi_clip else None,
        class_raster=None if class_raster is None else Path(class_raster),
    )
    check_output(wanted)
    spare_the_input(plan, *wanted.results)
    return wanted


def spare_the_input(plan: Plan, *results: Path) -> None:
    """Refuse to replace the raster that is being read, whatever ``overwrite`` says."""
    inputs = {Path(file).resolve() for file in plan.scene.files}
    for path in results:
        if path.resolve() in inputs:
            raise UsageError(f"{path} is the input itself; choose another name for the result")


class SceneJob:
    """Holds a scene's part file from making to closing; a context manager.

    Attributes
    ----------
    plan, radiometry, classes : the scene, its scaling, and what it is classified into
    cells : how its tiles and cells depend on each other
    tiles, todo : indices of all tiles that matter, and of those that an earlier run has left;
        int64, ascending
    watermark : the tile before which the earlier run was done; 0 for a fresh one

    Raises ``OutputError`` when another process writes the same target.
    """

    def __init__(
        self, plan: Plan, options: TilingOptions, wanted: OutputOptions, maker: Maker
    ) -> None:
        self.plan = plan
        self.radiometry = fit_radiometry(plan.scene, stretch=options.stretch)
        self.classes = maker.card.classes
        self.cells = CellMap(plan.grid, plan.selected, min_valid=options.min_valid)
        self.tiles = self.cells.tiles()
        self._fingerprint = plan.scene.fingerprint()
        run = {
            "input": self._fingerprint,
            "options": {
                **describe_options(options),
                "aoi": None,
                "selected": hashlib.sha256(plan.selected.tobytes()).hexdigest(),
            },
            "scaling": asdict(self.radiometry),
            **maker.describe(),
            "probabilities": wanted.probabilities,
        }
        self._writer = LandUseWriter(
            wanted,
            grid=plan.grid,
            transform=plan.scene.transform,
            crs=plan.scene.crs,
            classes=maker.card.classes,
            run_key=run,
            provenance=self._provenance(maker.card, run),
        )
        self.watermark = self._writer.watermark
        self.todo = (
            self.tiles[self.tiles >= self.cells.restart(self.watermark)]
            if self.watermark
            else self.tiles
        )
        self._aggregator = CellAggregator(
            self.cells, classes=len(maker.card.classes), done=self.watermark
        )
        if self.watermark:
            log.info(
                "going on after %d of %d tiles",
                int((self.tiles < self.watermark).sum()),
                len(self.tiles),
            )

    def sink(self) -> CellSink:
        """A thread into which the tiles of ``todo`` go, in their order.

        A context manager, once a job.
        """
        return CellSink(self._aggregator, self._writer.append)

    def take(self, results: Sequence[TileResult]) -> None:
        """Keep the next tiles of ``todo``, from any one thread at a time.

        Instead of ``sink``, not beside it.
        """
        self._writer.append(self._aggregator.add(results), results[-1].tile.index + 1)

    def finish(self, extra_provenance: Mapping[str, object]) -> LandUseSummary:
        """Make the map once all tiles went into the sink.

        Raises ``InputError`` for a raster that changed in the meantime or has no valid cell
        (nothing is kept then), ``OutputError`` when the map cannot be written (the part file is
        kept).
        """
        scene = self.plan.scene
        if scene.fingerprint() != self._fingerprint:
            self._writer.discard()
            raise InputError(
                f"{scene.source} changed while it was being read: what was classified is dropped,"
                " run it again"
            )
        if not len(self._writer):
            self._writer.discard()
            raise InputError(
                f"{scene.source}: no cell has {self.cells.min_valid:.0%} valid pixels, so there is"
                " nothing to classify (--min-valid lowers the share, --nodata names another value)"
            )
        return self._writer.finish(extra_provenance)

    def close(self) -> None:
        """Let the part file go; the next identical run goes on from it."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _provenance(self, card: ModelCard, run: Mapping[str, Any]) -> dict[str, Any]:
        """What a reader of the output needs to know where it comes from."""
        scene, grid = self.plan.scene, self.plan.grid
        return {
            "input": scene.source,
            "input_fingerprint": run["input"],
            "bands": list(scene.bands),
            "bands_reason": scene.bands_reason,
            "mask": scene.mask,
            "gsd_m": list(scene.gsd_m),
            "tile_size_px": list(grid.size),
            "cell_size_px": list(grid.cell_size),
            "scaling": asdict(self.radiometry),
            "options": run["options"],
            "model": {**run["model"], "license": card.license, "accuracy": dict(card.accuracy)},
            "captioner": run["captioner"],
            "dtype": run["dtype"],
            "rssc_geo": run["program"],
            "versions": {
                name: version(name) for name in ("torch", "rasterio", "pyogrio", "shapely")
            },
            "warnings": list(self.plan.warnings),
        }


def _parse_crs(text: str | None) -> pyproj.CRS | None:
    if text is None:
        return None
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError:
        raise UsageError(f"--crs {text!r} is not a CRS; give for example EPSG:4326") from None
