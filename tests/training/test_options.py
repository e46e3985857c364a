"""From the options of ``train`` to recipes, and what is refused before torch is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rssc_geo.errors import RsscGeoError, UsageError
from rssc_geo.models import Footprint
from rssc_geo.options import TrainOptions
from rssc_geo.training import PUBLISHED, end_to_end_recipe, training_recipe
from rssc_geo.training.train import train


def test_options_that_are_given_change_the_recipes_and_the_others_do_not() -> None:
    plain = training_recipe(TrainOptions())
    assert (plain.seed, plain.val, plain.test, plain.end_to_end) == (0, 0.1, 0.1, None)
    assert plain.encoder.architecture == "mobilenetv1_100"
    chosen = training_recipe(
        TrainOptions(
            schedule=((1, 64), (2, 96)),
            learning_rate=1e-4,
            caption_epochs=3,
            fusion_epochs=4,
            footprint=(300, 400, 600),
            gsd_range=(0.5, 2),
            stretch="dos",
            seed=7,
            test=0,
        )
    )
    assert (chosen.encoder.size, chosen.encoder.learning_rate) == (96, 1e-4)
    assert (chosen.captioner.epochs, chosen.fusion.epochs) == (3, 4)
    assert chosen.footprint == Footprint(300, 400, 600)
    assert (plain.stretch, chosen.stretch) == (None, "dos")
    assert (chosen.gsd_range_m, chosen.seed, chosen.test) == ((0.5, 2), 7, 0)


def test_recipes_of_end_to_end_training() -> None:
    assert end_to_end_recipe(TrainOptions()) is None
    assert end_to_end_recipe(TrainOptions(recipe="published")) == PUBLISHED
    chosen = end_to_end_recipe(
        TrainOptions(text_encoder="clip", silent=0.0, workers=0, train_image_layers=0, compile=True)
    )
    assert chosen is not None
    assert (chosen.text_encoder, chosen.silent, chosen.image_layers) == ("clip", 0.0, 0)
    assert (chosen.text_layers, chosen.compile) == (None, True)
    onward = end_to_end_recipe(TrainOptions(recipe="full", model="my-model"))
    assert onward is not None
    assert (onward.image_encoder, onward.text_encoder) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(epochs=3), "--epochs: only for training end to end"),
        (TrainOptions(silent=0.0), "--silent: only for training end to end"),
        (TrainOptions(train_text_layers=0), "--train-text-layers: only for training end to end"),
        (TrainOptions(recipe="full", trainings=2), "--trainings: only for training by stages"),
        (
            TrainOptions(text_encoder="clip", folds=3, swa_epochs=1),
            "--swa-epochs, --folds: only for training by stages, without --recipe full",
        ),
        (TrainOptions(image_encoder="resnet18"), "--image-encoder and --weights go together"),
        (TrainOptions(footprint=(600, 400, 300)), "smallest, preferred and largest side"),
        (TrainOptions(stretch="2%"), "--stretch '2%' is not understood"),
        (TrainOptions(val=0.7, test=0.4), "leave something to train on"),
        (TrainOptions(image_encoder="resnet18", weights="none.safetensors"), "no such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    folder: Path, tmp_path: Path, options: TrainOptions, message: str
) -> None:
    with pytest.raises(RsscGeoError, match=message):
        train(folder, tmp_path / "bundle", options)
    assert not list(tmp_path.iterdir())


def test_a_transformers_encoder_is_trained_end_to_end_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rssc_geo import models

    card = models.load_card("compact")
    network = {**card.network, "image_encoder": {"model_type": "vit"}}
    other = type(card)(**{**{n: getattr(card, n) for n in card.__slots__}, "network": network})
    monkeypatch.setattr(models, "load_card", lambda _: other)
    with pytest.raises(UsageError, match="goes on learning with --recipe full"):
        training_recipe(TrainOptions(model="theirs"))


def test_a_wrong_folder_is_told_before_torch_is_loaded() -> None:
    code = (
        "import sys\n"
        "from rssc_geo.errors import InputError\n"
        "from rssc_geo.training.train import train\n"
        "try:\n"
        "    train('nowhere', 'bundle')\n"
        "except InputError:\n"
        "    sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
