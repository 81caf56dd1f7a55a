"""`inspect`: what a module says about itself."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.conftest import WAT, Run
from tests.conftest import WASMER
from tests.wat import wat2wasm


def facts(stdout: str) -> dict[str, str]:
    """The lines before the first empty one, by their first word."""
    lines = stdout.split("\n\n")[0].splitlines()
    return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}


def test_a_plugin_is_described(folder: Path, run: Run) -> None:
    result = run("inspect", "redact.wasm")
    content = (folder / "redact.wasm").read_bytes()
    shown = {name: value.strip() for name, value in facts(result.stdout).items()}
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown == {
        "file": "redact.wasm",
        "kind": "core module",
        "size": f"{len(content):,} bytes",
        "sha256": hashlib.sha256(content).hexdigest(),
        "engine": f"wasmtime {version('wasmtime')}",
        "memory": "128 KiB, no maximum",
        "ABI": "0.2.1",
        "phases": "on_response_headers, on_response_body",
        "bodies": "response may be changed",
    }
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["env.proxy_log", "iii>i"] in lines
    assert ["proxy_on_response_body", "iii>i", "callback"] in lines
    assert ["memory", "memory", "other"] in lines


def test_an_unknown_import_is_marked_and_does_no_harm(folder: Path, run: Run) -> None:
    result = run("inspect", "unknown-import.wasm")
    assert result.exit_code == 0
    assert "env.proxy_from_the_future  i>  unknown: no ABI has it" in result.stdout


def test_a_wrong_signature_is_marked_and_makes_it_unfit(folder: Path, run: Run) -> None:
    result = run("inspect", "wrong-type.wasm")
    assert result.exit_code == 1
    assert "env.proxy_log  I>i  wrong type: should be iii>i" in result.stdout
    assert "wrong-type.wasm: it imports env.proxy_log with the type I>i" in result.stderr


def test_a_component_is_called_one(folder: Path, run: Run) -> None:
    (folder / "c.wasm").write_bytes(b"\0asm\x0d\0\x01\0")
    result = run("inspect", "c.wasm")
    assert result.exit_code == 1
    assert facts(result.stdout)["kind"].strip() == "component"
    assert "'c.wasm' is a component, which is not available" in result.stderr


def test_a_module_that_is_no_plugin_says_what_it_lacks(folder: Path, run: Run) -> None:
    (folder / "m.wasm").write_bytes(wat2wasm('(module (func (export "f")))'))
    result = run("inspect", "m.wasm")
    assert result.exit_code == 1
    assert "m.wasm: it exports no marker of a known ABI version" in result.stderr
    assert "m.wasm: it exports no allocator" in result.stderr


def test_text_and_damaged_files_are_no_modules(folder: Path, run: Run) -> None:
    (folder / "text.wasm").write_text("(module)", encoding="utf-8")
    assert "compile it with wat2wasm" in run("inspect", "text.wasm").stderr
    content = (folder / "redact.wasm").read_bytes()
    (folder / "cut.wasm").write_bytes(content[: len(content) // 2])
    result = run("inspect", "cut.wasm")
    assert result.exit_code == 1
    assert "cut.wasm: the file is damaged or cut short" in result.stderr


def test_code_that_is_not_valid_is_found_by_compiling_it(folder: Path, run: Run) -> None:
    content = wat2wasm(WAT % ("", '(func (export "f") (result i32) (i32.const 77))'))
    (folder / "bad.wasm").write_bytes(content.replace(b"\x41\xcd\x00", b"\x01\x01\x01"))
    result = run("inspect", "bad.wasm")
    assert result.exit_code == 1
    assert "bad.wasm: " in result.stderr


def test_a_memory_beyond_the_default_limit_is_noted(folder: Path, run: Run) -> None:
    text = (WAT % ("", "")).replace('"memory") 1', '"memory") 320')
    (folder / "large.wasm").write_bytes(wat2wasm(text))
    result = run("inspect", "large.wasm")
    assert result.exit_code == 0
    assert "note: it begins with 20.0 MiB of memory: its memory_limit has to be" in result.stdout


def test_a_rust_plugin_is_noted_to_tell_little_of_bodies(folder: Path, run: Run) -> None:
    assert "note: it imports nearly all host calls" in run("inspect", "rate-limit.wasm").stdout


def test_json_has_all_of_it(folder: Path, run: Run) -> None:
    report = json.loads(run("inspect", "wrong-type.wasm", "--format", "json").stdout)
    assert (report["ok"], report["abi"], report["kind"]) == (False, "0.2.1", "core module")
    assert report["memory"] == {"minimum": 1, "maximum": None, "is_shared": False}
    assert report["imports"] == [
        {
            "module": "env",
            "name": "proxy_log",
            "kind": "function",
            "type": "I>i",
            "known": True,
            "expected_type": "iii>i",
        }
    ]
    component = folder / "c.wasm"
    component.write_bytes(b"\0asm\x0d\0\x01\0")
    report = json.loads(run("inspect", "c.wasm", "--format", "json").stdout)
    assert (report["kind"], "imports" in report) == ("component", False)


def test_it_is_compiled_by_the_engine_that_is_asked_for(folder: Path, run: Run) -> None:
    """A module with a tail call, which wasmer does not know."""
    wat = WAT % ("", "(func $again (return_call $again))")
    (folder / "newer.wasm").write_bytes(wat2wasm(wat))
    assert run("inspect", "newer.wasm").exit_code == 0
    result = run("inspect", "--engine", "wasmer", "newer.wasm")

    if WASMER:
        assert result.exit_code == 1
        assert "tail calls" in result.stderr
        assert facts(result.stdout)["engine"].strip().startswith("wasmer 1.1.0")
    else:
        assert result.exit_code == 2
        assert "its last release, 1.1.0, has wheels for CPython up to 3.10" in result.stderr


@pytest.mark.parametrize(
    ("memory", "problem"),
    [
        ('(memory (export "memory") 1) (memory 1)', "it has 2 memories: a plugin has one"),
        ('(memory (export "memory") 1 1 shared)', "its memory is shared between threads"),
    ],
)
def test_a_memory_that_no_plugin_can_have_makes_it_unfit(
    folder: Path, run: Run, memory: str, problem: str
) -> None:
    wat = (WAT % ("", "")).replace('(memory (export "memory") 1)', memory)
    (folder / "m.wasm").write_bytes(wat2wasm(wat))
    result = run("inspect", "m.wasm")
    assert result.exit_code == 1
    assert problem in result.stderr
