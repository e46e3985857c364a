"""Texts of others, and tables that spreadsheets open."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from rssc_geo.texts import parse_json, write_csv


def test_a_table_holds_no_formula(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    texts = ["=1+1", "@a", "-a", "-1.5", "a=1", "\t=1", 5, None]
    write_csv(path, ["=head", "n"], [{"=head": text, "left out": 1} for text in texts])
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["'=head", "n"]
    shown = ["'=1+1", "'@a", "'-a", "-1.5", "a=1", "'\t=1", "5", ""]
    assert rows == [[text, ""] for text in shown]


@pytest.mark.parametrize("text", ["[" * 100_000, '"\\ud800"', "{", b"\xff", "9" * 6000])
def test_json_that_is_a_trap(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="."):
        parse_json(text)
