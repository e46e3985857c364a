"""Land-use maps from any GeoTIFF, by scene classification with words.

Each name of ``__init__.pyi`` is imported when it is first used, so that ``import rssc_geo`` costs
nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
