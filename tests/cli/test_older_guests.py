"""`inspect` and `check` on the modules of older SDKs and other toolchains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.wat import wat2wasm

WAT = Path(__file__).parents[1] / "plugins" / "wat"
#: ABI version, and what is said about bodies.
FACTS = {
    "assemblyscript": ("0.2.1", "never seen"),
    "emscripten-0.1.0": ("0.1.0", "never seen"),
    "emscripten-0.2.1": ("0.2.1", "never seen"),
    "higress": ("0.2.100", "never seen"),
    "tinygo-0.1.0-callout": ("0.1.0", "request and response read"),
    "tinygo-0.1.0-configured": ("0.1.0", "never seen"),
    "tinygo-0.2.0": ("0.2.0", "request and response read"),
}


@pytest.fixture(params=sorted(FACTS))
def name(request: pytest.FixtureRequest, folder: Path) -> str:
    """The name of one of them, which lies in the working folder."""
    text = (WAT / f"{request.param}.wat").read_text(encoding="utf-8")
    (folder / f"{request.param}.wasm").write_bytes(wat2wasm(text))
    return str(request.param)


def test_there_are_facts_for_each() -> None:
    assert sorted(FACTS) == sorted(file.stem for file in WAT.glob("*.wat"))


def test_each_is_a_plugin_of_its_version(name: str, run: Run) -> None:
    result = run("inspect", f"{name}.wasm", "--format", "json")
    report = json.loads(result.stdout)
    unknown = [entry["name"] for entry in report["imports"] if not entry["known"]]
    assert (result.exit_code, result.stderr) == (0, "")
    assert (report["abi"], report["bodies"]) == FACTS[name]
    assert unknown == (
        ["proxy_redis_init", "proxy_redis_call", "proxy_inject_encoded_data_to_filter_chain"]
        if name == "higress"
        else []
    )


def test_each_passes_the_check(name: str, check: Run) -> None:
    result = check(f"plugins:\n  - name: old\n    path: {name}.wasm\n    config: c\n")
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "old" in result.stdout


def test_callbacks_of_no_specification_are_called_so_and_no_more(folder: Path, run: Run) -> None:
    text = (WAT / "assemblyscript.wat").read_text(encoding="utf-8")
    (folder / "as.wasm").write_bytes(wat2wasm(text))
    lines = [line.split() for line in run("inspect", "as.wasm").stdout.splitlines()]
    assert ["proxy_on_grpc_trailing_metadata", "iii>", "callback"] in lines
    assert ["proxy_on_request_metadata", "ii>i", "callback"] in lines
    assert ["env.abort", "iiii>"] in lines
