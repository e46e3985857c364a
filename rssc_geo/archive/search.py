"""``search``: the cells of an archive that fit words and examples."""

from __future__ import annotations

import itertools
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rssc_geo.archive.store import (
    ArchiveCard,
    ArchiveStore,
    CellFilter,
    check_installed,
    files_of,
    open_store,
    scene_map,
)
from rssc_geo.errors import NothingToClassifyError, RsscGeoError, UsageError
from rssc_geo.files import check_not_input, check_writable
from rssc_geo.inference import Plan, make_plan
from rssc_geo.models import ModelCard, check_embeddings, classes_named, legend_of, load_card
from rssc_geo.options import EmbedOptions, SearchOptions, TilingOptions, check_suffixes, files_read
from rssc_geo.output import (
    EMBEDDING,
    GEOMETRY,
    WGS84,
    OutputTarget,
    date_text,
    hits_target,
    middle_of,
    parse_date,
    provenance_document,
    write_hits,
)
from rssc_geo.pipelines import cells_at, options_of_map
from rssc_geo.pipelines.embed import embed
from rssc_geo.reports import HitPicture, HitSheet, hit_picture, write_hit_sheet

if TYPE_CHECKING:
    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)

_AGAINST = 0.5
"""Weight of the negative examples, less than that of the positive ones, so that these still decide.

In the manner of relevance feedback (Rocchio, "Relevance Feedback in Information Retrieval", 1971).
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """A cell that was found.

    Attributes
    ----------
    rank : from 1
    score : inner product of what was asked, a unit vector, and the cell's embedding
    scene, source : the scene's name in the archive; its raster, or three with ``;`` between them
    date : when it was taken, if that is known
    class_name, group, confidence, caption : of the cell in the map; no group: ""
    row, col : place in the scene's grid
    geometry : the outline in longitude and latitude
    """

    rank: int
    score: float
    scene: str
    source: str
    date: datetime | None
    class_name: str
    group: str
    confidence: float
    caption: str
    row: int
    col: int
    geometry: shapely.Geometry

    @property
    def raster(self) -> str:
        """The name of the raster, without its folder."""
        return ";".join(Path(file).name for file in files_of(self.source))

    def as_row(self) -> dict[str, Any]:
        """The hit as a row of the layer ``hits``."""
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "scene": self.scene,
            "source": self.raster,
            "date": None if self.date is None else date_text(self.date),
            "class": self.class_name,
            "group": self.group or None,
            "confidence": self.confidence,
            "caption": self.caption,
            "row": self.row,
            "col": self.col,
            GEOMETRY: self.geometry,
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    ``hits``, the best first; ``searched``: cells that might have been found; ``paths``: files that
    were written; ``seconds`` of the whole, and ``search_s`` of the database alone.
    """

    hits: tuple[Hit, ...]
    searched: int
    paths: tuple[Path, ...]
    seconds: float
    search_s: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it; ``lon`` and ``lat`` are a cell's middle."""
        hits = []
        for hit in self.hits:
            lon, lat = middle_of(hit.geometry)
            row = {name: value for name, value in hit.as_row().items() if name != GEOMETRY}
            hits.append({**row, "lon": lon, "lat": lat})
        return {
            "outputs": [str(path) for path in self.paths],
            "hits": hits,
            "searched": self.searched,
            "seconds": round(self.seconds, 3),
            "search_s": round(self.search_s, 4),
        }

    def to_geopandas(self) -> gpd.GeoDataFrame:
        """The hits as a table, in longitude and latitude."""
        rows = [hit.as_row() for hit in self.hits]
        return gpd.GeoDataFrame(rows, geometry=GEOMETRY, crs=WGS84)


