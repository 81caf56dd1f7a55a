"""`python -m wasm_middleware` is the command `wasm-middleware`."""

from __future__ import annotations

from wasm_middleware.cli.main import main

if __name__ == "__main__":
    main(prog_name="wasm-middleware")
