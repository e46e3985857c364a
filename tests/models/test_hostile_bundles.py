"""Malicious or damaged bundles: refused in one line, and no code runs."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rssc_geo.errors import BundleError, UsageError
from rssc_geo.models import Model, load_bundle, load_card, make_image_encoder, make_text_encoder

Card = dict[str, Any]


def edit(bundle: Path, change: Callable[[Card], object]) -> None:
    """Change the card, after the checksums have been made to fit the files."""
    path = bundle / "config.json"
    card = json.loads(path.read_text())
    for name in card["sha256"]:
        card["sha256"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    change(card)
    path.write_text(json.dumps(card))


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def image(**kwargs: object) -> Callable[[Card], object]:
    return lambda card: card["network"]["image_encoder"]["kwargs"].update(kwargs)


def encoder(part: str, **settings: object) -> Callable[[Card], object]:
    return lambda card: card["network"].update({part: settings})


def network(**settings: object) -> Callable[[Card], object]:
    return lambda card: card["network"].update(settings)


def top(**values: object) -> Callable[[Card], object]:
    return lambda card: card.update(values)


PLACES = {
    "a file to unpickle": image(checkpoint_path="README.md"),
    "pretrained weights": image(pretrained=True),
    "a source of weights": image(pretrained_cfg={"file": "/etc/passwd"}),
    "more of a source": image(pretrained_cfg_overlay={"url": "https://example.com/w.bin"}),
    "a cache": image(cache_dir="/tmp"),
    "a scripted model": image(scriptable=True),
    "a word that is a path": image(pad_type="../../etc"),
    "kwargs that are none": encoder("image_encoder", architecture="resnet10t", kwargs=[1]),
    "more than kwargs": encoder("image_encoder", architecture="resnet10t", pretrained=True),
    "a hub id": encoder("image_encoder", architecture="hf-hub:nobody/nothing"),
    "a folder": encoder("image_encoder", architecture="local-dir:/tmp"),
    "a file": encoder("image_encoder", architecture="/etc/passwd"),
    "an architecture that is none": encoder("image_encoder", architecture=["resnet10t"]),
    "a wrapped timm model": encoder(
        "image_encoder", model_type="timm_wrapper", architecture="hf-hub:nobody/nothing"
    ),
    "timm as a backbone": encoder(
        "image_encoder", model_type="timm_backbone", backbone="resnet18", use_pretrained_backbone=1
    ),
    "layers without end": image(depths=[65536] * 4),
    "stages without end": image(depths=[1] * 10_000),
    "code of the image encoder": encoder(
        "image_encoder", model_type="vit", auto_map={"AutoModel": "evil.Model"}
    ),
    "code of the text encoder": encoder(
        "text_encoder", model_type="bert", auto_map={"AutoModel": "evil.Model"}
    ),
    "an unknown type": encoder("text_encoder", model_type="evil"),
    "a type that is none": encoder("text_encoder", model_type={"bert": 1}),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_card_names_no_file_no_repository_and_no_code(
    name: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be unpickled or fetched")

    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr("builtins.input", never)
    proof = bundle / "proof"
    (bundle / "evil.py").write_text(f"open({str(proof)!r}, 'w')\nclass Model: pass\n")
    edit(bundle, PLACES[name])
    refusal(bundle)
    assert not proof.exists()


def test_fields_that_say_nothing_of_the_form_are_not_read() -> None:
    text = make_text_encoder(
        {
            "model_type": "bert",
            "vocab_size": 20,
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 8,
            "attn_implementation": "somebody/kernel",
            "_attn_implementation": "somebody/kernel",
            "return_dict": False,
            "num_labels": 10**12,
        }
    )
    assert text.vocabulary == 20
    assert text.backbone.config._attn_implementation != "somebody/kernel"
    assert text.backbone.config.num_labels == 2


def test_what_architectures_need_is_allowed() -> None:
    built = make_image_encoder({"architecture": "test_vit.r160_in1k", "kwargs": {"img_size": 64}})
    assert built(torch.zeros(1, 3, 64, 64)).shape[1] == 17


ODD = {
    "no temperature": (top(temperature=float("nan")), "NaN is no number"),
    "endless temperature": (top(temperature=float("inf")), "Infinity is no number"),
    "no heat": (top(temperature=0), "temperature is 0"),
    "heat by a text": (top(temperature="1"), "temperature is '1'"),
    "heat of no windows": (top(window_temperature=1.0), "window_temperature is of local_features"),
    "no mean": (top(mean=[float("nan")] * 3), "NaN is no number"),
    "two deviations": (top(std=[0.5, 0.5]), "not a list of 3"),
    "small deviations": (top(std=[1e-40] * 3), "std"),
    "three sides": (top(input_size=[64, 64, 3]), "not a list of 2"),
    "half pixels": (top(input_size=[64.5, 64]), "not an integer"),
    "huge pictures": (top(input_size=[10**6, 10**6]), "from 1 to 2048"),
    "sides as a text": (top(input_size="64"), "not a list"),
    "no text at all": (top(name=None), "not a text"),
    "half a sign": (top(description="\ud800"), "is no text"),
    "a name of two lines": (top(name="a\nb"), "cannot be printed"),
    "bands of numbers": (top(bands=[1, 2, 3]), "not a text"),
    "no flag": (top(reads_own_captions="no"), "neither true nor false"),
    "classes by name": (top(classes={"a": 1}), "not a list"),
    "a class with NUL": (lambda card: card["classes"][0].update(name="\0"), "no text that a file"),
    "classes of numbers": (top(classes=[1]), "not an object"),
    "footprint of texts": (
        top(footprint={"minimum_m": "1", "preferred_m": 2, "maximum_m": 3}),
        "footprint.minimum_m",
    ),
    "no checksums": (top(sha256=[1]), "sha256"),
    "true as a format": (top(format=True), "bundle format True"),
    "many levels": (network(levels=10**9), "network.levels"),
    "wide": (network(width=10**9), "network.width"),
    "wider than its weights": (network(width=16384), "10 times as large"),
    "uneven heads": (network(heads=3), "3 heads"),
    "no heads": (network(heads=0), "network.heads"),
    "another argument": (network(device="cuda"), "network.device is not known"),
    "another variant": (network(variant="mine"), "variant"),
    "no network": (top(network=None), "network is None"),
    "a huge vocabulary": (
        encoder("text_encoder", model_type="bert", vocab_size=9_000_000),
        "10 times as large",
    ),
    "a small vocabulary": (
        lambda card: card["network"]["text_encoder"].update(vocab_size=3),
        "does not fit",
    ),
    "endless layers": (
        encoder("text_encoder", model_type="bert", hidden_size=2, num_hidden_layers=10**9),
        "",
    ),
    "a huge table": (
        encoder("text_encoder", model_type="static", vocab_size=10**9, hidden_size=10**5),
        "10 times as large",
    ),
    "a negative table": (
        encoder("text_encoder", model_type="static", vocab_size=-1, hidden_size=4),
        "no network",
    ),
    "endless sentences": (lambda card: card["captioner"].update(length=10**9), "captioner.length"),
    "another image": (lambda card: card["captioner"].update(image_width=7), "does not fit"),
    "an alignment of nothing": (top(alignment={}), "no network"),
    "a list for a captioner": (top(captioner=[]), "captioner"),
    "a long architecture": (
        encoder("image_encoder", architecture="x" * 900_000),
        "no architecture that timm lists",
    ),
    "a long type": (encoder("text_encoder", model_type="x" * 900_000), "none that a bundle may"),
    "a large card": (top(description="x" * 1_000_000), "too large for a model card"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_cards_are_refused_in_one_line_and_soon(name: str, bundle: Path) -> None:
    change, message = ODD[name]
    edit(bundle, change)
    start = time.monotonic()
    told = refusal(bundle)
    assert message in told
    assert len(told) < 1000
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", ["beit", "data2vec-vision", "dinov2", "dinov3_vit", "bert", "t5"])
@pytest.mark.parametrize("count", [10**6, 10**18])
def test_layers_that_are_counted_without_end(kind: str, count: int, bundle: Path) -> None:
    """Before their first layer some networks make a list of the names of all."""
    part = "text_encoder" if kind in ("bert", "t5") else "image_encoder"
    changed = (
        ["num_hidden_layers"] if part == "text_encoder" else ["num_hidden_layers", "image_size"]
    )
    for changes in ({name: [count]} for name in changed):
        edit(bundle, encoder(part, model_type=kind, **changes))
        start = time.monotonic()
        assert f"is {count}, which is not valid" in refusal(bundle)
        assert time.monotonic() - start < 10


def test_json_that_is_a_trap(bundle: Path) -> None:
    path = bundle / "config.json"
    text = path.read_text()
    for depth in (60, 100_000):
        nested = '"accuracy": {"x": ' + "[" * depth + "]" * depth + "}, "
        path.write_text(text.replace('"accuracy": {}', nested.rstrip(", "), 1))
        assert "nested too deeply" in refusal(bundle)
    path.write_text(text.replace('"name": "small"', '"name": "small", "name": "other"', 1))
    assert "'name' is given twice" in refusal(bundle)
    many = ", ".join(f'"a{number}": 0' for number in range(60_000))
    path.write_text(text.replace('"name": "small"', f'{many}, "name": "small", "name": "x"', 1))
    start = time.monotonic()
    assert "'name' is given twice" in refusal(bundle)
    assert time.monotonic() - start < 10
    path.write_text(text.replace('"temperature": 1.5', '"temperature": 1e999', 1))
    assert "too large" in refusal(bundle)
    path.write_bytes(b"\xff" + text.encode())
    assert "cannot be read" in refusal(bundle)


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "no numbers"), (float("inf"), "no numbers"), (1e38, "not finite")],
)
def test_weights_that_give_no_numbers(bundle: Path, value: float, message: str) -> None:
    weights = {name: tensor.float() for name, tensor in load_file(bundle / WEIGHTS).items()}
    weights["network.text_proj.weight"] = weights["network.text_proj.weight"].fill_(value)
    weights["network.classifier.1.weight"] = weights["network.classifier.1.weight"].fill_(value)
    save_file(weights, bundle / WEIGHTS)
    edit(bundle, lambda _: None)
    assert message in refusal(bundle)


WEIGHTS = "model.safetensors"


def header(**entry: object) -> Callable[[Path], object]:
    """Another tensor in the header: of no bytes, or with other fields."""

    def change(path: Path) -> None:
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        names, body = json.loads(content[8:end]), content[end:]
        last = len(body)
        extra = {"dtype": "F32", "shape": [0], "data_offsets": [last, last]}
        names[str(entry.get("name", "network.more"))] = {**extra, **entry}
        text = json.dumps(names).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + body)

    return change


def headed(text: bytes) -> Callable[[Path], object]:
    """A file of a header alone."""
    return lambda path: path.write_bytes(len(text).to_bytes(8, "little") + text)


def tensors(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    return lambda path: save_file({k: change(k, v) for k, v in load_file(path).items()}, path)


EMPTY = '{"dtype":"F16","shape":[0],"data_offsets":[0,0]}'
MANY = ",".join(f'"network.{number}":{EMPTY}' for number in range(200_000))
UNREADABLE = "not a readable safetensors file"
WEIGHT_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an endless header": (lambda p: p.write_bytes(b"\xff" * 8 + p.read_bytes()[8:]), UNREADABLE),
    "a header of others": (lambda p: p.write_bytes(b"\2" + b"\0" * 7 + b"[]"), UNREADABLE),
    "no file at all": (lambda p: p.write_bytes(b""), UNREADABLE),
    "a shape without end": (header(shape=[0, 2**62, 2**62]), UNREADABLE),
    "a negative shape": (header(shape=[-1]), UNREADABLE),
    "bytes of others": (header(shape=[1], data_offsets=[0, 4]), UNREADABLE),
    "bytes beyond the end": (header(data_offsets=[10**18, 10**18]), UNREADABLE),
    "an unknown type": (header(dtype="F13"), UNREADABLE),
    "a name of two lines": (header(name="network.a\nb"), "which no part of a model has"),
    "weights of no part": (header(name="evil.weight"), "which no part of a model has"),
    "one weight more": (header(), "does not fit config.json"),
    "whole numbers": (tensors(lambda _, v: v.long()), "is of type torch.int64, not torch.float32"),
    "truth values": (
        tensors(lambda k, v: v.bool() if "classifier" in k else v),
        "is of type torch.bool, not torch.float32",
    ),
    "many empty tensors": (headed(f"{{{MANY[:3_900_000]}".encode()), "its header names"),
    "more of them": (headed(f"{{{MANY}}}".encode()), "its header has"),
    "lists without end": (headed(b'{"network.a":' + b"[" * 3_000_000), UNREADABLE),
    "objects without end": (headed(b'{"a":' * 9_000), UNREADABLE),
    "words without end": (headed(b'{"__metadata__":{"a":"' + b"b" * 100_000_000), "its header has"),
    "another shape": (tensors(lambda k, v: v.T.contiguous() if v.ndim == 2 else v), "does not fit"),
}


@pytest.mark.parametrize("name", WEIGHT_FILES)
def test_odd_files_of_weights(name: str, bundle: Path) -> None:
    change, message = WEIGHT_FILES[name]
    change(bundle / WEIGHTS)
    edit(bundle, lambda _: None)
    start = time.monotonic()
    assert message in refusal(bundle)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision_are_read(bundle: Path, dtype: torch.dtype) -> None:
    tensors(lambda _, v: v.to(dtype) if v.is_floating_point() else v)(bundle / WEIGHTS)
    edit(bundle, lambda _: None)
    assert load_bundle(bundle).network.classifier[1].weight.dtype == torch.float32


def test_a_tokenizer_that_panics_at_some_texts_alone_is_one_line(bundle: Path) -> None:
    path = bundle / "tokenizer.json"
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    for pattern, loads in (("^(([a-z ])+.)+[A-Z]([a-z ])+$", False), ("q(([a-z ])+.)+[A-Z]", True)):
        odd = {"pre_tokenizer": {**split, "pattern": {"Regex": pattern}}}
        path.write_text(json.dumps(json.loads(path.read_text()) | odd))
        edit(bundle, lambda _: None)
        if not loads:
            assert "tokenizer cannot read the text" in refusal(bundle)
            continue
        model = load_bundle(bundle)
        with pytest.raises(BundleError, match="tokenizer cannot read the text 'qaaaa") as caught:
            model.tokenize([f"q{'a' * 100} b"])
        assert "\n" not in str(caught.value)


class _StopAt:
    """A trace function that interrupts at the n-th line of a function, where it is called first."""

    def __init__(self, function: str, line: int) -> None:
        self.function, self.left, self.frame = function, line, None

    def __call__(self, frame: Any, event: str, _argument: object) -> Any:
        if frame.f_code.co_name != self.function or self.frame not in (None, frame):
            return None
        self.frame = frame
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_a_stop_while_libraries_are_silenced_leaves_stderr_as_it_was(bundle: Path) -> None:
    before = os.fstat(2)
    for line in range(1, 100):
        stop = _StopAt("without_words", line)
        sys.settrace(stop)
        try:
            load_bundle(bundle)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert os.path.samestat(os.fstat(2), before), line
        if stop.left > 0:  # the block has fewer lines
            break
    assert line > 10


TOKENIZERS = {
    "a panic": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "texts without end": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60,
        }
    },
    "many steps": {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}] * 100_000}
    },
    "no model": {"model": None},
    "another model": {"model": {"type": "Evil"}},
    "tokens without end": {
        "model": {"type": "WordLevel", "vocab": {"a": 2**32 - 1, "[UNK]": 1}, "unk_token": "[UNK]"}
    },
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_odd_tokenizers(name: str, bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = bundle / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | TOKENIZERS[name]))
    edit(bundle, lambda _: None)
    start = time.monotonic()
    refusal(bundle)
    assert time.monotonic() - start < 10
    assert capfd.readouterr().err == ""


def test_padding_of_a_foreign_tokenizer_is_not_done(bundle: Path) -> None:
    path = bundle / "tokenizer.json"
    padding = {
        "strategy": {"Fixed": 10**12},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding": padding}))
    edit(bundle, lambda _: None)
    assert load_bundle(bundle).tokenize(["a field"])[0].shape[1] < 16


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, "tokenizer.json", "README.md"])
def test_links_out_of_a_bundle_are_not_followed(file: str, bundle: Path, tmp_path: Path) -> None:
    (bundle / file).rename(tmp_path / "elsewhere")
    (bundle / file).symlink_to(Path("..", "elsewhere"))
    assert f"{file} is a link out of its folder" in refusal(bundle)
    with pytest.raises(BundleError, match="is a link out of its folder"):
        load_card(bundle)


def test_links_within_a_bundle_and_to_it_are(bundle: Path, tmp_path: Path) -> None:
    (bundle / WEIGHTS).rename(bundle / "weights")
    (bundle / WEIGHTS).symlink_to("weights")
    (tmp_path / "named").symlink_to(bundle)
    assert load_bundle(tmp_path / "named").card.name == "small"


def test_the_hubs_cache_is_made_of_links(bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--somebody--small"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    snapshot = cache / "snapshots" / "0123"
    shutil.move(bundle, snapshot)
    for file in list(snapshot.iterdir()):
        blob = cache / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        file.symlink_to(Path("../../blobs", blob.name))
    assert load_bundle(snapshot).card.name == "small"
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to("/etc/hostname")
    assert "is a link out of its folder" in refusal(snapshot)


@pytest.mark.skipif(os.name != "posix", reason="pipes have names on POSIX alone")
def test_what_is_no_file_is_not_waited_for(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    os.mkfifo(bundle / "config.json")
    assert "config.json is no file" in refusal(bundle)


ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2, 0.5, 10**18, -1e300, 1e-300, float("nan"), float("inf")),
    *("", "x", "\n", "\ud800", "hf-hub:a/b", "/etc/passwd", [], {}, [1], {"x": 1}, [[[[]]]]),
    *([0] * 1000, {"auto_map": {"AutoModel": "a.B"}}),
]


def mutate_value(value: Any, chance: random.Random) -> Any:
    """Another value: something odd, or a part of it changed, left out or given a new name."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.1:
        return chance.choice(ODD_VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = chance.choice(keys)
    changed = dict(value) if isinstance(value, dict) else list(value)
    kind = chance.random()
    if kind < 0.1:
        del changed[key]
    elif kind < 0.2 and isinstance(changed, dict):
        changed[chance.choice(("x", "checkpoint_path", "auto_map", "levels"))] = changed.pop(key)
    else:
        changed[key] = mutate_value(value[key], chance)
    return changed


def damage(content: bytes, chance: random.Random) -> bytes:
    """The content cut off, or with some bytes changed."""
    place = chance.randrange(len(content))
    if chance.random() < 0.3:
        return content[:place]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 4, 50))):
        changed[min(int(len(changed) * chance.random() ** 4), len(changed) - 1)] = chance.choice(
            (0, 255, 0x22, 0x7B, chance.randrange(256))
        )
    return bytes(changed)


