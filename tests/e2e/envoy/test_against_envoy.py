"""The same plugin, configuration and request through Envoy and through us."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.e2e.envoy.cases import CASES
from tests.e2e.envoy.conftest import Sides
from tests.e2e.envoy.decisions import DECISIONS
from tests.e2e.envoy.differences import Differences, differences
from tests.e2e.envoy.shapes import Case
from tests.e2e.envoy.sides import observe

# The first test waits until Envoy has made some hundred instances.
pytestmark = pytest.mark.timeout(180)


def decided(case: Case) -> Differences:
    """What is meant to differ in a case."""
    shown = [decision.differences(case.id) for decision in DECISIONS]
    return {name: lines for names in shown for name, lines in names.items()}


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_plugin_does_the_same_as_in_envoy(sides: Sides, case: Case) -> None:
    assert differences(observe(sides.envoy, case), observe(sides.ours, case)) == decided(case)


def test_the_table_has_every_case_once_and_enough_of_each_topic() -> None:
    assert max(Counter(case.id for case in CASES).values()) == 1
    assert min(Counter(case.topic for case in CASES).values()) >= 3
    assert len({case.plugin for case in CASES}) == 4


def test_each_difference_is_decided_once_and_in_a_case_of_the_table() -> None:
    shown = [
        (case, name)
        for decision in DECISIONS
        for case, names in decision.by_case().items()
        for name in names
    ]
    assert len(set(shown)) == len(shown)
    assert {case for case, _ in shown} <= {case.id for case in CASES}


def test_bodies_in_several_parts_tell_when_they_were_seen() -> None:
    """Else a part would be sent before the one before has been seen, and they could melt."""
    for case, request in itertools.chain.from_iterable(
        ((case, request) for request in case.requests) for case in CASES
    ):
        if len(request.chunks) > 1:
            assert case.says("request_body", "arguments"), case.id

        if len(request.answer.chunks) > 1:
            assert case.says("response_body", "arguments"), case.id
