"""One instance of the scripted guest, without a VM: its imports are bound to what a test gives."""

from __future__ import annotations

from collections.abc import Callable

from proxy_wasm.harness import Step, run, started
from proxy_wasm.scripted import (
    EVERYTHING,
    NAMES,
    OUT,
    PAGE,
    RETURN,
    SCRIPTS_AT,
    TABLE_AT,
    guest_module,
)

from wasm_middleware.engines.protocol import Engine, Instance, InstanceLimits
from wasm_middleware.proxy_wasm.ports import HostFunction

HOST_CALLS = [name for _, name, _ in EVERYTHING.imports]
FAULT = 77
LIMITS = InstanceLimits(16 * PAGE, 100)


class Bench:
    """One instance whose host calls all go to `answer(name, *arguments)`."""

    def __init__(self, engine: Engine, answer: Callable[..., object]) -> None:
        module = guest_module(engine)

        def resolve(_module: str, name: str, _signature: str) -> HostFunction:
            return HostFunction(lambda *arguments: answer(name, *arguments), FAULT)  # type: ignore[arg-type, return-value]

        self.instance: Instance = started(module.instantiate(resolve, LIMITS), 5.0)
        self.memory = self.instance.memory

    def write(self, callback: str, *steps: Step, returns: int = 0) -> None:
        at = SCRIPTS_AT + 4096 * NAMES.index(callback) // 4

        for index, step in enumerate(steps):
            step.result_at = OUT + 8 * index

        packed = b"".join(step.pack(HOST_CALLS) for step in (*steps, Step(RETURN, "", returns)))
        self.memory.write(at, bytes(8) + packed)
        self.memory.write_u32(TABLE_AT + 4 * NAMES.index(callback), at)

    def enter(self, name: str = "proxy_on_tick", *arguments: int) -> int:
        function = self.instance.function(name)
        assert function is not None
        return run(function(*arguments))


Make = Callable[[Callable[..., object]], Bench]


def nothing(*_arguments: object) -> int:
    return 0
