"""One target under atheris: `python -m fuzz.guided TARGET [libFuzzer's options] [folders]`.

The package is instrumented as it is imported, so that libFuzzer sees which bytes lead where. PyYAML
is not: it would take five times as long, for what is not ours.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)

    with atheris.instrument_imports(include=["wasm_middleware"]):
        target = importlib.import_module(f"fuzz.{name}")

    atheris.Setup(sys.argv, target.fuzz)
    atheris.Fuzz()


main()
