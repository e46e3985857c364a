"""Vision-language models of transformers.

The library's own classes, with small random weights in folders made here.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rssc_geo.captioning import CaptionBatch, HuggingFaceCaptioner, Sampling, tile_image
from rssc_geo.errors import RsscGeoError, UsageError
from rssc_geo.options import CaptionerOptions

PROMPT = "river and field ."
WORDS = [
    "river",
    "field",
    "town",
    "wood",
    "harbour",
    "road",
    "roof",
    "sand",
    "wide",
    "green",
    "old",
    "small",
    "long",
    "dark",
    "dry",
    "near",
    "beside",
    "under",
    "along",
    "and",
]
CHAT = (
    "{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} ASSISTANT:"
)
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
VISION |= {"image_size": 28, "patch_size": 14}
SIZE = {"height": 28, "width": 28}


def tokenizer(*marks: str, **named: str) -> Any:
    special = ["<pad>", "<s>", "</s>", "<unk>", *marks, *named.values()]
    vocabulary = {
        word: index
        for index, word in enumerate(
            [*special, *WORDS, *[".", ",", ":", "USER", "ASSISTANT", "Question", "Answer"]]
        )
    }
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named or list(marks),
        model_input_names=["input_ids", "attention_mask"],
    )


def llama(words: Any, **more: Any) -> dict[str, Any]:
    return tf.LlamaConfig(vocab_size=len(words), **LLAMA, **more).to_dict()


def llava() -> tuple[Any, Any]:
    """LLaVA 1.5, without a chat template, as in its first checkpoints."""
    words = tokenizer(image_token="<image>")
    config = tf.LlavaConfig(
        text_config=llama(words),
        vision_config=tf.CLIPVisionConfig(**VISION).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    images = tf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=SIZE)
    select = {
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    return tf.LlavaForConditionalGeneration(config), tf.LlavaProcessor(images, words, **select)


def llava_next() -> tuple[Any, Any]:
    """LLaVA 1.6: the picture and pieces of it."""
    words = tokenizer(image_token="<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    config = tf.LlavaNextConfig(
        text_config=llama(words),
        vision_config=tf.CLIPVisionConfig(**VISION).to_dict(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grid,
    )
    images = tf.LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size=SIZE, image_grid_pinpoints=grid
    )
    select = {
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    chat = "<s>" + CHAT.replace("IMAGE", "<image>\n")
    return tf.LlavaNextForConditionalGeneration(config), tf.LlavaNextProcessor(
        images, words, chat_template=chat, **select
    )


def _qwen(kind: str, **vision: Any) -> tuple[Any, Any]:
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = tokenizer(*marks)
    start, end, image, video = words.convert_tokens_to_ids(marks)
    config = getattr(tf, f"{kind}Config")(
        text_config=llama(words, rope_scaling={"type": "mrope", "mrope_section": [2, 2, 4]}),
        vision_config={
            "depth": 2,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "hidden_size": 32,
            **vision,
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    processor = getattr(tf, f"{kind}Processor")(
        tf.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112),
        words,
        video_processor=tf.Qwen2VLVideoProcessor(),
        chat_template=CHAT.replace("IMAGE", marks[0] + marks[2] + marks[1]),
    )
    return getattr(tf, f"{kind}ForConditionalGeneration")(config), processor


def qwen2_vl() -> tuple[Any, Any]:
    return _qwen("Qwen2VL", embed_dim=32, mlp_ratio=2)


def qwen2_5_vl() -> tuple[Any, Any]:
    return _qwen(
        "Qwen2_5_VL",
        out_hidden_size=32,
        intermediate_size=48,
        window_size=28,
        fullatt_block_indexes=[1],
    )


def _idefics(kind: str, **more: Any) -> tuple[Any, Any]:
    places = [f"<row_{row}_col_{col}>" for row in (1, 2) for col in (1, 2)]
    words = tokenizer(
        "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *places
    )
    config = getattr(tf, f"{kind}Config")(
        text_config=llama(words),
        vision_config=getattr(tf, f"{kind}VisionConfig")(**VISION | {"image_size": 56}).to_dict(),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    images = getattr(tf, f"{kind}ImageProcessor")(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
    )
    chat = CHAT.replace("IMAGE", "<image>")
    processor = getattr(tf, f"{kind}Processor")(
        images, words, image_seq_len=4, chat_template=chat, **more
    )
    return getattr(tf, f"{kind}ForConditionalGeneration")(config), processor


def idefics3() -> tuple[Any, Any]:
    return _idefics("Idefics3")


def smolvlm() -> tuple[Any, Any]:
    pytest.importorskip("num2words", reason="SmolVLM's processor needs num2words")
    return _idefics("SmolVLM", video_processor=tf.SmolVLMVideoProcessor())


def internvl() -> tuple[Any, Any]:
    marks = {
        "start_image": "<img>",
        "end_image": "</img>",
        "context_image": "<IMG_CONTEXT>",
        "video": "<video>",
    }
    words = tokenizer(**{f"{name}_token": mark for name, mark in marks.items()})
    config = tf.InternVLConfig(
        text_config=llama(words),
        vision_config=VISION | {"image_size": [28, 28], "patch_size": [14, 14]},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
    )
    images = tf.GotOcr2ImageProcessor(size=SIZE, crop_to_patches=True, min_patches=1, max_patches=4)
    chat = CHAT.replace("IMAGE", "<IMG_CONTEXT>\n")
    processor = tf.InternVLProcessor(
        images, words, tf.InternVLVideoProcessor(), image_seq_length=1, chat_template=chat
    )
    return tf.InternVLForConditionalGeneration(config), processor


def blip2() -> tuple[Any, Any]:
    words = tokenizer("<image>")
    text = tf.OPTConfig(
        vocab_size=len(words),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    text.update(
        {"max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    )
    former = {
        key: VISION[key]
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    config = tf.Blip2Config(
        vision_config=tf.Blip2VisionConfig(**VISION).to_dict(),
        qformer_config=tf.Blip2QFormerConfig(
            **former, encoder_hidden_size=32, vocab_size=len(words)
        ).to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    images = tf.BlipImageProcessor(size=SIZE)
    return tf.Blip2ForConditionalGeneration(config), tf.Blip2Processor(
        images, words, num_query_tokens=4
    )


def florence2() -> tuple[Any, Any]:
    words = tokenizer(image_token="<image>")
    text = tf.BartConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        max_position_embeddings=99,
    )
    text.update(
        {
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "bos_token_id": 1,
        }
    )
    text.update({"eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 2})
    vision = {
        "embed_dim": [16, 32, 48, 64],
        "depths": [1] * 4,
        "num_heads": [2] * 4,
        "num_groups": [2] * 4,
        "window_size": 2,
    }
    config = tf.Florence2Config(
        text_config=text.to_dict(),
        vision_config=vision
        | {
            "projection_dim": 32,
            "max_position_embeddings": 50,
            "max_temporal_embeddings": 10,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    images = tf.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    return tf.Florence2ForConditionalGeneration(config), tf.Florence2Processor(images, words)


FAMILIES = (llava, llava_next, qwen2_vl, qwen2_5_vl, idefics3, smolvlm, internvl, blip2, florence2)


def save(build: Callable[[], tuple[Any, Any]], folder: Path) -> Path:
    torch.manual_seed(0)
    model, processor = build()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(
                    std=0.35
                )  # far apart, so that different pictures get different words
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(llava, tmp_path_factory.mktemp("llava"))


@pytest.fixture
def folder(llava_folder: Path, tmp_path: Path) -> Path:
    """A LLaVA of the test's own, to be spoilt."""
    return shutil.copytree(llava_folder, tmp_path / "llava")


