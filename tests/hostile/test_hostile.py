"""Modules that attack: each is contained, whatever it does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import __main__ as command
from .case import Answer, Case, Observation
from .judge import problems
from .table import CASES
from .worker import Died, Worker

#: Of each kind of attack one, for the event loops that are not the first choice.
ELSEWHERE = (
    "spins-in-request_headers",
    "spins-in-log",
    "spins-in-tick",
    "spins-in-http_call_response",
    "spins-in-downstream_data",
    "spins-in-start",
    "spins-in-request_headers-beside-one-on-another-instance",
    "allocator-spins",
    "allocator-asks-for-ever",
    "allocator-spins-at-the-start",
    "traps-in-request_body",
    "traps-in-log-beside-one-on-the-same-instance",
    "recursion-and-a-host-call",
    "memory-to-the-limit-and-filled",
    "pairs-a-million",
    "endless-log-lines",
    "endless-ticks",
    "replies-to-replies",
    "mutant-0",
)


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def _rows() -> Iterator[object]:
    for case in CASES.values():
        for policy in case.policies:
            yield pytest.param(case, policy, id=f"{case.name}-{policy}")


def test_the_judge_sees_what_is_wrong() -> None:
    """A case that does nothing at all has none of the marks of one that has failed."""
    case = CASES["traps-in-request_headers"]
    served = Answer(status=200, plugin=True)
    quiet = Observation(
        attack=served,
        after=served,
        contexts=3,
        beside_failed=["/other: 503"],
        scheduling="inline",
    )

    assert problems(case, "fail_closed", quiet) == [
        "beside the attack: /other: 503",
        "3 contexts are left",
        "calls ran inline",
        "logged 0 times: []",
        "the answer is 200",
        "its instance was not replaced",
    ]
    assert problems(case, "fail_closed", Observation()) == ["there was no answer"]


def test_a_process_that_dies_is_seen(worker: Worker) -> None:
    with pytest.raises(Died, match="KeyError"):
        worker.play("there is no such case", "fail_closed")


@pytest.mark.parametrize(
    ("name", "known"), [("spins-in-logs", "spins-in-log, "), ("--help", "spins…, starts…")]
)
def test_a_name_that_no_case_has_is_no_success(
    name: str, known: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_worker() -> Worker:
        raise AssertionError("something was played")

    monkeypatch.setattr(command, "Worker", no_worker)

    assert command.main(["traps-in-log", name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"no such case: {name}; there are ")
    assert known in said.err


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 60


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("case", "policy"), list(_rows()))
def test_it_is_contained(worker: Worker, case: Case, policy: str) -> None:
    assert problems(case, policy, worker.play(case.name, policy)) == []


@pytest.fixture(scope="module", params=["uvloop", "trio"])
def worker_elsewhere(request: pytest.FixtureRequest) -> Iterator[Worker]:
    pytest.importorskip(request.param)
    worker = Worker(request.param)
    yield worker
    worker.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_it_is_contained_in_other_event_loops_too(worker_elsewhere: Worker, name: str) -> None:
    """uvloop has slices; trio has none, and each call ends at its timeout."""
    loop = worker_elsewhere.loop
    case = CASES[name]

    if loop == "trio":
        case = CASES.get(f"inline-{name}", case)

    for policy in case.policies:
        seen = worker_elsewhere.play(case.name, policy)
        assert problems(case, policy, seen, loop) == []
