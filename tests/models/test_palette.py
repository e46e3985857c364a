"""Colors of groups and classes, also as color-blind people see them."""

import itertools

import numpy as np
import pytest

from rssc_geo.models import GROUPS, UNKNOWN_CLASS, SceneClass, by_group, scene_classes

skimage_color = pytest.importorskip("skimage.color", reason="scikit-image is not installed")

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE TVCG 2009, severity 1.0, of linear RGB.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
CLASSES = [
    *("River", "Lake", "Pond", "OpenWater"),
    *("Island", "Wetland", "Forest", "Meadow"),
    *("Shrubland", "BareLand", "Desert", "Mountain"),
    *("Beach", "Farmland", "PermanentCrop", "DenseResidential"),
    *("MediumResidential", "SparseResidential", "MobileHomePark", "Commercial"),
    *("Church", "Square", "Resort", "Industrial"),
    *("StorageTanks", "Airport", "Bridge", "Viaduct"),
    *("Freeway", "Intersection", "Parking", "Port"),
    *("RailwayStation", "BaseballField", "Park", "Playground"),
    *("Stadium", "GolfCourse", "TennisCourt"),
]


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255


def _seen(color: str, vision: str) -> np.ndarray:
    """The color in CIE L*a*b*, as people see it."""
    rgb = _rgb(color)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (VISIONS[vision] @ linear).clip(0, 1)
    seen = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(skimage_color.rgb2lab(seen))


@pytest.mark.parametrize("vision", VISIONS)
def test_groups_are_told_apart(vision: str) -> None:
    assert len(GROUPS) == 12
    assert UNKNOWN_CLASS in GROUPS
    for one, other in itertools.combinations(GROUPS, 2):
        distance = skimage_color.deltaE_ciede2000(
            _seen(GROUPS[one], vision), _seen(GROUPS[other], vision)
        )
        assert distance >= 10, (one, other)


def test_classes_of_a_group_differ_by_lightness() -> None:
    classes = scene_classes(CLASSES)
    assert {c.group for c in classes} == GROUPS.keys() - {UNKNOWN_CLASS}
    assert len({c.color for c in classes}) == len(classes)
    for group in GROUPS:
        lightness = sorted(_seen(c.color, "usual")[0] for c in classes if c.group == group)
        assert all(np.diff(lightness) > 4), group
    grays = [c.name for c in classes if np.ptp(_rgb(c.color)) < 0.06]
    assert len(grays) < 4


def test_titles_are_for_people() -> None:
    named = {c.name: c for c in scene_classes(["DenseResidential", "solar park", "beach"])}
    assert named["DenseResidential"].title == "Dense residential"
    assert named["DenseResidential"].group == "Residential"
    assert named["solar park"].title == "solar park"
    assert named["solar park"].group == ""
    assert named["beach"].title == "Beach"


def test_classes_come_group_by_group_in_the_order_of_the_legend() -> None:
    named = scene_classes(["solar park", "Pond", "Forest", "vineyard", "River", "Airport"])
    own = SceneClass(6, "reef", "#00ffff", group="Sea floor")
    assert {group: [c.name for c in found] for group, found in by_group([own, *named]).items()} == {
        "Water": ["River", "Pond"],
        "Forest": ["Forest"],
        "Transport": ["Airport"],
        "Sea floor": ["reef"],
        "": ["solar park", "vineyard"],
    }
    assert [*by_group([own, *named])] == ["Water", "Forest", "Transport", "Sea floor", ""]
    assert by_group([]) == {}
    assert own.title == "reef"
