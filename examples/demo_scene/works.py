"""Large things people build: factories, tank farms, car parks, a stadium, playing fields."""

from __future__ import annotations

import math

import numpy as np

from demo_scene.canvas import BoolArray, Canvas, Color, FloatArray, Point, patch_of, smooth_noise
from demo_scene.fields import split
from demo_scene.nature import trees
from demo_scene.roads import ASPHALT, cars
from demo_scene.shapes import Frame, circle

_SHEDS = np.array(
    [[0.82, 0.82, 0.80], [0.74, 0.75, 0.76], [0.66, 0.67, 0.68], [0.40, 0.53, 0.68],
     [0.58, 0.60, 0.60], [0.72, 0.66, 0.58],
     [0.56, 0.36, 0.30]],
    np.float32,
)  # fmt: skip


def industry(canvas: Canvas, where: BoolArray, frame: Frame, rng: np.random.Generator) -> None:
    """Fill an area with sheds on yards between access roads, with lorries and stacks of goods."""
    patch = patch_of(where)
    sheds: list[tuple[float, float, float, float]] = []
    goods: list[tuple[float, float, float, float]] = []
    yards: list[list[Point]] = []
    for u, v, length, width in split(frame.extent(*canvas.box(patch.window)), 58, rng):
        corners = np.asarray(frame.rectangle((u + 9, u + length - 9), (v + 9, v + width - 9)))
        if not _inside(canvas, where, corners).all():
            continue
        yards.append(frame.rectangle((u, u + length), (v, v + width)))
        if rng.random() < 0.93:
            depth = width - rng.uniform(18, 30)
            sheds.append(
                (u + length / 2, v + 9 + depth / 2, length - rng.uniform(16, 26), max(depth, 14))
            )
        stacks = rng.uniform((0.08, 7, 6), (0.92, 17, 14), (rng.integers(3, 9), 3))
        goods.extend(
            (u + length * along, v + width - back, size, 2.7) for along, back, size in stacks
        )
    ground = canvas.polygons(yards)
    stain = 1 + 0.07 * smooth_noise(canvas, 35, rng, 4, ground.window)
    canvas.paint(ground, stain[..., None] * np.array([0.54, 0.53, 0.51], np.float32))
    for yard in yards:
        canvas.paint(canvas.line([*yard, yard[0]], 8), ASPHALT)
    loads = np.concatenate([_SHEDS, [[0.30, 0.32, 0.36], [0.50, 0.22, 0.18]]])
    for things, angle, colors, eaves, pitch, ribs in (
        (np.asarray(sheds), 0.0, _SHEDS, (7.0, 12.0), 0.08, 9.0),
        (np.asarray(goods), math.pi / 2, loads, (2.5, 3.5), 0.0, 0.0),
    ):
        count = len(things)
        centers = np.stack(frame.world(things[:, 0], things[:, 1]), axis=1)
        tint = (
            colors[rng.integers(0, len(colors), count)] * rng.normal(1, 0.05, (count, 1))
        ).astype(np.float32)
        heights = rng.uniform(*eaves, count).astype(np.float32)
        angles = (frame.heading(things[:, 0]) + angle * (rng.random(count) < 0.7)).astype(
            np.float32
        )
        canvas.boxes(centers, things[:, 2:], angles, tint, heights, pitch=pitch, ribs_m=ribs)
        if ribs:  # roof lights and vents
            for fraction in (-0.3, -0.1, 0.1, 0.3):
                along = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (
                    things[:, 2:3] * fraction
                )
                size = np.stack([np.full(count, 3.0), things[:, 3] * 0.6], axis=1).astype(
                    np.float32
                )
                canvas.boxes(centers + along, size, angles, tint * 0.78, heights + 1.5)


