"""What lies where in the demo scene, and the order in which it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_scene import coast, fields, nature, roads, town, works
from demo_scene.canvas import BoolArray, Canvas, Point, smooth_noise
from demo_scene.light import photograph
from demo_scene.shapes import Frame, circle, curve, points_of, rough

SIZE_M = 4500.0
"""Side of the square scene in meters."""

# Outlines in meters from the north-west corner, x east and y south; sides along a road or a shore
# are drawn over it. Where outlines overlap the later one is on top.
AREAS: dict[str, list[Point]] = {
    "Farmland": [(2180, -80), (4560, -80), (4560, 1640), (2000, 1640), (1780, 1400), (1700, 1150),
                 (1780, 720), (2030, 300)],
    "Fields": [(-50, 2250), (900, 2300), (2270, 2480), (2150, 2680), (1850, 3000), (1760, 3380),
               (-50, 3380)],
    "Meadow": [(-50, 1100), (1020, 1100), (1010, 1700), (980, 2330), (-50, 2290)],
    "SparseResidential": [(1000, 1100), (1700, 1150), (1900, 1560), (2220, 1920), (2300, 2300),
                          (2200, 2560), (1000, 2440)],
    "Forest": [
        (-50, -80), (2180, -80), (2030, 300), (1780, 720), (1700, 1150), (1690, 1270), (1300, 1310),
        (700, 1200), (-50, 1240),
    ],
    "DenseResidential": [(2060, 1600), (3520, 1600), (3520, 2760), (2250, 2760), (2390, 2450),
                         (2410, 2250), (2320, 1930)],
    "MediumResidential": [(2230, 2760), (3520, 2760), (3510, 4020), (2090, 4040), (1990, 3700),
                          (1870, 3340), (1950, 3040)],
    "Industrial": [(3560, 1620), (4560, 1620), (4560, 2690), (3560, 2690)],
    "StorageTanks": [(3560, 2700), (4560, 2700), (4560, 3185), (3560, 3185)],
    "Parking": [(3565, 3215), (4500, 3215), (4500, 3645), (3565, 3645)],
    "StadiumPark": [(3550, 3650), (4500, 3650), (4500, 3990), (3550, 4000)],
    "Sports": [(-50, 3390), (830, 3390), (830, 4010), (-50, 4010)],
    "Docks": [(850, 3390), (1650, 3390), (1740, 3700), (1790, 4030), (1545, 4030), (1545, 3630),
              (850, 3630)],
}  # fmt: skip
COPSES: list[Point] = [
    (2330, 480),
    (2900, 900),
    (3180, 250),
    (4050, 620),
    (3900, 1180),
    (380, 2560),
    (1280, 3080),
    (1420, 2700),
]
COAST: list[Point] = [
    (-100, 4110), (500, 4150), (1000, 4140), (1700, 4160), (2100, 4190), (2600, 4150), (3300, 4130),
    (4600, 4080),
]  # fmt: skip
RIVER: list[Point] = [
    (2180, -80), (2030, 300), (1780, 720), (1700, 1150), (1900, 1560), (2220, 1920), (2310, 2300),
    (2150, 2680),
    (1850, 3000), (1760, 3330), (1880, 3700), (1960, 4030), (1985, 4200), (1990, 4420),
]  # fmt: skip
FOOTPRINT: list[Point] = [(40, 0), (4500, 55), (4478, 3560), (3900, 4500), (0, 4470)]
"""What the camera saw: the rest of the square is nodata."""


@dataclass(frozen=True, slots=True, eq=False)
class DemoScene:
    """A drawn scene.

    ``pixels`` (height, width, 3) uint8, 0 where invalid; ``mask`` (height, width) bool, True =
    valid; ``areas`` (height, width) uint8, 0 outside and else 1 + the index in ``area_names``.
    """

    pixels: NDArray[np.uint8]
    mask: BoolArray
    areas: NDArray[np.uint8]
    area_names: tuple[str, ...]
    gsd_m: float


def draw_scene(*, gsd_m: float = 1.5, seed: int = 7) -> DemoScene:
    """Draw the scene: the same ground at any pixel size, the same pixels for the same seed."""
    canvas = Canvas(SIZE_M, gsd_m)
    # One stream of random numbers a subject: what one draws never moves what another does.
    streams = {
        name: np.random.default_rng([seed, k])
        for k, name in enumerate((*AREAS, "ground", "coast", "roads", "light"))
    }
    areas = _areas(canvas, streams["ground"])
    where = {name: areas == k for k, name in enumerate(AREAS, 1)}

    nature.grassland(canvas, streams["ground"])
    _open_land(canvas, where, streams)
    line = coast.shore(canvas, COAST, 100, streams["coast"])
    _river(canvas, streams["ground"])
    _roads(canvas, streams["roads"])
    _built_land(canvas, where, streams)
    coast.harbour(canvas, 880, 1500, 3720, 4130, streams["coast"])
    for west, east in ((20, 760), (2250, 4000)):
        coast.sunshades(canvas, line, west, east, streams["coast"])
    _woods(canvas, where, streams)
    _bridges(canvas, streams["roads"])

    mask = canvas.polygons([FOOTPRINT])
    valid = np.zeros(canvas.shape, np.bool_)
    valid[mask.window] = mask.coverage > 0.5
    pixels = photograph(canvas, streams["light"])
    pixels[~valid] = 0
    return DemoScene(pixels, valid, areas, tuple(AREAS), canvas.gsd_m)


def _areas(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Number the areas, their outlines a little uneven."""
    areas = np.zeros(canvas.shape, np.uint8)
    natural = {"Forest", "Meadow", "SparseResidential", "Fields"}
    for number, (name, outline) in enumerate(AREAS.items(), 1):
        patch = canvas.polygons([rough(outline, 14, rng) if name in natural else outline])
        areas[patch.window][patch.coverage > 0.5] = number
    return areas