def search(
    archive: str | Path,
    words: str | None = None,
    output: str | Path | None = None,
    options: SearchOptions | None = None,
    *,
    model: Predictor | None = None,
) -> SearchResult:
    """Find the cells of an archive that fit words, an example, or both.

    Words and the example count the same; negative examples count half, with a minus sign.

    Parameters
    ----------
    archive : folder that :func:`rssc_geo.index` made
    words : a sentence ("airport with many planes")
    output : also write the cells found: .gpkg, .fgb, .geojson, .parquet or .shp
    options : all that the command line has; its defaults
    model : a loaded one, whose options then have no effect

    Raises
    ------
    UsageError
        Where no query is given, for words that the model does not know, another model than the
        archive's, invalid options.
    InputError
        For a folder that is no archive, an example that cannot be read.
    NothingToClassifyError
        Where no cell passes the filters.
    OutputError
        For results that cannot be written.

    Examples
    --------
    >>> from rssc_geo import IndexOptions, SearchOptions, index, search
    >>> _ = index(["scene.tif"], "archive", IndexOptions(tile_size="900m"))
    >>> found = search("archive", "green fields", options=SearchOptions(hits=3))
    >>> [hit.rank for hit in found.hits]
    [1, 2, 3]
    """
    started = time.monotonic()
    options = options or SearchOptions()
    words = (words or "").strip() or None
    _check(words, options)
    check_suffixes(options)
    cells = _filter(options)
    target, sheet = _results(output, options, Path(archive))
    check_installed()
    store = open_store(archive)
    card = model.card if model else load_card(options.model, revision=options.revision)
    _check_model(card, store)
    cells = replace(
        cells,
        only=classes_named(card, options.only_classes, "--only-classes"),
        exclude=classes_named(card, options.exclude_classes, "--exclude-classes"),
    )
    searched = store.count(cells)
    if not searched:
        raise _nothing(store)
    vector = _question(words, options, store.card, card, model=model)
    asked = time.monotonic()
    hits = tuple(_find(store, vector, cells, options))
    search_s = time.monotonic() - asked
    if not hits:
        raise _nothing(store)
    paths: list[Path] = []
    rows, asked_for = [hit.as_row() for hit in hits], _asked_for(words, options)
    if target is not None:
        document = provenance_document(
            {"search": asked_for, "model": card.name, "version": card.version}
        )
        write_hits(target, rows, classes=legend_of(card), provenance=document)
        paths.append(target.path)
    if sheet is not None:
        pictures = _pictures(store.folder, hits, card)
        found = HitSheet(asked_for, rows, pictures, searched, legend_of(card))
        write_hit_sheet(sheet, found, overwrite=options.overwrite)
        paths.append(sheet)
    return SearchResult(hits, searched, tuple(paths), time.monotonic() - started, search_s)


def _results(
    output: str | Path | None, options: SearchOptions, archive: Path
) -> tuple[OutputTarget | None, Path | None]:
    """Where the cells found and the sheet of pictures go, checked; None for what is not asked for.

    Raises ``UsageError`` for an invalid place, ``OutputError`` for one that cannot be written.
    """
    target = sheet = None
    paths = []
    if output is not None:
        target = hits_target(Path(output), overwrite=options.overwrite)
        paths.append(target.path)
    if options.sheet is not None:
        sheet = Path(options.sheet)
        check_writable(sheet, overwrite=options.overwrite)
        paths.append(sheet)
    check_not_input(paths, files_read(options))
    for path in paths:
        if path.resolve().is_relative_to(archive.resolve()):
            raise UsageError(
                f"{path} lies in the archive, which keeps its own files there: choose another"
                " folder"
            )
    return target, sheet


def _check_model(card: ModelCard, store: ArchiveStore) -> None:
    """Refuse, with ``UsageError``, a model whose embeddings are not those of the archive."""
    check_embeddings(card)
    if card.identity != store.card.identity:
        raise UsageError(
            f"{store.folder} was indexed with the model {store.card.model} {store.card.version},"
            f" this is {card.name} {card.version} (weights or config.json differ): name that model"
            " (--model)"
        )