def tank_farm(canvas: Canvas, where: BoolArray, frame: Frame, rng: np.random.Generator) -> None:
    """Set white tanks in walled basins on gravel, pipes and a road between the rows."""
    patch = patch_of(where)
    stain = 1 + 0.06 * smooth_noise(canvas, 30, rng, 4, patch.window)
    canvas.paint(patch, stain[..., None] * np.array([0.50, 0.49, 0.44], np.float32))
    pitch_m = 78.0
    u0, v0, length, width = frame.extent(*canvas.box(patch.window))
    for v in np.arange(v0, v0 + width, pitch_m):
        for u in np.arange(u0, u0 + length, pitch_m):
            x, y = _at(frame, u, v)
            if not _covered(canvas, where, x, y, 40):
                continue
            half = pitch_m / 2 - 5
            basin = frame.rectangle((u - half, u + half), (v - half, v + half))
            canvas.paint(canvas.polygons([basin]), (0.56, 0.54, 0.48))
            canvas.paint(canvas.line([*basin, basin[0]], 2.2), (0.70, 0.68, 0.63), height_m=1.5)
            if rng.random() < 0.78:
                _tank(canvas, (x, y), rng.uniform(22, 28), rng)
            else:
                for du, dv in ((-17, -17), (17, -17), (-17, 17), (17, 17)):
                    _tank(canvas, _at(frame, u + du, v + dv), 12.5, rng)
        ends = [_at(frame, u0, v + pitch_m / 2), _at(frame, u0 + length, v + pitch_m / 2)]
        lane = canvas.line(ends, 5)
        lane.coverage[...] *= where[lane.window]
        canvas.paint(lane, (0.62, 0.60, 0.56))


def _tank(canvas: Canvas, center: Point, radius_m: float, rng: np.random.Generator) -> None:
    white = rng.uniform(0.80, 0.92)
    canvas.paint(
        canvas.polygons([circle(center, radius_m)]),
        (white * 0.86, white * 0.86, white * 0.86),
        height_m=13,
    )
    canvas.paint(
        canvas.polygons([circle(center, radius_m - 1.6)]),
        (white, white, white * 0.98),
        height_m=13.5,
    )
    canvas.paint(
        canvas.polygons([circle(center, radius_m * 0.16)]), (0.66, 0.67, 0.68), height_m=14
    )
    turn = rng.uniform(0, math.tau)
    edge = (center[0] + radius_m * math.cos(turn), center[1] + radius_m * math.sin(turn))
    canvas.paint(canvas.line([center, edge], 1.3), (0.60, 0.61, 0.62), height_m=14)


def car_park(
    canvas: Canvas, where: BoolArray, frame: Frame, rng: np.random.Generator, *, full: float = 0.78
) -> None:
    """Mark an area with double rows of bays, park cars in most, plant a tree strip now and then."""
    patch = patch_of(where)
    stain = 1 + 0.04 * smooth_noise(canvas, 40, rng, 4, patch.window)
    canvas.paint(patch, stain[..., None] * np.array([0.50, 0.495, 0.49], np.float32))
    u0, v0, length, width = frame.extent(*canvas.box(patch.window))
    bay, module = 3.0, 20.0
    u, v = np.meshgrid(np.arange(u0, u0 + length, bay), np.arange(v0, v0 + width, module))
    # An aisle across every 95 m, a wider one with trees along every fourth row.
    section = (np.mod(u, 95) < 84) & (np.mod(v, 4 * module) < 3 * module)
    band = np.sin(u / 60 + np.floor(v / module) * 1.3) * 0.12
    points = []
    for side in (-2.7, 2.7):
        taken = section & (rng.random(u.shape) < full + band)
        points.append(np.stack(frame.world(u[taken], v[taken] + side), axis=1))
    strips = [
        np.stack(frame.world(np.arange(left, left + 84, 9), np.full(10, top + 3 * module)), axis=1)
        for left in np.arange(95 * math.floor(u0 / 95), u0 + length, 95.0)
        for top in np.arange(4 * module * math.floor(v0 / (4 * module)), v0 + width, 4 * module)
    ]
    centers = np.concatenate(points).astype(np.float32)
    lines = np.stack(frame.world(u[section] + bay / 2, v[section]), axis=1)
    lines = lines[_inside(canvas, where, lines)]
    count = len(lines)
    across = np.full(count, frame.angle + np.pi / 2)
    canvas.boxes(
        lines, np.full((count, 2), (10.6, 0.25)), across, np.full((count, 3), 0.68), np.zeros(count)
    )
    centers = centers[_inside(canvas, where, centers)]
    cars(canvas, centers, np.full(len(centers), frame.angle + np.pi / 2), rng)
    green = np.concatenate(strips).astype(np.float32)
    green = green[_inside(canvas, where, green)]
    canvas.taken[patch.window] &= ~where[patch.window]
    trees(canvas, green, rng, radius_m=2.6)
    canvas.taken[patch.window] |= where[patch.window]


