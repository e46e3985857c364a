"""STAC items checked by pystac against the schemas in tests/data, without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac
from pystac.stac_io import DefaultStacIO
from pystac.validation.stac_validator import JsonSchemaSTACValidator

_SCHEMAS = Path(__file__).parent / "data" / "stac-schemas"
_ADDRESS = "https://stac-extensions.github.io/{}/schema.json"


class _Offline(DefaultStacIO):
    def read_text_from_href(self, href: str) -> str:
        assert "://" not in href, f"{href} is not among the schemas in tests/data"
        return super().read_text_from_href(href)


def checked_item(path: Path) -> pystac.Item:
    """The item of a file, valid by STAC's schema and those of the extensions that it names."""
    validator = JsonSchemaSTACValidator()
    for file in _SCHEMAS.glob("*.json"):
        name = "/".join(file.stem.rsplit("-", maxsplit=1))
        schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        validator.schema_cache[_ADDRESS.format(name)] = schema
    # MLM refers to these classes, of which 2.0.0 has changed nothing that matters to a model.
    classes = validator.schema_cache[_ADDRESS.format("classification/v2.0.0")]
    validator.schema_cache[_ADDRESS.format("classification/v1.1.0")] = classes
    item = pystac.Item.from_file(str(path), stac_io=_Offline())
    used = item.validate(validator)
    assert len(used) == 1 + len(item.stac_extensions)
    return item
