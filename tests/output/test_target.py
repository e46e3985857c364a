"""Outputs that would fail at the end are refused at the start, each in one line."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import shapely
from pyproj import CRS

from rssc_geo.errors import OutputError, RsscGeoError, UsageError
from rssc_geo.options import OutputOptions
from rssc_geo.output import OutputTarget, make_target
from tests.users import without_privileges

if TYPE_CHECKING:
    from conftest import Case


def refused(
    path: Path,
    kind: type[RsscGeoError],
    *,
    overwrite: bool = False,
    inputs: tuple[Path, ...] = (),
    **options: Any,
) -> str:
    before = sorted(file.name for file in path.parent.glob("*"))
    with pytest.raises(kind) as caught:
        make_target(path, OutputOptions(**options), overwrite=overwrite, inputs=inputs)
    message = str(caught.value)
    assert "\n" not in message
    assert sorted(file.name for file in path.parent.glob("*")) == before
    return message


def test_a_target_says_what_is_written_and_where(tmp_path: Path) -> None:
    area = shapely.box(0, 0, 1, 1)
    options = OutputOptions(
        crs="EPSG:3035",
        aoi_clip=True,
        min_area=5.0,
        probabilities=True,
        class_raster=str(tmp_path / "classes.tif"),
    )
    target = make_target(str(tmp_path / "map.fgb"), options, overwrite=True, area=area)
    assert target == OutputTarget(
        tmp_path / "map.fgb",
        CRS(3035),
        5.0,
        True,
        overwrite=True,
        clip=area,
        class_raster=tmp_path / "classes.tif",
    )
    assert target.part_path == tmp_path / "map.fgb.part"
    assert target.layer_paths == (tmp_path / "map_cells.fgb", tmp_path / "map.fgb")
    assert target.results == (tmp_path / "classes.tif", *target.layer_paths)
    plain = make_target(tmp_path / "map.gpkg", OutputOptions(), overwrite=False, area=area)
    assert plain == OutputTarget(tmp_path / "map.gpkg")
    assert plain.results == (tmp_path / "map.gpkg",)


def test_options_that_cannot_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    assert "--crs 'nowhere' is not a CRS" in refused(path, UsageError, crs="nowhere")
    assert "needs --aoi or --bounds" in refused(path, UsageError, aoi_clip=True)
    assert "name it .tif" in refused(path, UsageError, class_raster=str(tmp_path / "map.png"))


def test_an_input_is_not_replaced_whatever_is_asked_for(tmp_path: Path) -> None:
    scene = tmp_path / "scene.tif"
    area = tmp_path / "area.gpkg"
    for path in (scene, area):
        path.touch()
        for result, options in ((area, {}), (tmp_path / "map.gpkg", {"class_raster": str(scene)})):
            message = refused(result, UsageError, overwrite=True, inputs=(scene, area), **options)
            assert "is the input itself" in message


@pytest.mark.parametrize("name", ["map", "map.tif", "map.gpkg.zip", "map.json"])
def test_unknown_suffixes_are_answered_with_the_known_ones(tmp_path: Path, name: str) -> None:
    assert ".gpkg .fgb .geojson .parquet .shp" in refused(tmp_path / name, UsageError)


@pytest.mark.parametrize("name", ["a;b.gpkg", "a!b.fgb", "a%20b.gpkg"])
def test_names_that_a_writer_or_qgis_takes_for_something_else(tmp_path: Path, name: str) -> None:
    assert "choose another name" in refused(tmp_path / name, UsageError)


def test_existing_results_need_overwrite(tmp_path: Path) -> None:
    (tmp_path / "map.gpkg").touch()
    (tmp_path / "map_cells.fgb").touch()
    for name in ("map.gpkg", "map.fgb"):
        assert "--overwrite" in refused(tmp_path / name, OutputError)
        make_target(tmp_path / name, OutputOptions(), overwrite=True)
    raster = tmp_path / "classes.tif"
    raster.touch()
    message = refused(tmp_path / "new.gpkg", OutputError, class_raster=str(raster))
    assert "classes.tif exists" in message


def test_folders_as_targets_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "map.gpkg").mkdir()
    assert "is a folder" in refused(tmp_path / "map.gpkg", OutputError, overwrite=True)
    assert "create it first" in refused(tmp_path / "missing" / "map.gpkg", OutputError)
    raster = str(tmp_path / "missing" / "classes.tif")
    assert "create it first" in refused(tmp_path / "a.gpkg", OutputError, class_raster=raster)


def test_a_file_open_elsewhere_is_not_replaced(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    case.write(path)
    with closing(sqlite3.connect(path)) as other:  # as QGIS does: WAL while a layer is loaded
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("SELECT count(*) FROM landuse").fetchone()
        assert (tmp_path / "map.gpkg-wal").exists()
        assert "open in another program" in refused(path, OutputError, overwrite=True)
        other.execute("PRAGMA journal_mode = DELETE")
    make_target(path, OutputOptions(), overwrite=True)
    (tmp_path / "map.gpkg-journal").touch()
    assert "map.gpkg-journal" in refused(path, OutputError, overwrite=True)


def test_a_file_opened_during_the_run_is_not_replaced_either(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    case.write(path)
    before = path.read_bytes()
    with case.writer(path, overwrite=True) as writer:
        writer.append(case.batch(0, 9), 9)
        (tmp_path / "map.gpkg-wal").touch()
        with pytest.raises(OutputError, match="open in another program"):
            writer.make()
        assert path.read_bytes() == before
        (tmp_path / "map.gpkg-wal").unlink()
        assert writer.make().cells == 9
        writer.discard()
    assert os.listdir(tmp_path) == ["map.gpkg"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("folder modes are a matter of POSIX")
    tmp_path.chmod(0o555)
    with without_privileges():
        message = refused(tmp_path / "map.gpkg", OutputError)
    assert message.startswith(f"cannot write in {tmp_path}")


def test_more_fields_or_classes_than_a_format_holds(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    many = OutputTarget(tmp_path / "map.shp", probabilities=True)
    with pytest.raises(UsageError, match="at most 245"):
        many.check_classes(246)
    many.check_classes(245)
    OutputTarget(tmp_path / "map.shp").check_classes(248)
    raster = OutputTarget(tmp_path / "map.gpkg", class_raster=tmp_path / "map.tif")
    with pytest.raises(UsageError, match="at most 255"):
        raster.check_classes(256)
    raster.check_classes(255)
    with pytest.raises(UsageError, match="at most 245"):  # the writer asks
        make_case(names=tuple(map(str, range(248)))).writer(many.path, probabilities=True)
    assert os.listdir(tmp_path) == []
