"""The options of each command."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from rssc_geo.options.declaration import Option, options_of
from rssc_geo.options.finished import (
    AccuracyOptions,
    AreasOptions,
    ChangeOptions,
    RefineOptions,
    SampleOptions,
)
from rssc_geo.options.maps import (
    CaptionOptions,
    CaptionSourceOptions,
    ClassifyOptions,
    ExplainOptions,
    ZeroShotOptions,
)
from rssc_geo.options.models import ImportOptions, ModelInfoOptions
from rssc_geo.options.rasters import InfoOptions, SourceOptions, TileOptions
from rssc_geo.options.runs import (
    BatchRunOptions,
    PrintOptions,
    RunOptions,
    ScenesRunOptions,
    ServeOptions,
    TargetOptions,
)
from rssc_geo.options.scenes import (
    BatchAreasOptions,
    BatchOptions,
    EmbedOptions,
    IndexOptions,
    SearchOptions,
)
from rssc_geo.options.training import (
    BaselineOptions,
    EvaluateOptions,
    PolygonSourceOptions,
    TrainOnPolygonsOptions,
    TrainOptions,
)

COMMANDS: Mapping[str, type] = types.MappingProxyType(
    {
        "classify": ClassifyOptions,
        "zero-shot": ZeroShotOptions,
        "caption": CaptionOptions,
        "explain": ExplainOptions,
        "batch run": BatchOptions,
        "batch areas": BatchAreasOptions,
        "embed": EmbedOptions,
        "index": IndexOptions,
        "search": SearchOptions,
        "info": InfoOptions,
        "tile": TileOptions,
        "evaluate": EvaluateOptions,
        "evaluate --baselines": BaselineOptions,
        "train": TrainOptions,
        "train --raster": TrainOnPolygonsOptions,
        "models info": ModelInfoOptions,
        "models import": ImportOptions,
        "refine": RefineOptions,
        "areas": AreasOptions,
        "assess sample": SampleOptions,
        "assess accuracy": AccuracyOptions,
        "change": ChangeOptions,
    }
)
"""The options of each command; two commands have two forms, each with its own options."""
SHARED: Mapping[str, type] = types.MappingProxyType(
    {
        "commands that read rasters": SourceOptions,
        "`caption`": CaptionSourceOptions,
        "`evaluate`, `train`": PolygonSourceOptions,
        "commands that write a result": TargetOptions,
        "all commands": PrintOptions,
        "`serve`": ServeOptions,
        "commands that show their progress": RunOptions,
        "`batch run`, `index`": ScenesRunOptions,
        "`batch run`": BatchRunOptions,
    }
)
"""The options that commands have beside these: of which inputs, where to, and how they run."""


def all_options() -> Iterator[Option]:
    """Every option once, by the order of the commands; the shared ones last."""
    seen: set[str] = set()
    for group in (*COMMANDS.values(), *SHARED.values()):
        for found in options_of(group):
            if found.flag not in seen:
                seen.add(found.flag)
                yield found


def describe_options() -> dict[str, list[dict[str, Any]]]:
    """The options of each command as plain data, for JSON."""
    return {
        command: [found.as_dict() for found in options_of(group)]
        for command, group in COMMANDS.items()
    }