@pytest.fixture(scope="module")
def tiles() -> CaptionBatch:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (5, 4, 4, 3)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    mask = np.ones(pixels.shape[:3], bool)
    mask[1, :20] = False
    return CaptionBatch(pixels, mask, torch.empty(0))


def part(tiles: CaptionBatch, *places: int) -> CaptionBatch:
    return CaptionBatch(tiles.pixels[list(places)], tiles.mask[list(places)], tiles.image_tokens)


def captioner(
    folder: Path,
    *,
    tokens: int = 10,
    batch_size: int | None = None,
    quantize: str | None = None,
    **how: Any,
) -> HuggingFaceCaptioner:
    options = CaptionerOptions(
        caption_tokens=tokens, caption_batch_size=batch_size, quantize=quantize
    )
    given = {"prompt": PROMPT, "device": "cpu", "options": options, **how}
    return HuggingFaceCaptioner(str(folder), **given)


@pytest.mark.parametrize("build", FAMILIES, ids=[build.__name__ for build in FAMILIES])
def test_families(
    build: Callable[[], tuple[Any, Any]],
    tiles: CaptionBatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    save(build, tmp_path)
    capfd.readouterr()
    asked = captioner(tmp_path, batch_size=3)
    captions = asked.caption(tiles)
    assert len(captions) == 5
    assert len(set(captions)) >= 3, "the pictures are not looked at"
    assert all(text == " ".join(text.split()) and "<" not in text for text in captions)
    assert not any("river and field" in text for text in captions), "the question is in the answer"
    assert [asked.caption(part(tiles, place))[0] for place in range(5)] == captions
    assert asked.caption(part(tiles, 4, 2, 0)) == [captions[4], captions[2], captions[0]]
    assert captioner(tmp_path, batch_size=5).caption(tiles) == captions
    assert asked.caption(part(tiles)) == []
    assert capfd.readouterr().err == ""


def test_the_question_takes_the_models_form(
    llava_folder: Path, tmp_path: Path, tiles: CaptionBatch
) -> None:
    asked = {}
    for folder in (
        llava_folder,
        save(llava_next, tmp_path / "next"),
        save(blip2, tmp_path / "blip2"),
    ):
        one = captioner(folder)
        one.caption(part(tiles, 0))
        asked[folder.name] = (
            one._loaded.inputs([tile_image(tiles.pixels[0], tiles.mask[0])])["input_ids"][
                0
            ].tolist(),
            one._loaded,
        )
    ids, loaded = asked["next"]
    assert ids.count(1) == 1, "the beginning of the text, which the template writes, is marked once"
    assert loaded.text.endswith("river and field . ASSISTANT:")
    assert asked[llava_folder.name][1].text == "USER: <image>\nriver and field . ASSISTANT:"
    assert asked["blip2"][1].text == "Question: river and field . Answer:"


def test_invalid_pixels_say_nothing(llava_folder: Path, tiles: CaptionBatch) -> None:
    other = tiles.pixels.copy()
    other[~tiles.mask] = 255
    asked = captioner(llava_folder)
    assert asked.caption(CaptionBatch(other, tiles.mask, tiles.image_tokens)) == asked.caption(
        tiles
    )


def test_answers_end(llava_folder: Path, tiles: CaptionBatch) -> None:
    assert all(len(text.split()) <= 1 for text in captioner(llava_folder, tokens=1).caption(tiles))
    asked = captioner(llava_folder)
    asked.caption(part(tiles, 0))
    loaded = asked._loaded
    ids = loaded.processor.tokenizer.convert_tokens_to_ids
    town, stop, end = ids(["town", ".", "</s>"])
    assert loaded.answer([town, end, town, town]) == "town"
    assert loaded.answer([town, stop, town, ids("USER"), end]) == "town . town USER"
    user, colon = ids(["USER", ":"])
    assert loaded.answer([town, stop, town, user, colon, town]).startswith("town")


def test_sampled_words(llava_folder: Path, tiles: CaptionBatch) -> None:
    likeliest = captioner(llava_folder).caption(tiles)
    first = Sampling(temperature=2.0, seed=1)
    sampled = captioner(llava_folder, sampling=first)
    captions = sampled.caption(tiles)
    assert captions != likeliest
    assert captioner(llava_folder, sampling=first, batch_size=1).caption(tiles) == captions
    assert captioner(llava_folder, sampling=Sampling(2.0, seed=2)).caption(tiles) != captions
    assert captioner(llava_folder, sampling=Sampling(1e-6, seed=1)).caption(tiles) == likeliest
    assert sampled.parameters["seed"] == 1


def test_memory_that_runs_out_halves_the_batch(
    llava_folder: Path, tiles: CaptionBatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = captioner(llava_folder).caption(tiles)
    asked = captioner(llava_folder, batch_size=5)
    asked.caption(part(tiles, 0))
    generate, sizes = asked._loaded.model.generate, []
    most = 2

    def small_device(**inputs: Any) -> torch.Tensor:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(**inputs)

    asked._loaded.model.generate = small_device
    assert asked.caption(tiles) == whole
    assert sizes == [5, 3, 2, 2, 1]
    assert "out of memory on cpu: continuing with batches of 2" in caplog.text
    asked._batches.size, most = 2, 0
    with pytest.raises(RsscGeoError, match="out of memory on cpu with a single tile"):
        asked.caption(tiles)


def test_parameters_tell_captions_apart(folder: Path) -> None:
    plain = captioner(folder)
    assert plain.name == f"hf:{folder}"
    assert plain.source == "written"
    assert plain.parameters["dtype"] == "float32"
    assert captioner(folder).parameters == plain.parameters
    for how in (
        {"prompt": "what else ?"},
        {"tokens": 9},
        {"dtype": torch.bfloat16},
        {"sampling": Sampling(temperature=1.0)},
    ):
        assert captioner(folder, **how).parameters != plain.parameters
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value + 1 for key, value in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    assert captioner(folder).parameters["revision"] != plain.parameters["revision"]


def test_half_precision(llava_folder: Path, tiles: CaptionBatch) -> None:
    asked = captioner(llava_folder, dtype=torch.bfloat16)
    assert any(asked.caption(tiles))
    assert asked._loaded.model.dtype == torch.bfloat16


# What goes wrong


def refusal(folder: Path | str, tiles: CaptionBatch | None = None, **how: Any) -> str:
    """The line that the user gets."""
    with pytest.raises(RsscGeoError) as caught:
        asked = captioner(folder, **how)  # type: ignore[arg-type]
        if tiles is not None:
            asked.caption(tiles)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


def test_names_that_lead_nowhere() -> None:
    assert (
        refusal("no/such/folder")
        == "hf:no/such/folder: there is no such folder, and it is no hub id (owner/name)"
    )
    line = refusal("nobody/nothing")
    assert "hf:nobody/nothing: no such folder, and not available from the hub" in line
    assert "'hf download nobody/nothing'" in line
    assert "'hf download nobody/nothing --revision v2'" in refusal("nobody/nothing@v2")


@pytest.fixture
def hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[int, dict[str, str]], None]]:
    """A hub on this machine that answers every request with one status and headers."""
    said: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_HEAD()

        def do_HEAD(self) -> None:
            self.send_response(said["status"])
            for name, value in said["headers"].items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield lambda status, headers: said.update(status=status, headers=headers)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_that_refuses(hub: Callable[[int, dict[str, str]], None]) -> None:
    hub(403, {"X-Error-Code": "GatedRepo"})
    line = refusal("owner/gated")
    assert line.startswith("hf:owner/gated: its owner gives access on request")
    assert "'hf auth login'" in line
    hub(404, {"X-Error-Code": "RevisionNotFound"})
    assert refusal("owner/model@v9") == "hf:owner/model: the hub has no revision 'v9' of it"
    hub(401, {"X-Error-Code": "RepoNotFound"})
    assert "not available from the hub (401" in refusal("owner/private")


