"""The table of all cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from . import allocators, callbacks, endless, pointers, replies, shapes, starting
from .case import Case, Ends

_TOPICS = (callbacks, starting, allocators, endless, replies, shapes, pointers)
#: Attacks beside which another request is in the application.
_BESIDE = ("spins-in-request_headers", "traps-in-log", "allocator-spins", "endless-memory")


def _cases() -> Iterator[Case]:
    for topic in _TOPICS:
        yield from topic.cases()

    for name in _BESIDE:
        yield from _beside(CASES[name])

    for case in list(CASES.values()):
        # It shows that slices are short, and here there are none.
        if case.name.startswith(("spins-", "allocator-")) and case.name != "allocator-is-slow":
            yield _inline(case)


def _beside(case: Case) -> Iterator[Case]:
    for where, count in (("on the same instance", 1), ("on another instance", 2)):
        yield dataclasses.replace(
            case,
            name=f"{case.name}-beside-one-{where.replace(' ', '-')}",
            does=f"{case.does}; another request is in the application, {where}",
            settings={**case.settings, "instances": {"min": count, "max": count}},
            held=where,
            failures=case.failures,
        )


def _inline(case: Case) -> Case:
    """Where each call runs to its end, the event loop waits for as long as its timeout."""
    fails = case.ends in (Ends.FAILS, Ends.FAILS_LATER, Ends.FAILS_BESIDE, Ends.NOT_STARTED)
    is_time = fails and ("spins" in case.name or "ever" in case.name)
    starts = case.ends is Ends.NOT_STARTED
    too_long = callbacks.TOO_LONG_A_START if starts else callbacks.TOO_LONG
    return dataclasses.replace(
        case,
        name=f"inline-{case.name}",
        does=f"{case.does}; scheduling: inline",
        says=too_long if is_time else case.says,
        scheduling="inline",
    )


CASES: dict[str, Case] = {}

for _case in _cases():
    assert _case.name not in CASES, _case.name
    CASES[_case.name] = _case
