"""A body through any chain, cut in any way, with resumes at any time, against a model.

The plugins are written in Python. What comes out must be what their functions make of the whole
body one after the other, and each of them must have been told the truth about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings, strategies as st

from wasm_middleware.abi.enums import Status
from wasm_middleware.abi.signatures import ENV, HOST_CALLS
from wasm_middleware.engines.module_info import ExternKind, Import
from wasm_middleware.engines.null import NullEngine, NullGuest
from wasm_middleware.engines.protocol import InstanceLimits
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm

from .harness import INFO, LOGGER, REQUEST, RESPONSE, FakeClock, run, services

PASS, UPPER, GATHER, HOLD = "pass", "upper", "gather", "hold"
MODELS = {
    PASS: lambda body: body,
    HOLD: lambda body: body,
    UPPER: bytes.upper,
    GATHER: lambda body: b"<" + body + b">",
}
CALLS = ("proxy_get_buffer_bytes", "proxy_set_buffer_bytes")


@dataclass(frozen=True)
class Behaviour:
    """What a plugin does with a body, and whether it holds the headers back first."""

    body: str
    holds_headers: bool = False
    sees_body_meanwhile: bool = False
    #: It resumes within the callback what it then says it holds.
    resumes_at_once: bool = False


@dataclass
class Seen:
    headers: int = 0
    ends: int = 0
    bodies: list[int] = field(default_factory=list)


class Modelled(NullGuest):
    """A plugin of one of the behaviours, the same in both directions."""

    imports = tuple(
        Import(ENV, name, ExternKind.FUNCTION, HOST_CALLS[name].signature)
        for name in (*CALLS, "proxy_continue_stream")
    )
    behaviour: Behaviour
    seen: Seen

    def on_headers(self, stream_type: int) -> int:
        assert not self.seen.bodies, "a body was shown before its headers"
        self.seen.headers += 1

        if self.behaviour.holds_headers and self.behaviour.resumes_at_once:
            assert self.host.proxy_continue_stream(stream_type) == Status.OK

        return int(self.behaviour.holds_headers)

    def on_body(self, stream_type: int, size: int, end_of_stream: int) -> int:
        self.seen.bodies.append(size)
        self.seen.ends += end_of_stream
        out = self.proxy_on_memory_allocate(8)
        assert (
            self.host.proxy_get_buffer_bytes(stream_type, 0, 0xFFFF_FFFF, out, out + 4) == Status.OK
        )
        body = self.memory.read(self.memory.read_u32(out), self.memory.read_u32(out + 4))
        assert len(body) == size, "the size is not that of the buffer"
        kind = self.behaviour.body

        if kind == UPPER or (kind == GATHER and end_of_stream):
            new = MODELS[kind](body)
            self.host.proxy_set_buffer_bytes(stream_type, 0, 0xFFFF_FFFF, *self.text(new))

        if kind == HOLD and self.behaviour.resumes_at_once:
            self.host.proxy_continue_stream(stream_type)

        return int(kind == HOLD or (kind == GATHER and not end_of_stream))

    def proxy_on_request_headers(self, context: int, count: int, end: int) -> int:
        return self.on_headers(0)

    def proxy_on_response_headers(self, context: int, count: int, end: int) -> int:
        return self.on_headers(1)

    def proxy_on_request_body(self, context: int, size: int, end: int) -> int:
        return self.on_body(0, size, end)

    def proxy_on_response_body(self, context: int, size: int, end: int) -> int:
        return self.on_body(1, size, end)


def started(behaviour: Behaviour) -> tuple[Vm, Seen]:
    seen = Seen()
    kind = type("Plugin", (Modelled,), {"behaviour": behaviour, "seen": seen})
    plugin = Plugin(
        "modelled", LOGGER, allow_on_headers_stop_iteration=behaviour.sees_body_meanwhile
    )
    vm = Vm(plugin, services())
    module = NullEngine({b"": kind}).compile(b"")
    vm.attach(module.instantiate(partial(resolve, vm), InstanceLimits(1 << 20, 10)))
    run(vm.start())
    return vm, seen


BEHAVIOURS = st.builds(
    Behaviour,
    st.sampled_from([PASS, UPPER, GATHER, HOLD]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
#: After each chunk: which plugins ask to go on, and whether that is carried out at once.
RESUMES = st.tuples(st.lists(st.integers(0, 2), max_size=2), st.booleans())
LETTERS = st.text("abYZ", max_size=5).map(str.encode)
CHUNKS = st.lists(st.tuples(LETTERS, RESUMES), max_size=6)


@pytest.mark.parametrize("response", [False, True])
@settings(max_examples=400)
@given(behaviours=st.lists(BEHAVIOURS, min_size=1, max_size=3), chunks=CHUNKS, end=st.booleans())
def test_what_comes_out_is_what_the_model_says(
    response: bool,
    behaviours: list[Behaviour],
    chunks: list[tuple[bytes, tuple[list[int], bool]]],
    end: bool,
) -> None:
    stream = Stream(FakeClock(), lambda: INFO)
    plugins = [started(behaviour) for behaviour in behaviours]

    for vm, _ in plugins:
        stream.add(vm, b"")

    if response:
        run(stream.start_response(HeaderMap(list(RESPONSE)), end_of_stream=False))
    else:
        run(stream.request.start(HeaderMap(list(REQUEST)), end_of_stream=False))

    flow = stream.response if response else stream.request
    output = b""

    for index, (data, (resumed, at_once)) in enumerate(chunks):
        last = end and index == len(chunks) - 1
        run(flow.feed(data, end_of_stream=last))

        for which in resumed:
            stream.contexts[which % len(behaviours)].resume(response=response)

        if at_once:
            run(stream.proceed())

        output += flow.take_output()

    if not (end and chunks):
        run(flow.feed(b"", end_of_stream=True))

    for _ in range(4 * len(behaviours)):
        holder = flow.paused_by

        if holder is None:
            break

        holder.resume(response=response)
        run(stream.proceed())

    output += flow.take_output()
    expected = b"".join(data for data, _ in chunks)

    for behaviour in reversed(behaviours) if response else behaviours:
        # One that gathers may be told to let go before it has seen the end: see below.
        if behaviour.body != GATHER:
            expected = MODELS[behaviour.body](expected)

    assert output.translate(None, b"<>") == expected
    assert flow.passed
    assert flow.output_ended

    for _, seen in plugins:
        assert (seen.headers, seen.ends) == (1, 1)


@pytest.mark.parametrize("response", [False, True])
@settings(max_examples=200)
@given(
    behaviours=st.lists(st.builds(Behaviour, st.sampled_from([PASS, UPPER, GATHER])), max_size=3),
    chunks=st.lists(st.binary(max_size=5), min_size=1, max_size=6),
)
def test_how_a_body_is_cut_makes_no_difference(
    response: bool, behaviours: list[Behaviour], chunks: list[bytes]
) -> None:
    stream = Stream(FakeClock(), lambda: INFO)

    for behaviour in behaviours:
        stream.add(started(behaviour)[0], b"")

    if response:
        run(stream.start_response(HeaderMap(list(RESPONSE)), end_of_stream=False))
    else:
        run(stream.request.start(HeaderMap(list(REQUEST)), end_of_stream=False))

    flow = stream.response if response else stream.request

    for index, chunk in enumerate(chunks):
        run(flow.feed(chunk, end_of_stream=index == len(chunks) - 1))

    expected = b"".join(chunks)

    for behaviour in reversed(behaviours) if response else behaviours:
        expected = MODELS[behaviour.body](expected)

    assert flow.take_output() == expected
    assert flow.output_ended
