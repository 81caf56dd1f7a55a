"""Engines by name."""

from __future__ import annotations

import pytest

from wasm_middleware import EngineUnavailableError
from wasm_middleware.runtime import engines


def test_the_default_engine_is_made_by_its_name() -> None:
    engine = engines.make_engine("wasmtime")

    assert engine.name == "wasmtime"
    engine.close()


def test_an_engine_that_there_is_not_is_named() -> None:
    with pytest.raises(EngineUnavailableError, match="no engine 'v8': use engine: wasmtime"):
        engines.make_engine("v8")


def test_a_wheel_that_is_missing_is_said_with_the_python_that_lacks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "_WHY_NOT", ImportError("no wasmtime here"))

    with pytest.raises(EngineUnavailableError, match=r"with Python 3\.\d+.*no wasmtime here"):
        engines.make_engine("wasmtime")
