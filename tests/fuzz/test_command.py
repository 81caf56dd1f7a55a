"""`make fuzz`: what it is asked for, what it says meanwhile and at the end."""

from __future__ import annotations

import sys

import pytest

from fuzz import __main__ as command
from fuzz.__main__ import Result


@pytest.mark.parametrize("seconds", ["abc", "", "0", "0.5", "-1", "nan", "inf"])
def test_what_is_no_number_of_seconds_is_said(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FUZZ_SECONDS", seconds)
    monkeypatch.setattr(sys, "argv", ["fuzz", "pairs"])

    assert command.main() == 2
    said = capsys.readouterr().out
    assert said == f"FUZZ_SECONDS={seconds}: write a number of seconds, 1 or more\n"


@pytest.mark.parametrize(("finding", "code", "word"), [("", 0, "PASSED"), ("bad", 1, "FAILED")])
def test_the_last_line_is_the_verdict(
    finding: str,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(name: str, seconds: float, *, has_atheris: bool) -> Result:
        return Result(name, 7, seconds, finding if name == "paths" else "")

    monkeypatch.delenv("FUZZ_SECONDS", raising=False)
    monkeypatch.setattr(command, "_run", run)
    monkeypatch.setattr(sys, "argv", ["fuzz", "pairs", "paths", "config"])

    assert command.main() == code
    assert capsys.readouterr().out.splitlines()[-1] == word


def test_a_target_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_PROGRESS", 0.2)

    result = command._run("pairs", 1.5, has_atheris=False)

    assert result.finding == ""
    assert result.executions > 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("    pairs: ")
    assert last.endswith(" executions")
    assert not last.endswith(" 0 executions")


def test_a_target_that_tries_nothing_is_a_finding() -> None:
    result = command._run("pairs", 0.0, has_atheris=False)

    assert result.executions == 0
    assert result.finding.endswith("it has tried nothing")


def test_a_target_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_GRACE", 0.0)
    monkeypatch.setattr(command, "_PROGRESS", 0.01)

    result = command._run("pairs", 0.02, has_atheris=False)

    assert result.finding.endswith("it hangs")
