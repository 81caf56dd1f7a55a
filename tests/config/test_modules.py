from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from wasm_middleware.config import load_settings, read_module
from wasm_middleware.errors import ConfigError
from wasm_middleware.limits import MAX_MODULE_BYTES

from .conftest import MODULE, Load, Mistakes

PLUGIN = "plugins:\n- name: m\n  path: m.wasm\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a WebAssembly module"),
        (b"(module)", "is not a WebAssembly module (it is text; compile it with wat2wasm)"),
        (b"version https://git-lfs.github.com/spec/v1",
         "is not a WebAssembly module (it may be a Git LFS pointer; run git lfs pull)"),
        (b"\0asm\1", "is cut off"),
        (b"\0asm\2\0\0\0", "has a WebAssembly version that is not known"),
        (b"\0asm\x0d\0\1\0", "is a component, which is not available in this version of"
         " wasm-middleware (build a core module: --target wasm32-wasip1)"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_module_is_reported_at_its_path(
    content: bytes, message: str, folder: Path, mistakes: Mistakes
) -> None:
    (folder / "m.wasm").write_bytes(content)
    assert mistakes(PLUGIN) == [f"plugins.yaml:3:9: plugins.0.path: '{folder}/m.wasm' {message}"]


def test_a_missing_module_is_reported_unless_files_are_not_checked(
    folder: Path, load: Load, mistakes: Mistakes
) -> None:
    assert mistakes(PLUGIN) == [
        f"plugins.yaml:3:9: plugins.0.path: no such file: '{folder}/m.wasm'"
    ]
    assert load(PLUGIN, check_files=False).plugins[0].path == folder / "m.wasm"


def test_a_folder_or_a_pipe_is_no_module(folder: Path, mistakes: Mistakes) -> None:
    expected = [
        f"plugins.yaml:3:9: plugins.0.path: '{folder}/m.wasm' is not a file (name a .wasm file)"
    ]
    (folder / "m.wasm").mkdir()
    assert mistakes(PLUGIN) == expected
    (folder / "m.wasm").rmdir()
    os.mkfifo(folder / "m.wasm")
    assert mistakes(PLUGIN) == expected


def test_a_path_through_a_file_is_reported_with_the_systems_reason(
    folder: Path, mistakes: Mistakes
) -> None:
    assert mistakes(PLUGIN.replace("m.wasm", "a.wasm/m.wasm")) == [
        f"plugins.yaml:3:9: plugins.0.path: can't read '{folder}/a.wasm/m.wasm': Not a directory"
    ]


def test_a_module_that_is_too_large_is_refused(folder: Path, mistakes: Mistakes) -> None:
    with (folder / "m.wasm").open("wb") as stream:
        stream.write(MODULE)
        stream.truncate(MAX_MODULE_BYTES + 1)

    assert mistakes(PLUGIN) == [
        f"plugins.yaml:3:9: plugins.0.path: '{folder}/m.wasm' is larger than 64MB"
    ]


def test_another_file_than_the_one_meant_is_refused(folder: Path, mistakes: Mistakes) -> None:
    (folder / "m.wasm").write_bytes(MODULE)
    actual = hashlib.sha256(MODULE).hexdigest()
    assert mistakes(f"{PLUGIN}  sha256: '{'0' * 64}'\n") == [
        f"plugins.yaml:4:11: plugins.0.sha256: the file's SHA-256 is {actual}"
        " (another file than the one you meant?)"
    ]


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(MODULE).hexdigest().upper()])
def test_a_module_is_read_whole(sha256: str | None, folder: Path) -> None:
    plugin = {"name": "a", "path": "a.wasm", **({"sha256": sha256} if sha256 else {})}
    settings = load_settings({"plugins": [plugin]})
    assert read_module(settings.plugins[0], settings.source) == MODULE


def test_a_module_that_changed_since_is_reported_at_its_line(folder: Path, load: Load) -> None:
    digest = hashlib.sha256(MODULE).hexdigest()
    settings = load(
        f"plugins:\n- {{name: b, path: b.wasm}}\n- name: a\n  path: a.wasm\n  sha256: '{digest}'\n"
    )
    (folder / "a.wasm").write_bytes(MODULE + b"\0")

    with pytest.raises(ConfigError, match=r":5:11: plugins\.1\.sha256: the file's SHA"):
        read_module(settings.plugins[1], settings.source)

    (folder / "a.wasm").unlink()

    with pytest.raises(ConfigError) as raised:
        read_module(settings.plugins[1], settings.source)

    assert str(raised.value) == (
        f"plugins.yaml:4:9: plugins.1.path: no such file: '{folder}/a.wasm'"
    )