def load_or_refuse(bundle: Path) -> Model | None:
    """The model; None: it is refused, in one line."""
    try:
        return load_bundle(bundle)
    except (BundleError, UsageError) as error:
        message = str(error)
    assert message.isprintable()
    return None


@pytest.mark.slow
def test_mutated_bundles_are_refused_or_work(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Cards with odd values, and files that are cut or changed, with checksums made to fit."""
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    card = json.loads(files["config.json"])
    pixels = torch.full((1, 48, 48, 3), 90, dtype=torch.uint8).numpy()
    chance = random.Random(17)
    refused, start = 0, time.monotonic()
    for count in range(400):
        if time.monotonic() - start > 15:
            break
        for name, content in files.items():
            if (bundle / name).read_bytes() != content:
                (bundle / name).write_bytes(content)
        name = chance.choice(("config.json", "config.json", *files))
        signed = chance.random() < 0.7
        if name == "config.json" and signed:
            (bundle / name).write_text(json.dumps(mutate_value(card, chance)))
        else:
            (bundle / name).write_bytes(damage(files[name], chance))
            if signed:
                edit(bundle, lambda _: None)
        model = load_or_refuse(bundle)
        if model is None:
            refused += 1
            continue
        changed = (bundle / name).read_bytes() != files[name]
        assert signed or not changed or name in ("config.json", "README.md"), count
        images = model.preprocess(pixels, pixels[..., 0] > 0)
        size = model.card.input_size
        images = torch.nn.functional.interpolate(images, size)
        with torch.inference_mode():
            logits = model.network(images, *model.tokenize(["a green field ."]))
        assert logits.shape == (1, len(model.card.classes)), count
        assert bool(logits.isfinite().all()), count
    assert refused > 20
    assert capfd.readouterr().err == ""
