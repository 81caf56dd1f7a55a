"""Every fuzz target over its seeds, and over a fixed number of inputs that are always the same.

`make fuzz` looks further: guided, and for as long as wanted. What it finds becomes a seed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from fuzz import CORPUS, TARGETS
from fuzz.blind import inputs
from wasm_middleware.config.source import Place
from wasm_middleware.engines import module_info

SEEDS = [(name, path) for name in TARGETS for path in sorted((CORPUS / name).iterdir())]
#: So many take a second or two.
EXAMPLES = {"pairs": 1_000, "modules": 500, "paths": 1_000, "config": 300}


def target(name: str) -> Callable[[bytes], None]:
    fuzz: Callable[[bytes], None] = importlib.import_module(f"fuzz.{name}").fuzz
    return fuzz


def test_each_target_has_seeds() -> None:
    assert {name for name, _ in SEEDS} == set(TARGETS)
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=lambda value: getattr(value, "name", value))
def test_a_seed_keeps_the_properties(name: str, seed: Path) -> None:
    target(name)(seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_random_bytes_keep_the_properties(name: str) -> None:
    fuzz = target(name)

    @settings(max_examples=EXAMPLES[name], derandomize=True, database=None)
    @given(inputs(name))
    def run(data: bytes) -> None:
        fuzz(data)

    run()


# A target that can't fail finds nothing: each is held against code that is wrong.


def test_the_target_for_pairs_sees_two_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.pairs.decode", lambda data: [(b"a", b"1")])

    with pytest.raises(AssertionError):
        target("pairs")(b"\1\0\0\0")


def test_the_target_for_modules_sees_an_import_that_was_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(module_info._SECTIONS, 2)

    with pytest.raises(AssertionError):
        target("modules")((CORPUS / "modules" / "plugin.wasm").read_bytes())


def test_the_target_for_paths_sees_a_spelling_that_slips_past(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wasm_middleware.runtime.paths.canonical_path", str)

    with pytest.raises(AssertionError):
        target("paths")(b"/x/../private\n\n/private")


@pytest.mark.parametrize("wrong", [Place(2, 1), Place(1, 99), Place()])
def test_the_target_for_config_sees_a_place_that_the_file_has_not(
    wrong: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasm_middleware.config.document.place_of", lambda mark: wrong)

    with pytest.raises(AssertionError):
        target("config")(b"plugins: *a")
