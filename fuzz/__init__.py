"""Fuzz targets: what reads bytes that nobody vouches for, and the properties that must hold.

Each target is a module with one function, `fuzz(data)`, that raises where a property does not
hold, and a folder of seeds in `corpus/`. `make fuzz` lets atheris look for such bytes for as long
as wanted; the suite (`tests/fuzz`) runs every seed, and a fixed number of random inputs.
Bytes that broke a property become a seed.
"""

from __future__ import annotations

from pathlib import Path

#: The modules of this package that are targets, each with a folder of seeds.
TARGETS = ("pairs", "modules", "paths", "config")
CORPUS = Path(__file__).parent / "corpus"
