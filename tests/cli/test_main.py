"""What all commands have in common, and the command as a process."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import wasm_middleware
from tests.cli.conftest import ROOT, Run
from wasm_middleware.config import json_schema

COMMAND = [sys.executable, "-m", "wasm_middleware"]


def test_the_schema_is_that_of_the_configuration(run: Run) -> None:
    assert json.loads(run("schema").stdout) == json_schema()


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version").stdout == f"wasm-middleware, version {wasm_middleware.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["chek"], ["check"], ["--log-level", "loud", "schema"]])
def test_wrong_usage_ends_with_2(arguments: list[str], run: Run) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: wasm-middleware" in result.stderr


@pytest.mark.parametrize("command", ["check", "inspect", "schema"])
def test_every_command_has_a_help_text(command: str, run: Run) -> None:
    first = run(command, "--help").stdout.splitlines()[2]
    assert first.startswith("  ")
    assert len(first) > 20


def test_the_module_runs_as_a_process() -> None:
    done = subprocess.run(
        [*COMMAND, "inspect", "example_app/plugins/redact.wasm"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ABI     0.2.1" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "schema"],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(write)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_only_a_terminal_sees_colours_and_only_if_it_wants_them(
    no_color: str, coloured: bool, tmp_path: Path
) -> None:
    (tmp_path / "plugins.yaml").write_text("plugins: []\n", encoding="utf-8")
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "check", "plugins.yaml"],
        cwd=tmp_path,
        env=environment,
        stdout=child,
        stderr=subprocess.DEVNULL,
    )
    os.close(child)
    assert process.wait(timeout=30) == 0
    shown = os.read(parent, 65536)
    os.close(parent)
    assert b"plugins.yaml: no mistakes" in shown
    assert (b"\x1b[" in shown) is coloured