def _open_land(
    canvas: Canvas, where: dict[str, BoolArray], streams: dict[str, np.random.Generator]
) -> None:
    fields.farmland(
        canvas, where["Farmland"], Frame((3000, 700), 0.24), streams["Farmland"], parcel_m=78
    )
    fields.farmland(
        canvas, where["Fields"], Frame((800, 2900), -0.16), streams["Fields"], parcel_m=72
    )
    nature.meadow(canvas, where["Meadow"], streams["Meadow"])
    nature.pond(
        canvas,
        rough(circle((640, 2830), 105, squash=0.75), 16, streams["Fields"]),
        streams["Fields"],
    )


def _river(canvas: Canvas, rng: np.random.Generator) -> None:
    line = curve(RIVER)
    width = np.interp(
        np.arange(len(line)), [0, len(line) * 0.6, len(line)], [100, 115, 185]
    ).astype(np.float32)
    nature.river(canvas, line, width, 4185, rng)
    for side in (-1, 1):
        for distance in (26, 33, 41, 50):
            bank = np.concatenate(
                [nature.along(line, side * (float(width.mean()) / 2 + distance), 8, 4, rng)]
            )
            bank = bank[bank[:, 1] < 3900]
            nature.trees(canvas, bank[rng.random(len(bank)) < 0.75], rng, radius_m=4.2, tall=2.2)


_MAIN: list[Point] = [
    (3540, -50),
    (3535, 700),
    (3540, 1425),
    (3530, 2200),
    (3530, 3200),
    (3520, 4010),
]
_MOTORWAY: list[Point] = [
    (-50, 1330),
    (900, 1395),
    (1790, 1385),
    (2600, 1420),
    (3200, 1425),
    (3900, 1425),
    (4560, 1435),
]
_CROSSING: Point = (3540, 1425)
_TOWN_ROAD: list[Point] = [(980, 2500), (1600, 2440), (2300, 2395), (2700, 2330), (3530, 2310)]
_COAST_ROAD: list[Point] = [
    (-50, 3365),
    (900, 3370),
    (1760, 3340),
    (2100, 3270),
    (2800, 3205),
    (3530, 3200),
    (4560, 3200),
]


def _roads(canvas: Canvas, rng: np.random.Generator) -> None:
    x, y = _CROSSING
    apron = [
        (x - 300, y),
        (x - 40, y - 300),
        (x + 40, y - 300),
        (x + 300, y),
        (x + 40, y + 290),
        (x - 40, y + 290),
    ]
    patch = canvas.polygons([rough(apron, 10, rng)])
    mottle = 1 + 0.05 * smooth_noise(canvas, 60, rng, 3, patch.window)
    canvas.paint(patch, mottle[..., None] * np.array([0.385, 0.45, 0.28], np.float32), height_m=0)
    for knots, width, gap in ((_TOWN_ROAD, 11, 60), (_COAST_ROAD, 12, 45), (_MAIN, 15, 40)):
        line = curve(knots)
        roads.road(canvas, line, width)
        roads.traffic(canvas, line, [-width / 5, width / 5], gap, rng)
    line = curve(_MOTORWAY)
    roads.motorway(canvas, line)
    roads.traffic(canvas, line, [-10.0, -5.5, 5.5, 10.0], 55, rng)
    roads.interchange(canvas, _CROSSING, 0.0, rng)
    promenade = (
        curve([(-50, 4020), (700, 4030)]),
        curve([(2150, 4060), (2700, 4035), (3500, 4020), (4250, 3985)]),
    )
    for line in promenade:
        roads.road(canvas, line, 9)