def stadium(canvas: Canvas, center: Point, angle: float, rng: np.random.Generator) -> None:
    """Build an oval stadium.

    A bright roof ring over the stands, a striped pitch, a plaza with trees around.
    """
    frame = Frame(center, angle)

    def oval(length: float, width: float) -> list[Point]:
        corner = 0.42  # a superellipse: straighter along the pitch than an ellipse
        turns = np.linspace(0, math.tau, 160)
        u = length / 2 * np.sign(np.cos(turns)) * np.abs(np.cos(turns)) ** (2 * corner)
        v = width / 2 * np.sign(np.sin(turns)) * np.abs(np.sin(turns)) ** (2 * corner)
        x, y = frame.world(u, v)
        return list(zip(x.tolist(), y.tolist(), strict=True))

    plaza = canvas.polygons([circle(center, 178)])
    canvas.paint(plaza, (0.60, 0.58, 0.55), take=False)
    for length, width, color, height in (
        (262, 216, (0.72, 0.72, 0.72), 14.0), (254, 208, (0.90, 0.90, 0.90), 22.0),
        (206, 158, (0.80, 0.81, 0.83), 20.0),
        (196, 148, (0.36, 0.44, 0.60), 13.0), (176, 128, (0.42, 0.50, 0.64), 7.0),
        (156, 108, (0.55, 0.30, 0.25), 1.0),
    ):  # fmt: skip
        canvas.paint(canvas.polygons([oval(length, width)]), color, height_m=height)
    for spoke in np.linspace(0, math.tau, 48, endpoint=False):
        u, v = 0.5 * math.cos(spoke), 0.5 * math.sin(spoke)
        ends = [_at(frame, 200 * u, 152 * v), _at(frame, 246 * u, 202 * v)]
        canvas.paint(canvas.line(ends, 1.5), (0.68, 0.69, 0.70))
    pitch(canvas, frame, 0.0, 0.0)
    ring = np.asarray(circle(center, 168), np.float32)
    trees(canvas, ring[::3], rng, radius_m=4.0)
    canvas.taken[plaza.window] |= plaza.coverage > 0.5


def pitch(
    canvas: Canvas, frame: Frame, u: float, v: float, *, length: float = 105.0, width: float = 68.0
) -> None:
    """Mark a football pitch, mown in stripes, around a point of a frame."""
    stripes = 14
    for k in range(stripes):
        left = u - length / 2 + k * length / stripes
        area = canvas.polygons(
            [frame.rectangle((left, left + length / stripes), (v - width / 2, v + width / 2))]
        )
        canvas.paint(area, (0.30, 0.47, 0.22) if k % 2 else (0.26, 0.42, 0.20), height_m=0)
    chalk: Color = (0.86, 0.88, 0.84)
    box = frame.rectangle(
        (u - length / 2 + 2, u + length / 2 - 2), (v - width / 2 + 2, v + width / 2 - 2)
    )
    marks = [
        [*box, box[0]],
        [_at(frame, u, v - width / 2 + 2), _at(frame, u, v + width / 2 - 2)],
        circle(_at(frame, u, v), 9.2),
    ]
    for end in (-1, 1):
        goal = u + end * (length / 2 - 2)
        area_box = frame.rectangle(
            (min(goal, goal - end * 16), max(goal, goal - end * 16)), (v - 20, v + 20)
        )
        marks.append([*area_box, area_box[0]])
    for mark in marks:
        canvas.paint(canvas.line(mark, 0.9), chalk)


