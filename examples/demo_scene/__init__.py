"""A landscape drawn by code: the parts of ``examples/make_demo_scene.py``.

``plan`` says what lies where (in meters from the north-west corner: x east, y south) and draws it
with the brushes of ``nature``, ``fields``, ``roads``, ``town``, ``works`` and ``coast`` on a
``canvas`` of albedo and height; ``light`` turns those into a photograph: sun, cast shadows, haze,
lens and sensor.
"""
