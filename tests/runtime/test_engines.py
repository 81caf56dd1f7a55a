"""Engines by name."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from tests.conftest import WASMER
from wasm_middleware import ConfigError, EngineUnavailableError
from wasm_middleware.config import load_settings
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


def test_wasmer_is_there_or_says_which_python_has_it() -> None:
    if sys.version_info < (3, 11):
        pytest.importorskip("wasmer", reason="wasm-middleware[wasmer] is not installed")
        engine = engines.make_engine("wasmer")
        assert engine.name == "wasmer"
        assert not engine.suspends
        engine.close()
        return

    with pytest.raises(EngineUnavailableError) as caught:
        engines.make_engine("wasmer")

    message = str(caught.value)
    assert f"with CPython {platform.python_version()}" in message
    assert "wheels for CPython up to 3.10; use engine: wasmtime" in message
    assert "pip install 'wasm-middleware[wasmer]'" in message


def test_an_engine_that_is_missing_is_a_mistake_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wasm_middleware.engines.wasmer", None)
    (tmp_path / "plugins.yaml").write_text("plugins: []\nengine: wasmer\n", encoding="utf-8")
    settings = load_settings(tmp_path / "plugins.yaml")

    with pytest.raises(ConfigError, match=r"plugins\.yaml:2:9: engine: wasmer can't be loaded"):
        engines.engine_of(settings)


def test_calls_that_wasmer_does_not_slice_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not WASMER:
        pytest.skip("wasmer needs CPython 3.10 and wasm-middleware[wasmer]")

    engines.make_engine("wasmer", "sliced").close()
    [record] = caplog.records
    assert "not sliced" in record.getMessage()
    assert "wasmer can't leave a guest in its middle" in record.getMessage()
