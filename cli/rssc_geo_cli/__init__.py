"""The ``rssc-geo`` command line: one click module a command, thin over ``rssc_geo``."""