def _nothing(store: ArchiveStore) -> NothingToClassifyError:
    return NothingToClassifyError(
        f"no cell of {store.folder} passes the filters; {len(store)} cells of"
        f" {len(store.scenes())} scenes are there"
    )


def _asked_for(words: str | None, options: SearchOptions) -> dict[str, str]:
    """What was looked for, by label; files by their names."""
    asked = {
        "Words": words,
        "Like": None if options.like is None else Path(options.like).name,
        "Unlike": None if options.unlike is None else Path(options.unlike).name,
    }
    return {label: text for label, text in asked.items() if text is not None}


def _check(words: str | None, options: SearchOptions) -> None:
    """Refuse invalid options with ``UsageError``."""
    if words is None and options.like is None:
        raise UsageError("say what to look for: words, or --like a raster")
    if options.like is None and (options.at or options.like_area is not None):
        raise UsageError("--at and --like-area are places of --like: name its raster")
    if options.at and options.like_area is not None:
        raise UsageError("--at and --like-area both say where: give one of them")
    if options.unlike is None and options.unlike_at:
        raise UsageError("--unlike-at is a place of --unlike: name its raster")


def _filter(options: SearchOptions) -> CellFilter:
    """The filter by dates and bounds; ``UsageError`` for invalid ones."""
    bounds = None
    if options.bounds is not None:
        west, south, east, north = options.bounds
        if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
            shown = ",".join(f"{value:.12g}" for value in options.bounds)
            raise UsageError(
                f"--bounds {shown}: give longitude and latitude of the lower left corner, then"
                " of the upper right one"
            )
        bounds = (west, south, east, north)
    return CellFilter(
        since=None if options.since is None else parse_date(options.since, "--since"),
        until=None if options.until is None else parse_date(options.until, "--until"),
        bounds=bounds,
    )


# The query as a vector.


def _question(
    words: str | None,
    options: SearchOptions,
    archive: ArchiveCard,
    card: ModelCard,
    *,
    model: Predictor | None,
) -> NDArray[np.float32]:
    """The unit vector (D,) of words and examples together."""
    from rssc_geo.inference import load_predictor
    from rssc_geo.models import class_embedding

    looking = EmbedOptions(
        model=options.model,
        revision=options.revision,
        device=options.device,
        captioner="none",
        tile_size=archive.tile_size,
        cell_size=archive.cell_size,
    )
    examples = []  # weight, raster, points in it, their option, and how it is looked at
    if options.like is not None:
        whole = replace(looking, aoi=options.like_area)
        examples.append((1.0, options.like, options.at, "--at", whole))
    if options.unlike is not None:
        examples.append((-_AGAINST, options.unlike, options.unlike_at, "--unlike-at", looking))
    looks = [
        (weight, source, _looks(source, points, card, how, crs=options.at_crs, flag=flag))
        for weight, source, points, flag, how in examples
    ]
    predictor = model or load_predictor(looking)
    vector = np.zeros(archive.width, np.float32)
    if words is not None:
        vector += class_embedding(predictor.model, words, [words]).numpy()
    for weight, source, places in looks:
        vector += weight * _example(source, places, predictor)
    return _unit(vector)


def _looks(
    source: str,
    points: Sequence[tuple[float, float]],
    card: ModelCard,
    looking: EmbedOptions,
    *,
    crs: str | None,
    flag: str,
) -> list[EmbedOptions]:
    """How to embed an example: each cell under a point by itself, or the area or raster at once.

    Raises what ``make_plan`` does for a raster, and ``UsageError`` for a point outside.
    """
    plan = make_plan(source, card, looking)
    if not points:
        return [looking]
    chosen = cells_at(points, plan, crs=crs, flag=flag)
    return [replace(looking, bounds=_middle(plan, cell.row, cell.col)) for cell in chosen]


