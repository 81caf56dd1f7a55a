"""The plugins of `service`: abusive ones in WebAssembly text, and real ones that do as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.e2e.serving import ROOT
from tests.wat import wat2wasm

#: Does one thing at a request with the header `x-go`, and nothing at others.
_WAT: Final = """(module
  (import "env" "proxy_get_header_map_value"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_from_the_future" (func $future (param i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-go")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 0) (i32.const 4)))
      (then %s))
    (i32.const 0)))"""
_ACTS: Final = {
    "spin": "(loop $again (br $again))",
    "hoard": """
      (loop $again
        (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      unreachable""",
    "future": "(drop (call $future (i32.const 7)))",
}

_CONFIG: Final = """\
plugins:
  - {{name: spin, path: spin.wasm}}
  - {{name: hoard, path: hoard.wasm, memory_limit: 1MB}}
  - {{name: future, path: future.wasm}}
  - {{name: every, path: {tests}/every-callback.wasm}}
  - {{name: patient, path: {tests}/every-callback.wasm, timeout: 1500ms}}
  - {{name: validator, path: {example}/json-validator.wasm, body_limit: 4KB}}
  - {{name: redact, path: {example}/redact.wasm}}
routes:
  - {{path: /spin, plugins: [spin]}}
  - {{path: /hoard, plugins: [hoard]}}
  - {{path: /future, plugins: [future]}}
  - {{path: /every, plugins: [every]}}
  - {{path: /patient, plugins: [patient]}}
  - {{path: /json, plugins: [validator]}}
  - {{path: /stream, plugins: [every, redact]}}
  - {{path: /endless, plugins: [every]}}
"""
#: Apart, since compiling it takes longer than all the others.
_GO: Final = "  - {{name: go, path: {tests}/go-every.wasm}}\n"


def write_config(folder: Path, *, go: bool = False) -> Path:
    """Write the modules and a file with all of them; returns its path."""
    for name, act in _ACTS.items():
        (folder / f"{name}.wasm").write_bytes(wat2wasm(_WAT % act))

    path = folder / "plugins.yaml"
    plugins, routes = _CONFIG.split("routes:\n")
    text = f"{plugins}{_GO if go else ''}routes:\n{routes}"

    if go:
        text += "  - {{path: /go, plugins: [go]}}\n"

    text = text.format(tests=ROOT / "tests" / "plugins", example=ROOT / "example_app" / "plugins")
    path.write_text(text, encoding="utf-8")
    return path