def test_a_folder_has_no_revision(folder: Path) -> None:
    assert "there is no such folder, and it is no hub id" in refusal(f"{folder}@main")


def test_a_model_without_images(tmp_path: Path) -> None:
    tf.LlamaForCausalLM(tf.LlamaConfig(vocab_size=30, **LLAMA)).save_pretrained(tmp_path)
    assert (
        "'llama' is no model that takes an image and writes text; take one such as LLaVA"
        in refusal(tmp_path)
    )


def test_code_of_its_own_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "configuration_own.py").write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nfrom transformers import"
        " LlavaConfig\nclass OwnConfig(LlavaConfig):\n    pass\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own-llava", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "a 'own-llava' model that runs code of its own, which is refused" in refusal(folder)
    assert "--trust-remote-code" in refusal(folder)
    assert not ran.exists()


def test_kernels_of_others_are_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["_attn_implementation"] = "somebody/kernel"
    (folder / "config.json").write_text(json.dumps(config))
    assert "names a kernel to fetch and run" in refusal(folder)


def test_files_of_other_folders_are_not_read(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    weights.rename(tmp_path / "elsewhere.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": f"../{tmp_path.name}/elsewhere.safetensors"}}))
    assert "names files of other folders" in refusal(folder)
    index.unlink()
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    assert "model.safetensors is a link out of its folder" in refusal(folder)


