"""Stand-ins for what main brings soon; goes at the merge."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from rssc_geo.captioning import CaptionOptions
from rssc_geo.inference import Classifies as TilePredictor
from rssc_geo.inference import CellMap, Maker, SceneJob, output_options
from rssc_geo.inference import make_plan as _make_plan
from rssc_geo.inference import TilingOptions as OldTiling
from rssc_geo.raster import TileReader
from rssc_geo.reports import check_extra, draw_preview


PredictorSpec = Maker
Maker.as_dict = Maker.describe


class Plan2:
    def __init__(self, plan, options):
        self._plan, self.options = plan, options

    def __getattr__(self, name):
        if name in ("_plan", "options"):
            raise AttributeError(name)
        return getattr(self._plan, name)

    @functools.cached_property
    def cells(self):
        return CellMap(self.grid, self.selected, min_valid=self.options.min_valid)

    def inputs(self):
        return (*self.scene.files, *(() if self.options.aoi is None else (self.options.aoi,)))


def make_plan(source, card, options):
    old = OldTiling(**{n: getattr(options, n) for n in OldTiling.__slots__})
    return Plan2(_make_plan(source, card, old), old)


@dataclass
class Target:
    plan: object
    wanted: object
    options: object


def make_target(output, options, *, overwrite, area, inputs):
    return Target(None, (output, overwrite), options)


class Extras:
    def __init__(self, options, target, plan):
        output, overwrite = target.wanted
        if options.preview is not None:
            check_extra("--preview", Path(options.preview), plan=plan, overwrite=overwrite)
        self.options, self.plan = options, plan

    def write(self, summary, spec):
        if self.options.preview is None:
            return []
        from rssc_geo.raster import fit_radiometry

        draw_preview(
            Path(self.options.preview),
            plan=self.plan._plan,
            radiometry=fit_radiometry(self.plan.scene, stretch=self.options.stretch),
            class_grid=summary.class_grid,
            classes=spec.card.classes,
        )
        return [Path(self.options.preview)]


class SceneRun(SceneJob):
    def __init__(self, plan, target, spec):
        o = target.options
        output, overwrite = target.wanted
        wanted = output_options(
            plan._plan,
            output,
            crs=o.crs,
            aoi_clip=o.aoi_clip,
            min_area_m2=o.min_area,
            probabilities=o.probabilities,
            class_raster=o.class_raster,
            overwrite=overwrite,
        )
        super().__init__(plan._plan, plan.options, wanted, spec)
        plan.radiometry = self.radiometry
        self.plan = plan
        self.remaining, self.spec = self.todo, spec


def load_predictor(options):
    from rssc_geo.captioning import describe_captioner, make_captioner
    from rssc_geo.inference import TileClassifier, choose_compute
    from rssc_geo.models import load_model

    compute = choose_compute(options.device, dtype=options.dtype, batch_size=options.batch_size)
    model = load_model(options.model, revision=options.revision)
    captions = CaptionOptions(
        prompt=options.prompt,
        max_tokens=options.caption_tokens,
        when=options.caption_when,
        share=options.share_captions,
        cache=options.caption_cache,
        requests=options.caption_requests,
        timeout_s=options.caption_timeout,
        batch_size=options.caption_batch_size,
        quantize=options.quantize,
        trust_remote_code=options.trust_remote_code,
        beam=options.caption_beam,
    )
    captioner = make_captioner(
        options.captioner, model, captions, device=compute.device, dtype=compute.dtype
    )
    predictor = TileClassifier(model, captioner, compute)
    predictor.spec = PredictorSpec(
        model.card, describe_captioner(captioner), str(compute.dtype).removeprefix("torch.")
    )
    predictor.compute = compute
    return predictor


def predict_tiles(*a):
    from rssc_geo.inference import classify_tiles

    return classify_tiles(*a)