def _built_land(
    canvas: Canvas, where: dict[str, BoolArray], streams: dict[str, np.random.Generator]
) -> None:
    for name, frame, kind in (
        ("DenseResidential", Frame((2900, 2200), 0.10, 10, 1100), town.DENSE),
        ("MediumResidential", Frame((2800, 3400), -0.12, 26, 760), town.MEDIUM),
    ):
        town.quarter(canvas, where[name] & ~canvas.taken, frame, kind, streams[name])
    town.homesteads(canvas, where["SparseResidential"], 195, streams["SparseResidential"])
    works.industry(
        canvas,
        where["Industrial"] & ~canvas.taken,
        Frame((4000, 2100), 0.06),
        streams["Industrial"],
    )
    works.industry(
        canvas, where["Docks"] & ~canvas.taken, Frame((1300, 3500), 0.0), streams["Docks"]
    )
    works.tank_farm(
        canvas, where["StorageTanks"], Frame((4050, 2930), 0.03), streams["StorageTanks"]
    )
    works.car_park(canvas, where["Parking"], Frame((4000, 3440), 0.02), streams["Parking"])
    lot = np.zeros(canvas.shape, np.bool_)
    patch = canvas.polygons([[(4000, 3690), (4230, 3690), (4230, 3900), (4000, 3900)]])
    lot[patch.window] = patch.coverage > 0.5
    works.car_park(canvas, lot, Frame((4100, 3800), 0.02), streams["StadiumPark"], full=0.4)
    works.stadium(canvas, (3800, 3840), 0.30, streams["Parking"])
    rng = streams["Sports"]
    canvas.paint(canvas.polygons([circle((222, 3690), 40)]), (0.60, 0.56, 0.48))
    for turn in np.arange(4) * math.pi / 2 + math.pi / 4:
        works.diamond(
            canvas, (222 + 34 * math.cos(turn), 3690 + 34 * math.sin(turn)), turn, rng, reach_m=108
        )
    works.running_track(canvas, Frame((590, 3790), math.pi / 2 + 0.04), 0, 0)
    for x, y in ((480, 3560), (600, 3565), (720, 3570), (735, 3790)):
        works.pitch(canvas, Frame((x, y), math.pi / 2 + 0.04), 0, 0)


def _copses(canvas: Canvas, rng: np.random.Generator) -> None:
    """Plant small woods in the fields."""
    wood = np.zeros(canvas.shape, np.bool_)
    for x, y in COPSES:
        patch = canvas.polygons(
            [rough(circle((x, y), rng.uniform(45, 80), squash=rng.uniform(0.5, 1.0)), 18, rng)]
        )
        wood[patch.window] |= patch.coverage > 0.5
    nature.forest(canvas, wood, rng)


def _woods(
    canvas: Canvas, where: dict[str, BoolArray], streams: dict[str, np.random.Generator]
) -> None:
    rng = streams["Forest"]
    canvas.paint(
        canvas.polygons([rough(circle((1130, 500), 85, squash=0.7), 22, rng)]), (0.40, 0.48, 0.29)
    )
    track = [(-50, 760), (380, 640), (760, 700), (1080, 520), (1400, 300), (1500, -50)]
    canvas.paint(canvas.line(points_of(curve(track)), 11), (0.64, 0.58, 0.47))
    nature.forest(canvas, where["Forest"], rng)
    _copses(canvas, rng)
    rng = streams["Meadow"]
    nature.trees(canvas, nature.scattered(canvas, where["Meadow"], 0.5, rng), rng, radius_m=4.5)
    clumps = smooth_noise(canvas, 110, streams["ground"], 2)
    for name, level, per_hectare in (
        ("SparseResidential", 0.1, 110),
        ("StadiumPark", 0.3, 90),
        ("Industrial", 0.5, 12),
    ):
        rng = streams[name]
        nature.trees(
            canvas,
            nature.scattered(canvas, where[name] & (clumps > level), per_hectare, rng),
            rng,
            radius_m=4.2,
        )
    rng = streams["Sports"]
    for belt in (
        [(20, 3420), (800, 3425)],
        [(20, 3960), (420, 3990), (830, 3975)],
        [(400, 3440), (415, 3700), (400, 3960)],
    ):
        for distance in (-7.0, 0.0, 7.0):
            nature.trees(canvas, nature.along(curve(belt), distance, 9, 3, rng), rng, radius_m=4.2)
    rng = streams["roads"]
    for knots, distance in (
        (_MAIN, 13.0),
        (_MAIN, -13.0),
        (_COAST_ROAD, 11.0),
        (_TOWN_ROAD, -10.0),
    ):
        nature.trees(canvas, nature.along(curve(knots), distance, 14, 1.5, rng), rng, radius_m=3.4)


def _bridges(canvas: Canvas, rng: np.random.Generator) -> None:
    for start, stop, width in (
        ((1660, 1384), (1950, 1396), 27.0),
        ((2180, 2406), (2440, 2372), 14.0),
        ((1600, 3350), (1960, 3302), 15.0),
    ):
        roads.bridge(canvas, start, stop, width)
        deck = curve([start, stop], 20)
        roads.traffic(canvas, deck, [-width / 4, width / 4], 30, rng, base_m=9.0)