def _middle(plan: Plan, row: int, col: int) -> tuple[float, float, float, float]:
    """A box in the raster's CRS around the center of a cell, and of no other."""
    edges = (plan.grid.row_edges()[row : row + 2], plan.grid.col_edges()[col : col + 2])
    (y, height), (x, width) = ((float(low + high) / 2, float(high - low)) for low, high in edges)
    corners = [
        plan.scene.transform @ (x + dx * width / 8, y + dy * height / 8)
        for dx in (-1, 1)
        for dy in (-1, 1)
    ]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _example(
    source: str, places: Sequence[EmbedOptions], predictor: Predictor
) -> NDArray[np.float32]:
    """The mean embedding of the cells of the plans, as a unit vector (D,)."""
    vectors = []
    with tempfile.TemporaryDirectory(prefix="rssc-geo-") as folder:
        for number, place in enumerate(places):
            path = Path(folder, f"{number}.parquet")
            embed([source], path, place, model=predictor)
            column = pq.read_table(path, columns=[EMBEDDING])[EMBEDDING].combine_chunks()
            halves = column.flatten().to_numpy(zero_copy_only=False)
            vectors.append(halves.astype(np.float32).reshape(len(column), -1))
    return _unit(np.concatenate(vectors).mean(0))


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    if not length:
        raise UsageError("what is looked for and what is not cancel each other out")
    return np.asarray(vector / length, np.float32)


# The best hits.


def _find(
    store: ArchiveStore, vector: NDArray[np.float32], cells: CellFilter, options: SearchOptions
) -> Iterator[Hit]:
    """The cells that fit best, at most so many of each scene."""
    sources = {name: str(scene["source"]) for name, scene in store.scenes().items()}
    wanted = options.hits
    while True:
        found = store.nearest(vector, wanted, cells)
        # Cells whose scene is not known are about to be replaced, or their process was killed.
        rows = [
            row
            for row in found.to_pylist()
            if row["scene"] in sources and _touches(row[GEOMETRY], cells.bounds)
        ]
        rows.sort(key=lambda row: (-row["score"], row["scene"], row["row"], row["col"]))
        rows = _best_of_each(rows, options.per_scene)[: options.hits]
        if len(rows) == options.hits or len(found) < wanted:
            break
        wanted *= 4
    for rank, row in enumerate(rows, 1):
        yield Hit(
            rank,
            row["score"],
            row["scene"],
            sources[row["scene"]],
            row["date"],
            row["class"],
            row["group"] or "",
            row["confidence"],
            row["caption"] or "",
            row["row"],
            row["col"],
            shapely.from_wkb(row[GEOMETRY]),
        )


def _touches(outline: bytes, bounds: tuple[float, float, float, float] | None) -> bool:
    """Whether a cell itself touches a box, as its own box does.

    The box of a cell at the antimeridian goes round the Earth.
    """
    if bounds is None:
        return True
    return bool(shapely.intersects(shapely.from_wkb(outline), shapely.box(*bounds)))


def _best_of_each(rows: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    """The rows but for those that are behind ``most`` others of their scene."""
    if most is None:
        return rows
    counts: Counter[str] = Counter()
    kept = []
    for row in rows:
        counts[row["scene"]] += 1
        if counts[row["scene"]] <= most:
            kept.append(row)
    return kept


def _pictures(folder: Path, hits: Sequence[Hit], card: ModelCard) -> dict[int, HitPicture]:
    """The cells as pictures, by rank, of those whose raster can be read."""
    pictures = {}
    for scene, same in itertools.groupby(sorted(hits, key=lambda hit: hit.scene), _scene):
        found = list(same)
        files = files_of(found[0].source)
        try:
            # With the options with which it was indexed.
            options = options_of_map(scene_map(folder, scene), card, TilingOptions())
            plan = make_plan(files[0] if len(files) == 1 else files, card, options)
            for hit in found:
                pictures[hit.rank] = hit_picture(plan, hit.row, hit.col)
        except RsscGeoError as error:
            log.warning("no pictures of %s: %s", scene, error)
    return pictures


def _scene(hit: Hit) -> str:
    return hit.scene
