"""Streams, driven by any events in any order with plugins that answer anything, beside a model.

The machine does what the shell may do to a `Stream`, and what comes to a plugin from outside; after
each step it and the model (`stream_model`) must say the same of everything that can be seen: what
each callback was told, what has come out, who holds what, whether there is a reply and which.
Beside it stand invariants that need no model.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.stream_model import (
    NO_BUFFER,
    REQUEST as TO_APP,
    RESPONSE as TO_CLIENT,
    STOP_ITERATION,
    Answer,
    Effect,
    Model,
    PluginState,
    Row,
    Told,
    Traits,
)
from tests.proxy_wasm.harness import INFO, LOGGER, REQUEST, RESPONSE, FakeClock, run, services
from wasm_middleware.abi.enums import MapType, Status
from wasm_middleware.abi.signatures import ENV, HOST_CALLS
from wasm_middleware.engines.module_info import ExternKind, Import
from wasm_middleware.engines.null import NullEngine, NullGuest
from wasm_middleware.engines.protocol import InstanceLimits
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.delivery import Delivery
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.hostcalls import resolve
from wasm_middleware.proxy_wasm.plugin import PHASES, Plugin
from wasm_middleware.proxy_wasm.stream import Stream
from wasm_middleware.proxy_wasm.vm import Vm

CALLS = (
    "proxy_get_buffer_bytes",
    "proxy_set_buffer_bytes",
    "proxy_continue_stream",
    "proxy_close_stream",
    "proxy_send_local_response",
    "proxy_set_effective_context",
    "proxy_add_header_map_value",
)
TRAILERS = [(b"x-checksum", b"1")]
NO_GRPC_STATUS = 0xFFFF_FFFF


class Puppet(NullGuest):
    """Does in each callback what comes next in the machine's script."""

    imports = tuple(
        Import(ENV, name, ExternKind.FUNCTION, HOST_CALLS[name].signature) for name in CALLS
    )
    number: int
    #: There is one at a time.
    machine: StreamMachine

    def proxy_on_context_create(self, context: int, parent: int) -> None:
        if parent:
            self.play("create", effects=False)

    def proxy_on_request_headers(self, context: int, count: int, end: int) -> int:
        return self.play("request_headers", -1, end)

    def proxy_on_request_body(self, context: int, size: int, end: int) -> int:
        return self.play("request_body", size, end, body_of=TO_APP)

    def proxy_on_response_headers(self, context: int, count: int, end: int) -> int:
        return self.play("response_headers", -1, end)

    def proxy_on_response_body(self, context: int, size: int, end: int) -> int:
        return self.play("response_body", size, end, body_of=TO_CLIENT)

    def proxy_on_response_trailers(self, context: int, count: int) -> int:
        return self.play("response_trailers", -1)

    def proxy_on_log(self, context: int) -> None:
        self.play("log")

    def proxy_on_done(self, context: int) -> int:
        self.play("done", effects=False)
        return 1

    def proxy_on_delete(self, context: int) -> None:
        self.play("delete", effects=False)

    def proxy_on_tick(self, root: int) -> None:
        context = self.machine.contexts[self.number]

        if context.created and not self.machine.stream.finished:
            self.machine.expect(self.host.proxy_set_effective_context(context.id) == Status.OK)
            self.play("tick")
        else:
            self.play("tick", effects=False)

    def play(
        self,
        name: str,
        size: int = 0,
        end: int = 0,
        *,
        body_of: int | None = None,
        effects: bool = True,
    ) -> int:
        body = None if body_of is None else self.read(body_of)
        answer = self.machine.told(self.number, name, size, end, body)

        if effects:
            for effect in answer.effects:
                self.machine.expect(self.carry_out(effect) == Status.OK)

        if answer.trap:
            raise RuntimeError("unreachable executed")

        return answer.action

    def read(self, body_of: int) -> bytes:
        out = self.proxy_on_memory_allocate(8)
        status = self.host.proxy_get_buffer_bytes(body_of, 0, 0xFFFF_FFFF, out, out + 4)
        self.machine.expect(status == Status.OK)
        return self.memory.read(self.memory.read_u32(out), self.memory.read_u32(out + 4))

    def carry_out(self, effect: Effect) -> int:
        if effect.kind == "resume":
            return self.host.proxy_continue_stream(effect.number)

        if effect.kind == "edit":
            return self.host.proxy_set_buffer_bytes(
                effect.number, effect.start, effect.size, *self.text(effect.data)
            )

        if effect.kind == "trail":
            return self.host.proxy_add_header_map_value(
                MapType.HTTP_RESPONSE_TRAILERS, *self.text(b"x-added"), *self.text(b"1")
            )

        if effect.kind == "close":
            return self.host.proxy_close_stream(effect.number)

        return self.host.proxy_send_local_response(
            effect.number, 0, 0, *self.text(effect.data), 0, 0, NO_GRPC_STATUS
        )


