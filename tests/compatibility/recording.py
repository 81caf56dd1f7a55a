"""Which host calls a test makes, and which callbacks it gets: so that a proof can't be empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wasm_middleware.abi.signatures import CALLBACKS
from wasm_middleware.proxy_wasm import hostcalls
from wasm_middleware.proxy_wasm.vm import Vm

from .proofs import PROOFS

_ALLOCATORS = ("proxy_on_memory_allocate", "malloc")
#: A VM calls these by a name that is not their own.
_ALIASES = {"proxy_on_grpc_receive_trailing_metadata": "proxy_on_grpc_trailing_metadata"}


def claims() -> dict[str, set[str]]:
    """For each test that is named as a proof, the rows that it is named for."""
    found: dict[str, set[str]] = {}

    for row, tests in PROOFS.items():
        for test in tests:
            found.setdefault(f"tests/{test}", set()).add(row)

    return found


CLAIMS = claims()


def record(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Note what crosses the boundary of every guest that is instantiated from now on."""
    seen: set[str] = set()

    bind, enter, allocate = hostcalls._bind, Vm._call, Vm.allocate

    def noting_bind(vm, module, name):
        call = bind(vm, module, name)

        def noted(*arguments):
            seen.add(name)
            return call(*arguments)

        return noted

    async def noting_enter(self, context, function, phase, *arguments):
        callback = phase if phase in CALLBACKS else f"proxy_{phase}"
        seen.update({callback, _ALIASES.get(callback, callback)})
        return await enter(self, context, function, phase, *arguments)

    def noting_allocate(self, size):
        seen.add(next(name for name in _ALLOCATORS if self.guest.inner_function(name)))
        return allocate(self, size)

    monkeypatch.setattr(hostcalls, "_bind", noting_bind)
    monkeypatch.setattr(Vm, "_call", noting_enter)
    monkeypatch.setattr(Vm, "allocate", noting_allocate)
    return seen


def missing(node_id: str, seen: set[str]) -> set[str]:
    """The rows that a test is named for and does not show.

    Of a test with parameters, each case has to show one of its rows.
    """
    test, _, case = node_id.partition("[")
    wanted = CLAIMS.get(test, set())
    return set() if case and wanted & seen else wanted - seen


@pytest.fixture(autouse=True)
def proof(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that the compatibility table names has to show what it is named for."""
    if request.node.nodeid.partition("[")[0] not in CLAIMS:
        yield
        return

    seen = record(request.getfixturevalue("monkeypatch"))
    yield
    not_shown = missing(request.node.nodeid, seen)
    assert not not_shown, f"it makes no call and gets no callback named {sorted(not_shown)}"