def test_broken_files(folder: Path, tiles: CaptionBatch) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert f"{weights} is not a readable safetensors file" in refusal(folder)
    weights.rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin is pickled and never loaded: convert it to safetensors" in refusal(
        folder
    )
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-1-of-2.safetensors"}}'
    )
    assert "lacks model-1-of-2.safetensors; get the folder again" in refusal(folder)
    weights.write_bytes(whole)
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in refusal(folder)
    (folder / "config.json").write_text('{"model_type": "llava-9000"}')
    assert "transformers knows no such model" in refusal(folder)


def test_weights_of_another_model(
    folder: Path, tiles: CaptionBatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Cloned: what safetensors loads may be pages of the file, which is overwritten here.
    weights = {key: value.clone() for key, value in load_file(folder / "model.safetensors").items()}
    name = next(key for key in weights if "k_proj" in key)
    save_file(
        {key: value for key, value in weights.items() if key != name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    line = refusal(folder, tiles)
    assert "its weights are not those of its config.json" in line
    assert "k_proj" in line
    weights[name] = weights[name][:5].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "k_proj" in refusal(folder, tiles)
    assert capfd.readouterr().err == "", "one line is enough"


def test_a_wrong_processor(folder: Path, tiles: CaptionBatch) -> None:
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(processor | {"patch_size": 7}))
    line = refusal(folder, tiles)
    assert "do its parts (LlavaForConditionalGeneration, LlavaProcessor) belong together?" in line
    (folder / "processor_config.json").unlink()
    line = refusal(folder, tiles)
    assert "its processor" in line
    assert "get the folder again" in line


def test_a_model_that_cannot_be_asked(tmp_path: Path, tiles: CaptionBatch) -> None:
    words = tokenizer()
    vision = {key: VISION[key] for key in VISION if key != "patch_size"} | {"patch_size": 14}
    model = tf.GitForCausalLM(tf.GitConfig(vocab_size=len(words), vision_config=vision, **LLAMA))
    model.save_pretrained(tmp_path)
    tf.GitProcessor(
        tf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=SIZE), words
    ).save_pretrained(tmp_path)
    assert "has neither a chat template nor an image token, so it cannot be prompted" in refusal(
        tmp_path, tiles
    )


def test_weights_that_do_not_fit(folder: Path, tiles: CaptionBatch) -> None:
    count = 2**40
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    ).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        try:
            file.truncate(8 + len(header) + 4 * count)  # a file with a hole: nothing is written
        except OSError:
            pytest.skip("the file system holds no file of four terabytes")
    line = refusal(folder, tiles)
    assert "its weights (4398.0 GB) do not fit into the memory of cpu" in line
    assert "(2199.0 GB)" in refusal(folder, tiles, dtype=torch.bfloat16)


def test_quantized_weights_need_packages(folder: Path) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        assert "--quantize 4bit needs bitsandbytes" in refusal(folder, quantize="4bit")


def test_a_negative_temperature() -> None:
    with pytest.raises(UsageError, match="must be positive"):
        Sampling(temperature=-1.0)