MOST_PLUGINS = 3
#: Made once: a class takes longer to look at than a stream to run.
MODULES = [
    NullEngine({b"": type("Numbered", (Puppet,), {"number": number})}).compile(b"")
    for number in range(MOST_PLUGINS)
]
PLUGINS = st.integers(0, MOST_PLUGINS - 1)
DIRECTIONS = st.sampled_from([TO_APP, TO_CLIENT])
CHUNKS = st.binary(max_size=5)
#: Whether something is the last: mostly not, or little would follow.
ENDS = st.sampled_from([False, False, False, True])
RESUMES = st.builds(Effect, st.just("resume"), DIRECTIONS)
EDITS = st.builds(Effect, st.just("edit"), DIRECTIONS, st.integers(0, 6), st.integers(0, 6), CHUNKS)
REPLIES = st.builds(Effect, st.just("reply"), st.sampled_from([200, 204, 403]), data=CHUNKS)
CLOSES = st.builds(Effect, st.just("close"), DIRECTIONS)
#: What ends a stream is rare, or none would come far.
EFFECTS = [RESUMES] * 3 + [EDITS] * 3 + [st.just(Effect("trail"))] * 2 + [REPLIES, CLOSES]
ACTIONS = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 77, 0xFFFF_FFFF])
ONE_IN = 16


@st.composite
def answer(draw: st.DrawFn) -> Answer:
    chance = draw(st.integers(0, 3 * ONE_IN - 1))
    # The simplest answer is the smallest number's.
    traps, acts = chance == 3 * ONE_IN - 1, chance >= 2 * ONE_IN
    effects = [draw(EFFECTS[chance % len(EFFECTS)])] if acts else []

    if acts and draw(st.booleans()):
        effects.append(draw(EFFECTS[draw(st.integers(0, len(EFFECTS) - 1))]))

    return Answer(draw(ACTIONS), tuple(effects), traps)


ANSWERS = st.lists(answer(), max_size=5)
TRAITS = st.builds(
    Traits,
    fail_open=st.booleans(),
    sees_body_meanwhile=st.booleans(),
    body_limit=st.sampled_from([1000, 1000, 8]),
    phases=st.sampled_from([frozenset(PHASES)] * 3 + [None]).flatmap(
        lambda phases: st.just(phases) if phases else st.frozensets(st.sampled_from(PHASES))
    ),
)


