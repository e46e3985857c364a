"""STAC: an invalid item does not affect the others, and all forms of links are resolved."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.batch import collect_jobs, read_status, run_batch, stac
from rssc_geo.batch.stac import StacItem, read_items
from rssc_geo.errors import InputError
from rssc_geo.options import BatchOptions


def item(name: object, href: object = "a.tif", **more: object) -> dict[str, Any]:
    assets = {"visual": {"href": href, "roles": ["visual"]}}
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "assets": assets, **more}


def written(folder: Path, document: object, name: str = "items.json") -> str:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def collection(*features: object) -> dict[str, object]:
    return {"type": "FeatureCollection", "features": list(features)}


BAD = [
    {"type": "Feature"},
    {"type": "Feature", "id": "no assets"},
    item(""),
    item(None),
    item(["a"]),
    item(True),
    item("list", assets=[1]),
    item("number", assets={"visual": 5}),
    item("no href", assets={"visual": {}}),
    item("href", 5),
    item("xml", "<VRTDataset/>"),
    item("own place", links=[{"rel": "self", "href": "http://["}]),
    item("roles", assets={"b": {"href": "b.tif", "roles": {"data": 1}}}),
    "text",
    None,
    [],
    7,
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_a_bad_item_costs_itself_alone(tmp_path: Path, bad: object) -> None:
    file = written(tmp_path, collection(item("first"), bad, item("last")))
    jobs = collect_jobs([file], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert [job.id for job in jobs.jobs] == ["first", "last"]
    assert len(jobs.problems) == 1
    assert "STAC item" in jobs.problems[0].message


@pytest.mark.parametrize(
    "odd", ["9" * 6000, "[" * 5000 + "]" * 5000, '["]", ' + "[" * 5000 + "]" * 5001]
)
def test_values_that_are_too_long_or_too_deep_cost_nothing(tmp_path: Path, odd: str) -> None:
    text = json.dumps(collection(item("first", properties={"a": 5}), item("last")))
    file = written(tmp_path, text.replace('"a": 5', f'"a": {odd}'))
    found = list(read_items(file, None))
    assert [each.id for each in found if not each.error][-1] == "last"
    assert len(found) == 2


def test_names_that_no_file_can_have_cost_themselves_alone(tmp_path: Path) -> None:
    hrefs = ["x" * 5000 + ".tif", "a\0b.tif", "\ud800.tif", "no.tif"]
    file = written(tmp_path, collection(*(item(str(n), href) for n, href in enumerate(hrefs))))
    run_batch([file], f"{tmp_path}/maps/{{id}}.gpkg", BatchOptions(captioner="none", device="cpu"))
    states = read_status(tmp_path / "maps")["scenes"]
    assert len(states) == 4
    assert all("does not exist" in scene["error"] for scene in states)


def test_ids_that_no_map_can_have_as_its_name(tmp_path: Path) -> None:
    file = written(tmp_path, collection(item("x" * 300), item("nul.1"), item("\ud800")))
    jobs = collect_jobs([file], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert [job.output.name for job in jobs.jobs] == ["_nul.1.gpkg", "_.gpkg"]
    assert "has 305 bytes" in jobs.problems[0].message


def test_ids_that_are_numbers(tmp_path: Path) -> None:
    file = written(tmp_path, collection(item(5), item(2.5), item("ok", links=None)))
    jobs = collect_jobs([file], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert [job.output.name for job in jobs.jobs] == ["5.gpkg", "2.5.gpkg", "ok.gpkg"]


def test_a_file_that_breaks_off_keeps_the_items_before(tmp_path: Path) -> None:
    text = json.dumps(collection(item("first"), item("second")))
    file = written(tmp_path, text[:-30])
    jobs = collect_jobs([file], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert [job.id for job in jobs.jobs] == ["first"]
    assert "items.json cannot be read as STAC: no JSON" in jobs.problems[0].message


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{",
        '{"type"',
        '{"type": "Feature"',
        "nonsense",
        "null",
        '{"type": "Topology"}',
        "{}",
        '{"a": ' + "[" * 100_000,
        '{"a": 1 "b": 2}',
        '{"type": "FeatureCollection", "features": [}',
        '{"type": "FeatureCollection", "features": 5 5}',
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_stac_is_one_line(tmp_path: Path, document: str) -> None:
    with pytest.raises(InputError, match="cannot be read as STAC") as caught:
        list(read_items(written(tmp_path, document), None))
    assert len(str(caught.value)) < 500


def test_text_that_is_not_utf8_and_places_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"id": "\xe9"}')
    for place in (f"{tmp_path}/latin.json", f"{tmp_path}/gone.json", "ftp://localhost/a.json"):
        with pytest.raises(InputError, match="cannot be read as STAC"):
            list(read_items(place, None))


def test_an_empty_collection_is_a_problem(tmp_path: Path) -> None:
    jobs = collect_jobs([written(tmp_path, collection())], "maps", BatchOptions())
    assert "no STAC item there" in jobs.problems[0].message


def test_a_broken_child_of_a_catalog_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    written(tmp_path, item("one", "../a.tif"), "deep/one.json")
    written(tmp_path, "{", "deep/broken.json")
    links = [{"rel": "item", "href": f"./{name}.json"} for name in ("broken", "one", "gone")]
    links += [{"rel": "parent", "href": "../catalog.json"}, {"rel": "child", "href": "all.json"}]
    written(tmp_path, {"type": "Catalog", "links": links}, "deep/all.json")
    links = [{"rel": "child", "href": "deep/all.json"}, {"rel": "child"}, 5]
    found = list(read_items(written(tmp_path, {"type": "Catalog", "links": links}), None))
    assert [entry.files for entry in found] == [(), (f"{tmp_path}/a.tif",), ()]
    assert "broken.json cannot be read" in found[0].error
    assert "gone.json cannot be read" in found[2].error


class Endless(BaseHTTPRequestHandler):
    """Catalogs that lead to other catalogs, and documents that do not end."""

    def do_GET(self) -> None:
        kind, *numbers = self.path.strip("/").split("/")
        if kind == "headers":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-A: ")
            self.trickle(b"a")
            return
        self.send_response(200)
        self.end_headers()
        if kind == "slow":
            self.wfile.write(b'{"type": "FeatureCollection", "features": [')
            self.trickle(b" ")
        elif kind == "large":
            self.wfile.write(b'{"type": "FeatureCollection", "features": [{"id": "')
            self.trickle(b"a" * (1 << 20))
        else:
            names = [*range(1 if kind == "chain" else 3)]
            hrefs = ["/" + "/".join([kind, *numbers, str(name)]) + "/" for name in names]
            links = [{"rel": "child", "href": href} for href in hrefs]
            self.wfile.write(json.dumps({"type": "Catalog", "links": links}).encode())

    def trickle(self, piece: bytes) -> None:
        try:
            while True:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:
            """The client has gone."""

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def endless() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_catalogs_without_an_end_are_left(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = read_items(f"{endless}/chain/", None)
    assert "cannot be read as STAC: more than 50 catalogs lead to it" in found.error
    monkeypatch.setattr(stac, "_MOST", 300)
    with pytest.raises(InputError, match="has more than 300 STAC items and documents, or never"):
        list(read_items(f"{endless}/tree/", None))


@pytest.mark.parametrize("kind", ["slow", "headers"])
def test_a_document_that_trickles_is_left(
    endless: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stac, "_DOCUMENT_S", 0.5)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"as STAC: it did not end within 0\.5 s"):
        list(read_items(f"{endless}/{kind}/", None))
    assert time.monotonic() - began < 5


def test_an_item_that_does_not_end_is_left(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac, "_LARGEST_VALUE", 1 << 21)
    with pytest.raises(InputError, match="an item or list of links has more than 2097152 char"):
        list(read_items(f"{endless}/large/", None))


def test_a_collection_without_an_end_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stac, "_MOST", 3)
    file = written(tmp_path, collection(*(item(str(number)) for number in range(4))))
    jobs = collect_jobs([file], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert [job.id for job in jobs.jobs] == ["0", "1", "2"]
    assert "items.json has more than 3 STAC items" in jobs.problems[0].message


@pytest.mark.slow
def test_a_large_static_catalog_is_read(tmp_path: Path) -> None:
    """One list of links to 100,000 documents, of which the first few are there."""
    written(tmp_path, item("one"), "0.json")
    links = [{"rel": "item", "href": f"./{number}.json"} for number in range(100_000)]
    found = list(read_items(written(tmp_path, {"type": "Catalog", "links": links}), None))
    assert len(found) == 100_000
    assert [entry.id for entry in found if not entry.error] == ["one"]


@pytest.mark.parametrize(
    ("href", "own", "place"),
    [
        ("./a.tif", None, "{folder}/a.tif"),
        ("/data/a.tif", None, "/data/a.tif"),
        ("https://x.org/a.tif", None, "https://x.org/a.tif"),
        ("s3://x/a.tif", "https://x.org/items/1.json", "s3://x/a.tif"),
        ("../a.tif", "https://x.org/items/1.json", "https://x.org/a.tif"),
        ("a.tif", "sub/1.json", "{folder}/sub/a.tif"),
        ("/vsizip/x.zip/a.tif", None, "/vsizip/x.zip/a.tif"),
    ],
)
def test_places_are_meant_from_their_item(
    tmp_path: Path, href: str, own: str | None, place: str
) -> None:
    links = [] if own is None else [{"rel": "self", "href": own}]
    found = list(read_items(written(tmp_path, collection(item("a", href, links=links))), None))
    assert found == [StacItem("a", (place.format(folder=tmp_path),))]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    before=st.dictionaries(st.text(max_size=5).filter(lambda key: key != "type"), json_values),
    others=st.lists(json_values, max_size=3),
    indent=st.sampled_from([None, 0, 3]),
)
def test_any_document_is_read_in_any_pieces(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, object],
    others: list[object],
    indent: int | None,
) -> None:
    features = [item("first"), *others, item("last")]
    document = {**before, "type": "FeatureCollection", "features": features, "after": 12}
    path = tmp_path_factory.mktemp("stac") / "items.json"
    path.write_text(json.dumps(document, indent=indent))
    whole = list(read_items(str(path), None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stac, "_CHUNK", 1)
        assert list(read_items(str(path), None)) == whole
    assert [entry.id for entry in (whole[0], whole[-1])] == ["first", "last"]
    assert len(whole) == len(features)


def test_the_date_of_an_item_is_that_of_its_scene(tmp_path: Path) -> None:
    told = (
        ({"datetime": "2024-06-01T10:30:00.125Z"}, "2024-06-01T10:30:00Z"),
        ({"datetime": None, "start_datetime": "2024-06-01T02:00:00+02:00"}, "2024-06-01T00:00:00Z"),
        ({"datetime": "last summer"}, None),
        ({}, None),
    )
    items = [
        {
            "type": "Feature",
            "id": f"item-{number}",
            "properties": properties,
            "assets": {"visual": {"href": "scene.tif"}},
        }
        for number, (properties, _) in enumerate(told)
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    jobs = collect_jobs([str(path)], str(tmp_path / "maps"), BatchOptions())
    assert not jobs.problems
    assert [job.options.date for job in jobs.jobs] == [date for _, date in told]
