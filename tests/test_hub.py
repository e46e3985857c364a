"""Where models come from: a folder first, then an embedded name, then the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest

from rssc_geo.errors import BundleError
from rssc_geo.hub import fetch, fetch_file, is_hub_id


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_hub_ids() -> None:
    assert is_hub_id("owner/name-1.0_b")
    for name in ("name", "a/b/c", "./name", "../name", "owner/", "/name", "owner/na me"):
        assert not is_hub_id(name)


def test_folders_come_before_embedded_names_and_those_before_hub_ids(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    assert fetch("small", ["*"], what="model", embedded={"small": inside}) == inside
    assert fetch("a/small", ["*"], what="model", embedded={"a/small": inside}) == inside
    Path("small").mkdir()
    assert fetch("small", ["*"], what="model", embedded={"small": inside}) == Path("small")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "../elsewhere"])
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(BundleError) as caught:
        fetch(name, ["*"], what="model 'x'", embedded={"one": Path(), "two": Path()})
    assert str(caught.value) == (
        "model 'x' is no folder, hub id (owner/name) or embedded model; embedded: one, two"
    )
    with pytest.raises(BundleError, match=r"model 'x' is no folder, hub id \(owner/name\)$"):
        fetch(name, ["*"], what="model 'x'")


def test_a_file_is_no_folder() -> None:
    Path("weights").write_bytes(b"")
    with pytest.raises(BundleError, match="is a file, not a folder"):
        fetch("weights", ["*"], what="model 'weights'")


def test_without_a_network_the_line_says_what_to_fetch() -> None:
    with pytest.raises(BundleError) as caught:
        fetch("nobody/nothing", ["*"], what="model 'x'", revision="v2")
    assert str(caught.value).startswith("model 'x': no such folder, and not available from the hub")
    assert "'hf download nobody/nothing --revision v2'" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="'hf download nobody/nothing'") as caught:
        fetch_file("nobody/nothing", "config.json", what="encoder 'x'")
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_the_wanted_files_of_the_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **settings: Any) -> str:
        asked.update(settings, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert fetch("owner/name", ["config.json"], what="model", revision="v1") == tmp_path
    assert asked == {
        "name": "owner/name",
        "revision": "v1",
        "allow_patterns": ["config.json"],
        "ignore_patterns": ["*/*"],
    }


def test_single_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert fetch_file(str(tmp_path), "config.json", what="encoder") == tmp_path / "config.json"
    with pytest.raises(BundleError, match=r"^encoder: the folder holds no other.json$"):
        fetch_file(str(tmp_path), "other.json", what="encoder")
    with pytest.raises(BundleError, match=r"is no folder or hub id$"):
        fetch_file("no such model", "config.json", what="encoder")
    with pytest.raises(BundleError, match=r"is no folder, hub id \(owner/name\) or timm model$"):
        fetch_file("no such model", "config.json", what="encoder", other="timm model")