class Complaints(logging.Handler):
    """Keeps what the host says of its own mistakes: it makes them the guest's traps."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "please report" in record.getMessage():
            self.said.append(f"{record.getMessage()}: {record.exc_info}")


class StreamMachine(RuleBasedStateMachine):
    """One stream. Each rule does one thing to it, and to the model."""

    #: How many have been done, by all machines.
    steps = 0

    stream: Stream
    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.script: deque[Answer] = deque()
        self.all_told: list[Told] = []
        self.mistakes: list[str] = []
        self.out = [b"", b""]
        self.fed = [b"", b""]
        self.ended = [False, False]
        self.vms: list[Vm] = []
        self.reply_begun = False
        #: What was done after the end.
        self.late = 0
        #: A plugin has perhaps changed a body, or dropped some of it.
        self.changed = False
        self.complaints = Complaints()
        host_log = logging.getLogger("wasm_middleware")
        host_log.addHandler(self.complaints)
        self._propagates, host_log.propagate = host_log.propagate, False

    def teardown(self) -> None:
        host_log = logging.getLogger("wasm_middleware")
        host_log.removeHandler(self.complaints)
        host_log.propagate = self._propagates

    # What guests tell it

    def told(self, number: int, name: str, size: int, end: int, body: bytes | None) -> Answer:
        self.all_told.append((number, name, size, end, body))
        return self.script.popleft() if self.script else Answer()

    def expect(self, kept: bool) -> None:
        # Raised here, it would be the guest's trap.
        if not kept:
            self.mistakes.append(f"a host call failed in {self.all_told[-1:]}")

    # Steps

    def step(
        self,
        answers: Sequence[Answer],
        does: Coroutine[object, object, object],
        models: Callable[[], None],
    ) -> None:
        StreamMachine.steps += 1
        self.changed |= any(
            answer.action >= NO_BUFFER or any(effect.kind == "edit" for effect in answer.effects)
            for answer in answers
        )
        self.script, self.model.script = deque(answers), deque(answers)
        run(does)
        models()
        self.compare()

    def compare(self) -> None:
        stream, model = self.stream, self.model
        assert self.all_told == model.told
        assert stream.interrupted == model.interrupted
        assert (stream.aborted is not None) == model.cut
        reply = stream.reply and (stream.reply.status, stream.reply.body, stream.reply.direct)
        modelled = model.reply and (model.reply.status, model.reply.body, model.reply.direct)
        assert reply == modelled

        for flow, row in ((stream.request, model.request), (stream.response, model.response)):
            self.out[row.direction] += flow.take_output()
            assert self.out[row.direction] == row.out
            assert flow.output_ended == row.out_ended
            assert (flow.trailers is not None) == row.trailers

            # Whatever waited then, nobody waits for it any more.
            if stream.finished:
                assert flow.paused_by is None
                continue

            all_passed = row.trailers_passed == len(row.stages)
            assert flow.trailers_passed == (row.trailers and all_passed)
            assert not row.begun or flow.passed == row.complete
            holder = flow.paused_by
            assert (None if holder is None else self.contexts.index(holder)) == row.waits_for

    @initialize(
        all_traits=st.lists(TRAITS, min_size=1, max_size=MOST_PLUGINS),
        answers=ANSWERS,
        ended=ENDS,
        quietly=st.booleans(),
    )
    def request_headers(
        self, all_traits: list[Traits], answers: list[Answer], ended: bool, quietly: bool
    ) -> None:
        Puppet.machine = self
        self.stream = Stream(FakeClock(), lambda: INFO)
        self.model = Model([PluginState(traits) for traits in all_traits])

        for number, traits in enumerate(all_traits):
            vm = self.vm(number, traits)
            self.vms.append(vm)
            self.stream.add(vm, b"")

        # A stream that is finished has forgotten them.
        self.contexts = list(self.stream.contexts)
        # Half of the streams are about the response.
        self.ended[TO_APP] = ended
        self.step(
            [] if quietly else answers,
            self.stream.request.start(HeaderMap(list(REQUEST)), end_of_stream=ended),
            lambda: self.model.headers(TO_APP, ended=ended),
        )

        if quietly:
            self.response_headers(answers, False, True)

    def vm(self, number: int, traits: Traits) -> Vm:
        plugin = Plugin(
            f"plugin-{number}",
            LOGGER,
            phases=traits.phases,
            fail_open=traits.fail_open,
            body_limit=traits.body_limit,
            allow_on_headers_stop_iteration=traits.sees_body_meanwhile,
        )
        vm = Vm(plugin, services())
        vm.attach(MODULES[number].instantiate(partial(resolve, vm), InstanceLimits(1 << 20, 10)))
        run(vm.start())
        return vm

    @property
    def goes_on(self) -> bool:
        return not (self.stream.interrupted or self.stream.finished)

    def flow(self, direction: int) -> Flow:
        return self.stream.response if direction == TO_CLIENT else self.stream.request

    def may_feed(self, direction: int) -> bool:
        row: Row = self.model.response if direction == TO_CLIENT else self.model.request
        return self.goes_on and row.begun and not self.ended[direction] and not self.reply_begun

    @precondition(
        lambda self: self.goes_on and self.model.request.complete and not self.model.response.begun
    )
    @rule(answers=ANSWERS, ended=ENDS, may=st.booleans())
    def response_headers(self, answers: list[Answer], ended: bool, may: bool) -> None:
        self.ended[TO_CLIENT] = ended
        self.stream.may_add_trailers = self.model.may_add_trailers = may
        self.step(
            answers,
            self.stream.start_response(HeaderMap(list(RESPONSE)), end_of_stream=ended),
            lambda: self.model.headers(TO_CLIENT, ended=ended),
        )

    @precondition(lambda self: self.may_feed(TO_APP))
    @rule(answers=ANSWERS, chunk=CHUNKS, ended=ENDS)
    def request_body(self, answers: list[Answer], chunk: bytes, ended: bool) -> None:
        self.body(TO_APP, answers, chunk, ended=ended)

    @precondition(lambda self: self.may_feed(TO_CLIENT))
    @rule(answers=ANSWERS, chunk=CHUNKS, ended=ENDS)
    def response_body(self, answers: list[Answer], chunk: bytes, ended: bool) -> None:
        self.body(TO_CLIENT, answers, chunk, ended=ended)

    def body(self, direction: int, answers: list[Answer], chunk: bytes, *, ended: bool) -> None:
        self.fed[direction] += chunk
        self.ended[direction] = ended
        self.step(
            answers,
            self.flow(direction).feed(chunk, end_of_stream=ended),
            lambda: self.model.data(direction, chunk, ended=ended),
        )

    @precondition(lambda self: self.may_feed(TO_CLIENT))
    @rule(answers=ANSWERS)
    def trailers(self, answers: list[Answer]) -> None:
        self.ended[TO_CLIENT] = True
        self.step(answers, self.stream.response.end(HeaderMap(list(TRAILERS))), self.model.trailers)

    @precondition(lambda self: self.goes_on and self.stream.has_noted_resume)
    @rule(answers=ANSWERS)
    def proceed(self, answers: list[Answer]) -> None:
        self.step(answers, self.stream.proceed(), self.model.proceed)

    @precondition(lambda self: self.goes_on and self.stream.paused_by is not None)
    @rule(answers=ANSWERS)
    def time_is_up(self, answers: list[Answer]) -> None:
        direction = TO_CLIENT if self.stream.response.paused_by is not None else TO_APP
        flow, context = self.flow(direction), self.stream.paused_by
        assert context is not None
        self.step(answers, self.stream.expire(flow, context), lambda: self.model.expire(direction))

    @precondition(lambda self: not self.stream.committed and self.stream.response.passed)
    @precondition(lambda self: self.goes_on and self.model.response.begun)
    @rule()
    def start_has_gone_out(self) -> None:
        self.stream.committed = self.model.committed = True

    @precondition(lambda self: self.stream.interrupted and not self.stream.finished)
    @precondition(lambda self: self.stream.aborted is None)
    @rule(answers=ANSWERS, head=st.booleans())
    def reply(self, answers: list[Answer], head: bool) -> None:
        self.reply_begun = True
        self.out[TO_CLIENT] = b""
        self.step(
            answers,
            self.stream.begin_reply(head=head),
            lambda: self.model.begin_reply(head=head),
        )

    @precondition(lambda self: self.late < 3)
    @rule(answers=ANSWERS, number=PLUGINS)
    def something_is_delivered(self, answers: list[Answer], number: int) -> None:
        number %= len(self.vms)
        self.late += self.stream.finished
        [root] = self.vms[number].roots.values()
        delivery = Delivery("proxy_on_tick")
        self.step(
            answers,
            self.vms[number].deliver(root, delivery),
            lambda: self.model.deliver(number),
        )

    @precondition(lambda self: self.stream.paused_by is not None)
    @rule(number=PLUGINS)
    def the_instance_is_lost(self, number: int) -> None:
        self.something_is_delivered([Answer(trap=True)], number)

    @precondition(lambda self: self.stream.paused_by is not None)
    @rule(number=PLUGINS, direction=DIRECTIONS)
    def an_answer_resumes(self, number: int, direction: int) -> None:
        effect = Effect("resume", direction)
        self.something_is_delivered([Answer(effects=(effect,))], number)

    @precondition(lambda self: not self.stream.finished)
    @rule(answers=ANSWERS, rarely=st.integers(0, 9))
    def finish(self, answers: list[Answer], rarely: int) -> None:
        if rarely == 9:
            self.step(answers, self.stream.finish(), self.model.finish)

    @precondition(lambda self: self.stream.finished)
    @rule()
    def finish_again(self) -> None:
        self.step([], self.stream.finish(), lambda: None)

    # What needs no model

    @invariant()
    def the_host_made_no_mistake(self) -> None:
        assert not self.complaints.said
        assert not self.mistakes

    @invariant()
    def contexts_are_made_and_deleted_once(self) -> None:
        counts = Counter((number, name) for number, name, *_ in self.all_told)

        for number, vm in enumerate(self.vms):
            made, deleted = counts[number, "create"], counts[number, "delete"]
            assert deleted <= made <= 1
            assert counts[number, "log"] <= 1
            # A poisoned instance is not called any more.
            assert not self.stream.finished or deleted == made or vm.guest.poisoned

            if self.stream.finished:
                assert all(isinstance(one, RootContext) for one in vm.contexts.values())

    @invariant()
    def nothing_is_called_after_its_deletion(self) -> None:
        deleted: set[int] = set()

        for number, name, *_ in self.all_told:
            assert number not in deleted or name == "tick"

            if name == "delete":
                deleted.add(number)

    @invariant()
    def nothing_is_lost_where_nothing_was_changed(self) -> None:
        if not hasattr(self, "model") or self.model.reply is not None or self.model.cut:
            return

        for direction, row in enumerate((self.model.request, self.model.response)):
            if row.out_ended and not self.changed:
                assert self.out[direction] == self.fed[direction]


StreamMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=20,
    derandomize=True,
    database=None,
    deadline=None,
    # Explaining a failure takes longer than a test may.
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
TestStreams = StreamMachine.TestCase


# What the machine has found.


def test_what_a_plugin_kept_that_is_left_out_goes_first() -> None:
    machine = StreamMachine()
    machine.request_headers(
        [Traits(fail_open=True, phases=frozenset(PHASES))], [], ended=False, quietly=False
    )
    machine.request_body([Answer(STOP_ITERATION)], b"first", False)
    machine.the_instance_is_lost(0)
    flow = machine.stream.request

    try:
        run(flow.feed(b" second", end_of_stream=True))
        run(machine.stream.proceed())

        assert flow.take_output() == b"first second"
        assert flow.output_ended
    finally:
        machine.teardown()
