"""The rows of the table, as far as the code knows them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

from wasm_middleware.abi.enums import AbiVersion, answer_name
from wasm_middleware.abi.properties import Path
from wasm_middleware.abi.signatures import CALLBACKS, HOST_CALLS, WASI_CALLS, Call
from wasm_middleware.proxy_wasm import wasi
from wasm_middleware.proxy_wasm.hostcalls import IMPLEMENTED
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.vm import Vm

from . import words
from .proofs import PROOFS

_EVERY_VERSION = (AbiVersion.V0_1_0, AbiVersion.V0_2_0, AbiVersion.V0_2_1)


@dataclass(frozen=True, slots=True)
class Row:
    """One function that crosses the boundary."""

    name: str
    versions: str
    #: ok, `words.OK_WITHOUT_TRAILERS`, partial or not.
    status: str
    #: Why, where it is not just ok.
    why: str
    does: str
    #: The tests, from `tests/` on.
    proofs: tuple[str, ...]

    @property
    def counts_as_ok(self) -> bool:
        return self.status in ("ok", words.OK_WITHOUT_TRAILERS)


def host_calls() -> list[Row]:
    return [
        _row(call, IMPLEMENTED.get(call.name), words.HOST_CALLS) for call in HOST_CALLS.values()
    ]


def callbacks() -> list[Row]:
    looked_for = callbacks_looked_for()
    rows = []

    for call in CALLBACKS.values():
        row = _row(call, None, words.CALLBACKS)
        assert (row.status != "not") is (call.name in looked_for), call.name
        rows.append(row)

    return rows


def _row(call: Call, function: Callable[..., object] | None, said: Mapping[str, str]) -> Row:
    gap = words.GAPS.get(call.name)
    does = " ".join(filter(None, (said.get(call.name, ""), first_paragraph(function))))
    return Row(
        name=call.name,
        versions=_versions(call),
        status=gap.status if gap else "ok",
        why=gap.why if gap else "",
        does=does,
        proofs=PROOFS.get(call.name, ()),
    )


def _versions(call: Call) -> str:
    if call.extension:
        return "none"

    if call.versions == _EVERY_VERSION:
        return "all"

    return ", ".join(map(str, call.versions))


def first_paragraph(function: Callable[..., object] | None) -> str:
    """The beginning of a docstring on one line; nothing where there is none."""
    text = (function.__doc__ or "") if function is not None else ""
    return " ".join(text.split("\n\n")[0].split())


def wasi_calls() -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, what it answers, and the tests that show it."""
    rows = []

    for name in WASI_CALLS:
        if name in wasi.IMPLEMENTED:
            said = first_paragraph(wasi.IMPLEMENTED[name])
            answer = " ".join(filter(None, (words.WASI_CALLS[name], said)))
        else:
            errno = wasi.ANSWERS.get(name, wasi.DEFAULT_ANSWER)
            answer = f"`{answer_name(errno)}`" if errno else "Success, and does nothing."

        rows.append((name, answer, PROOFS.get(name, ())))

    return rows


class _WatchedGuest:
    """Fulfils `ports.Guest`: notes what is looked for; has all of it but `absent`."""

    poisoned = False
    memory = None

    def __init__(self, absent: str, looked_for: set[str]) -> None:
        self._absent, self._looked_for = absent, looked_for

    def start_function(self) -> None: ...

    def set_timeout(self, seconds: float | None) -> None: ...

    def function(self, name: str):
        self._looked_for.add(name)

        async def accept(*_arguments: int) -> int:
            return 1

        return None if name == self._absent else accept

    def inner_function(self, name: str) -> None:
        self._looked_for.add(name)

    def close(self) -> None: ...


def callbacks_looked_for() -> set[str]:
    """What a VM asks its guest for, whatever the guest has."""
    looked_for: set[str] = set()

    for absent in ("", "_initialize", "main", "proxy_on_grpc_receive_trailing_metadata"):
        for network in (False, True):
            vm = new_vm(network=network)
            vm.attach(_WatchedGuest(absent, looked_for))

            try:
                vm.start().send(None)
            except StopIteration:
                continue

            raise AssertionError("it waits for something")

    return looked_for


def new_vm(*, network: bool = False) -> Vm:
    """A VM that makes no host call."""
    plugin = Plugin("watched", logging.getLogger(__name__), network=network)
    services = SimpleNamespace(waiting_calls=frozenset())
    return Vm(plugin, services)  # type: ignore[arg-type]


def dotted(path: Path) -> str:
    return b".".join(path).decode()
