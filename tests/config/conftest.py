"""A folder with modules in it, and a short way to ask what is wrong with a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wasm_middleware.config import Settings, load_settings
from wasm_middleware.errors import ConfigError

MODULE = b"\0asm\x01\0\0\0"

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the modules a.wasm and b.wasm."""
    monkeypatch.chdir(tmp_path)

    for name in ("a.wasm", "b.wasm"):
        (tmp_path / name).write_bytes(MODULE)

    return tmp_path


@pytest.fixture
def load(folder: Path) -> Load:
    """Load settings from the text of a file."""

    def load(text: str, **options: object) -> Settings:
        (folder / "plugins.yaml").write_text(text, encoding="utf-8")
        return load_settings("plugins.yaml", **options)  # type: ignore[arg-type]

    return load


@pytest.fixture
def mistakes(load: Load) -> Mistakes:
    """List the mistakes in the text of a file."""

    def mistakes(text: str, **options: object) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(text, **options)

        return str(raised.value).splitlines()

    return mistakes


@pytest.fixture
def plugin_mistakes(mistakes: Mistakes) -> Mistakes:
    """List the mistakes in one line of a plugin, the fourth of the file."""

    def plugin_mistakes(line: str) -> list[str]:
        return mistakes(f"plugins:\n  - name: a\n    path: a.wasm\n    {line}\n")

    return plugin_mistakes
