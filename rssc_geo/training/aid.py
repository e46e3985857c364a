"""The 30 classes of AID (Xia et al., 2017) with a map colour and a description each."""

from __future__ import annotations

from rssc_geo.models.card import SceneClass

_AID = (
    ("Airport", "#7a5195", "Runways, aprons, terminals and parked aircraft"),
    ("BareLand", "#c8ad7f", "Bare soil or rock with hardly any vegetation"),
    ("BaseballField", "#58b368", "Baseball diamonds"),
    ("Beach", "#ffe08a", "Sand between water and land"),
    ("Bridge", "#5b6c8f", "A bridge over water"),
    ("Center", "#e377c2", "A large singular public building and its grounds"),
    ("Church", "#b07aa1", "A church or cathedral among its surroundings"),
    ("Commercial", "#e15759", "Dense blocks of shops and offices"),
    ("DenseResidential", "#b2182b", "Closely packed houses"),
    ("Desert", "#edc58f", "Sand dunes and arid plains"),
    ("Farmland", "#d9e26b", "Fields and cropland"),
    ("Forest", "#1b7837", "Closed tree cover"),
    ("Industrial", "#8c6bb1", "Factories, warehouses and yards"),
    ("Meadow", "#a6d96a", "Grassland"),
    ("MediumResidential", "#e8743b", "Houses with gardens, in rows"),
    ("Mountain", "#8c7853", "Rugged relief"),
    ("Park", "#66c2a4", "Lawns, trees, paths and ponds in a town"),
    ("Parking", "#969696", "Parking lots full of vehicles"),
    ("Playground", "#2ca25f", "Running tracks and sports pitches"),
    ("Pond", "#74add1", "A small body of standing water"),
    ("Port", "#225ea8", "Docks, piers and moored boats"),
    ("RailwayStation", "#6a51a3", "Railway tracks, platforms and station halls"),
    ("Resort", "#f781bf", "Holiday buildings with pools and greenery"),
    ("River", "#3182bd", "A watercourse and its banks"),
    ("School", "#f4a582", "School or campus buildings with sports grounds"),
    ("SparseResidential", "#fdbf6f", "Scattered houses among vegetation"),
    ("Square", "#bcbddc", "An open paved square in a town"),
    ("Stadium", "#00897b", "A stadium with its stands"),
    ("StorageTanks", "#737373", "Round storage tanks"),
    ("Viaduct", "#4d4d4d", "Elevated roads and interchanges"),
)

AID_CLASSES = tuple(SceneClass(index, name, colour, text) for index, (name, colour, text) in enumerate(_AID))
