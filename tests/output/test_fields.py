"""Field names for any class names: safe, unique, deterministic."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.models import SceneClass
from rssc_geo.output import CELL_FIELDS, probability_fields, short_names

signs = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
names = st.lists(st.text(signs, min_size=1, max_size=80), min_size=1, max_size=40, unique=True)


@given(names)
def test_probability_fields_are_plain_and_unique_and_keep_the_name_in_the_alias(
    labels: list[str],
) -> None:
    classes = [SceneClass(index, label, "#000000") for index, label in enumerate(labels)]
    fields = probability_fields(classes)
    assert all(re.fullmatch(r"p_[a-z0-9_]{1,58}", field.name) for field in fields)
    assert len({field.name for field in fields}) == len(fields)
    assert [field.alias for field in fields] == [f"P({label})" for label in labels]
    short = short_names([*CELL_FIELDS, *fields])
    assert all(0 < len(name) <= 10 for name in short)
    assert len({name.lower() for name in short}) == len(short)


def test_names_that_look_alike_are_numbered() -> None:
    labels = ("Dense residential", "dense-residential", "Dense Résidential", "農地", "!")
    fields = probability_fields(
        [SceneClass(index, label, "#000000") for index, label in enumerate(labels)]
    )
    assert [field.name for field in fields] == [
        "p_dense_residential",
        "p_dense_residential_2",
        "p_dense_residential_3",
        "p_3",
        "p_4",
    ]
    assert short_names(fields) == ["p_dense_re", "p_dense__2", "p_dense__3", "p_3", "p_4"]
