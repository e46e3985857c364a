"""What cannot end well is refused before it begins, each in one line."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rssc_geo.errors import OutputError, RsscGeoError, UsageError
from rssc_geo.output import OutputOptions, check_output

if TYPE_CHECKING:
    from conftest import Case


def refused(options: OutputOptions, kind: type[RsscGeoError], classes: int | None = None) -> str:
    before = sorted(path.name for path in Path(options.path.parent).glob("*"))
    with pytest.raises(kind) as caught:
        check_output(options, class_count=classes)
    message = str(caught.value)
    assert "\n" not in message
    assert sorted(path.name for path in Path(options.path.parent).glob("*")) == before
    return message


@pytest.mark.parametrize("name", ["map", "map.tif", "map.gpkg.zip", "map.json"])
def test_unknown_suffixes_are_answered_with_the_known_ones(tmp_path: Path, name: str) -> None:
    assert ".gpkg .fgb .geojson .parquet .shp" in refused(
        OutputOptions(tmp_path / name), UsageError
    )


def test_existing_results_need_overwrite(tmp_path: Path) -> None:
    (tmp_path / "map.gpkg").touch()
    (tmp_path / "map_cells.fgb").touch()
    for name in ("map.gpkg", "map.fgb"):
        assert "--overwrite" in refused(OutputOptions(tmp_path / name), OutputError)
        check_output(OutputOptions(tmp_path / name, overwrite=True))
    (tmp_path / "classes.tif").touch()
    message = refused(
        OutputOptions(tmp_path / "new.gpkg", class_raster=tmp_path / "classes.tif"), OutputError
    )
    assert "classes.tif exists" in message


def test_folders_as_targets_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "map.gpkg").mkdir()
    assert "is a folder" in refused(
        OutputOptions(tmp_path / "map.gpkg", overwrite=True), OutputError
    )
    assert "create it first" in refused(
        OutputOptions(tmp_path / "missing" / "map.gpkg"), OutputError
    )
    raster = tmp_path / "missing" / "classes.tif"
    assert "create it first" in refused(
        OutputOptions(tmp_path / "a.gpkg", class_raster=raster), OutputError
    )


def test_a_file_open_elsewhere_is_not_replaced(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    case.write(path)
    with closing(sqlite3.connect(path)) as other:  # as QGIS does: WAL while a layer is loaded
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("SELECT count(*) FROM landuse").fetchone()
        assert (tmp_path / "map.gpkg-wal").exists()
        assert "open in another program" in refused(
            OutputOptions(path, overwrite=True), OutputError
        )
        other.execute("PRAGMA journal_mode = DELETE")
    check_output(OutputOptions(path, overwrite=True))
    (tmp_path / "map.gpkg-journal").touch()
    assert "map.gpkg-journal" in refused(OutputOptions(path, overwrite=True), OutputError)


def test_a_file_opened_during_the_run_is_not_replaced_either(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    case.write(path)
    before = path.read_bytes()
    with case.writer(path, overwrite=True) as writer:
        writer.append(case.batch(0, 9), 9)
        (tmp_path / "map.gpkg-wal").touch()
        with pytest.raises(OutputError, match="open in another program"):
            writer.finish()
        assert path.read_bytes() == before
        (tmp_path / "map.gpkg-wal").unlink()
        assert writer.finish().cells == 9
    assert os.listdir(tmp_path) == ["map.gpkg"]


_AS_NOBODY = """
import os, sys
from pathlib import Path
from rssc_geo.errors import OutputError
from rssc_geo.output.target import OutputOptions, check_output
os.setgid(65534)
os.setuid(65534)  # root may write anywhere
try:
    check_output(OutputOptions(Path(sys.argv[1])))
except OutputError as error:
    print(error)
"""


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("folder modes are a matter of POSIX")
    tmp_path.chmod(0o555)
    if os.geteuid() == 0:
        for folder in tmp_path.parents[:3]:
            folder.chmod(folder.stat().st_mode | 0o011)
        child = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(tmp_path / "map.gpkg")],
            capture_output=True,
            text=True,
            check=True,
        )
        message = child.stdout.strip()
        assert not child.stderr
    else:
        message = refused(OutputOptions(tmp_path / "map.gpkg"), OutputError)
    assert message.startswith(f"cannot write in {tmp_path}")
    assert "\n" not in message


def test_more_fields_or_classes_than_a_format_holds(tmp_path: Path) -> None:
    assert "at most 247" in refused(
        OutputOptions(tmp_path / "map.shp", probabilities=True), UsageError, classes=248
    )
    check_output(OutputOptions(tmp_path / "map.shp", probabilities=True), class_count=247)
    check_output(OutputOptions(tmp_path / "map.shp"), class_count=248)
    raster = OutputOptions(tmp_path / "map.gpkg", class_raster=tmp_path / "map.tif")
    assert "at most 255" in refused(raster, UsageError, classes=256)
    check_output(raster, class_count=255)
    assert ".tif" in refused(
        OutputOptions(tmp_path / "map.gpkg", class_raster=tmp_path / "map.png"), UsageError
    )