def running_track(canvas: Canvas, frame: Frame, u: float, v: float) -> None:
    """Draw a red 400 m track around a pitch."""

    def loop(radius: float) -> list[Point]:
        right = [
            _at(frame, u + 42 + radius * math.sin(a), v - radius * math.cos(a))
            for a in np.linspace(0, math.pi, 40)
        ]
        left = [
            _at(frame, u - 42 - radius * math.sin(a), v + radius * math.cos(a))
            for a in np.linspace(0, math.pi, 40)
        ]
        return [*right, *left, right[0]]

    canvas.paint(canvas.polygons([loop(49)]), (0.64, 0.33, 0.26))
    for lane in range(1, 8):
        canvas.paint(canvas.line(loop(49 - 1.25 * lane), 0.25), (0.80, 0.62, 0.56))
    canvas.paint(canvas.polygons([loop(38)]), (0.33, 0.46, 0.24))
    pitch(canvas, frame, u, v, length=92, width=58)


def diamond(
    canvas: Canvas, home: Point, angle: float, rng: np.random.Generator, *, reach_m: float = 105.0
) -> None:
    """Lay out a baseball field that opens from home plate in a direction."""

    def at(distance: float, turn: float) -> Point:
        return home[0] + distance * math.cos(angle + turn), home[1] + distance * math.sin(
            angle + turn
        )

    def fan(radius: float, spread: float = math.pi / 4) -> list[Point]:
        return [at(-6, 0), *[at(radius, turn) for turn in np.linspace(-spread, spread, 40)]]

    clay: Color = (0.66, 0.46, 0.32)
    canvas.paint(canvas.polygons([fan(reach_m + 5, 0.82)]), clay)
    for ring in range(10):
        radius = reach_m - ring * reach_m / 10
        canvas.paint(
            canvas.polygons([fan(radius)]), (0.33, 0.48, 0.24) if ring % 2 else (0.30, 0.44, 0.22)
        )
    canvas.paint(
        canvas.polygons([[at(-9, 0), *[at(44, turn) for turn in np.linspace(-0.86, 0.86, 30)]]]),
        clay,
    )
    square = [at(5, 0), at(22, -math.pi / 4), at(29, 0), at(22, math.pi / 4)]
    canvas.paint(canvas.polygons([square]), (0.34, 0.49, 0.25))
    canvas.paint(canvas.polygons([circle(at(17, 0), 3.0)]), clay)
    canvas.paint(canvas.polygons([circle(home, 9)]), clay)
    for side in (-math.pi / 4, math.pi / 4):
        canvas.paint(canvas.line([home, at(reach_m, side)], 0.8), (0.88, 0.88, 0.85))
        stand, heading = np.asarray([at(27, side * 1.9)]), np.array([angle + side])
        canvas.boxes(
            stand, np.array([[32.0, 8.0]]), heading, np.full((1, 3), 0.70), np.array([4.0])
        )
    edge = np.asarray([at(reach_m + 13, turn) for turn in np.linspace(-0.9, 0.9, 26)], np.float32)
    trees(canvas, edge + rng.normal(0, 2, edge.shape).astype(np.float32), rng, radius_m=4.2)


def _at(frame: Frame, u: float, v: float) -> Point:
    x, y = frame.world(u, v)
    return float(x), float(y)


def _inside(canvas: Canvas, where: BoolArray, points: FloatArray) -> BoolArray:
    rows, cols = (
        np.floor(points[:, 1] / canvas.gsd_m).astype(int),
        np.floor(points[:, 0] / canvas.gsd_m).astype(int),
    )
    on: BoolArray = (rows >= 0) & (rows < canvas.shape[0]) & (cols >= 0) & (cols < canvas.shape[1])
    on[on] = where[rows[on], cols[on]]
    return on


def _covered(canvas: Canvas, where: BoolArray, x: float, y: float, radius_m: float) -> bool:
    """Say whether a disc's center and four quarter points lie within an area."""
    probe = np.array(
        [[x, y], [x - radius_m, y], [x + radius_m, y], [x, y - radius_m], [x, y + radius_m]],
        np.float32,
    )
    return bool(_inside(canvas, where, probe).all())
