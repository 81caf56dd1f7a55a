"""The soak tells what is explained from what is not, and fails for the latter."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import soak, soaking
from bench.soaking import SPINS, TRAPS, Asked, Ended

ROOT = Path(__file__).parent.parent.parent
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-gateway", b"wasm")]}
HELLO = {"type": "http.response.body", "body": b"hello"}


def refusal(*headers):
    start = {"type": "http.response.start", "status": 503, "headers": list(headers)}
    return [start, {"type": "http.response.body", "body": b""}]


def run(requests):
    return CliRunner().invoke(soak.main, ["--requests", str(requests)])


def test_a_plugin_is_asked_to_trap_in_one_of_a_thousand_requests_and_to_spin_in_ten_thousand():
    kinds = [soaking.asked(number).plugin for number in range(30_000)]

    assert kinds.count(TRAPS) == 30
    assert kinds.count(SPINS) == 3


@pytest.mark.parametrize("plugin", [TRAPS, SPINS])
def test_each_phase_has_its_turn_to_fail(plugin):
    asked = [soaking.asked(number) for number in range(100_000)]

    assert {one.phase for one in asked if one.plugin == plugin} == {b"1", b"2", b"3"}


@pytest.mark.parametrize(
    ("ended", "others_failed", "as_it_must"),
    [
        (Ended(Asked(), [START, HELLO]), False, True),
        (Ended(Asked(), [START]), False, False),
        (Ended(Asked(), [{**START, "headers": []}, HELLO]), False, False),
        (Ended(Asked(), [START, {**HELLO, "more_body": True}]), False, False),
        (Ended(Asked(), [], "RuntimeError"), False, False),
        (Ended(Asked(), refusal()), True, True),
        (Ended(Asked(), refusal()), False, False),
        (Ended(Asked(), refusal((b"x-details", b"start"))), False, True),
        (Ended(Asked(plugin=TRAPS, phase=b"1"), refusal()), False, True),
        (Ended(Asked(plugin=TRAPS, phase=b"1"), [START, HELLO]), False, False),
        (Ended(Asked(plugin=TRAPS, phase=b"3"), [START, HELLO]), False, True),
        (Ended(Asked("/hang"), [], "CancelledError"), False, True),
        (Ended(Asked("/raise"), [], "CancelledError"), False, False),
        (Ended(Asked("/gone"), [START, HELLO]), False, False),
    ],
)
def test_what_became_of_a_request_is_judged(ended, others_failed, as_it_must):
    assert ended.judge(others_failed=others_failed)[1] is as_it_must


def test_a_soak_in_which_nothing_is_unexplained_succeeds():
    # In a process of its own: pytest keeps what was logged, and with it what has failed.
    command = [sys.executable, "-m", "bench.soak", "--requests", "1001"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "contexts left in the host: 0" in result.stdout
    assert "nothing is unexplained" in result.stdout


def test_an_application_that_fails_unasked_fails_the_soak(monkeypatch):
    async def application(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/body":
            raise ZeroDivisionError

        await soaking.application(scope, receive, send)

    monkeypatch.setattr(soak, "application", application)
    result = run(100)

    assert result.exit_code == 1
    assert "raised ZeroDivisionError" in result.output


def test_memory_that_grows_fails_the_soak(monkeypatch):
    sizes = iter(range(0, 100 << 20, 10 << 20))
    monkeypatch.setattr(soak, "resident", lambda: next(sizes))
    result = run(100)

    assert result.exit_code == 1
    assert "bytes of growth" in result.output


def test_a_task_that_is_left_fails_the_soak(monkeypatch):
    left = []

    async def application(scope, receive, send):
        if not left:
            left.append(asyncio.ensure_future(asyncio.Event().wait()))

        await soaking.application(scope, receive, send)

    monkeypatch.setattr(soak, "application", application)
    result = run(100)

    assert result.exit_code == 1
    assert "tasks left: 1" in result.output
