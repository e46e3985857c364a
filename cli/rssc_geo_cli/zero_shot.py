"""``rssc-geo zero-shot``."""

from __future__ import annotations

from rssc_geo.options import (
    ClassNamesOptions,
    RunOptions,
    SourceOptions,
    TargetOptions,
    ZeroShotOptions,
)
from rssc_geo_cli.classify import tell_map
from rssc_geo_cli.console import running, show_result
from rssc_geo_cli.options import command, raster_argument, source_of


@command("zero-shot", SourceOptions, TargetOptions, ClassNamesOptions, ZeroShotOptions, RunOptions)
@raster_argument
def zero_shot_command(
    source: SourceOptions,
    target: TargetOptions,
    names: ClassNamesOptions,
    options: ZeroShotOptions,
    run: RunOptions,
    *,
    raster: str | None,
) -> None:
    """Map RASTER into classes that are named by words.

    Every cell gets the class whose words are most similar to it, or "other" where it is more
    similar to one of the model's own classes. Name all that occurs in the scene, not only what you
    look for.
    """
    scene = source_of(raster, source)

    from rssc_geo.pipelines import read_classes
    from rssc_geo.pipelines.zero_shot import zero_shot

    classes = read_classes(names.classes)
    with running(run) as progress:
        result = zero_shot(scene, target.output, classes, options, progress=progress)
    show_result(result.as_dict(), run, tell_map)
