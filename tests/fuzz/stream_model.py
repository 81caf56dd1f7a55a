"""What a stream does, as the specification has it: a model to hold the core against.

A direction is a row of stages, one for each plugin in the order in which it passes them. Everything
that comes to a stage it either lets go, to the next one, or keeps until it is resumed. Where the
specification leaves a choice it is Envoy's, and for failures the plugin's failure policy:

- Headers that wait hold data back behind them, unless the plugin may see it meanwhile.
- A body callback is told of all that its plugin has kept, and of the chunk that is new.
- A reply ends the request's way: nothing passes any more. The first reply wins. It passes the
  response phases of every plugin, unless the response had begun: then it goes straight out. When
  the response has gone out it is too late, and what there is is cut.
- A plugin that fails is left out. fail_open: what it kept goes on. fail_closed: a bare 503 in the
  place of whatever was to be sent.
- When all is over: on_log for each, then on_done and on_delete for each that was told of a context.
  A failed instance is called no more.

The guests answer from a script, the same for model and core. What each callback was told is in
`Model.told`, which must come out alike.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

REQUEST, RESPONSE = 0, 1
CONTINUE, STOP_ITERATION, END_STREAM, NO_BUFFER = 0, 1, 2, 3


@dataclass(frozen=True)
class Traits:
    """How a plugin is configured."""

    fail_open: bool = False
    sees_body_meanwhile: bool = False
    body_limit: int = 1000
    phases: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Effect:
    """A host call; `resume` and `edit` name a direction, `reply` a status."""

    kind: str
    number: int = 0
    start: int = 0
    size: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a callback does before it returns `action`, or traps."""

    action: int = CONTINUE
    effects: tuple[Effect, ...] = ()
    trap: bool = False


#: Of one callback: the plugin, its name, two arguments, and the body that could be read.
Told = tuple[int, str, int, int, bytes | None]


@dataclass(eq=False)
class Stage:
    """A plugin in one direction."""

    plugin: int
    waits: bool = False
    #: It was asked to go on, and does so when the host comes round to it.
    resumed: bool = False
    #: No data is shown to it while its headers wait.
    stops_all: bool = False
    #: What it sees as the body, and whether that ends with the end.
    body: bytes | None = None
    body_ended: bool = False
    #: What came while its headers waited.
    behind: bytes | None = None
    behind_ended: bool = False
    told_of_trailers: bool = False


@dataclass
class Row:
    """A direction."""

    direction: int
    stages: list[Stage]
    begun: bool = False
    ended_with_headers: bool = False
    #: How many stages the headers, and the trailers, have passed.
    passed: int = 0
    trailers_passed: int = 0
    trailers: bool = False
    out: bytes = b""
    out_ended: bool = False

    @property
    def complete(self) -> bool:
        return self.passed == len(self.stages)

    @property
    def waits_for(self) -> int | None:
        return next((stage.plugin for stage in self.stages if stage.waits), None)


@dataclass
class PluginState:
    traits: Traits
    created: bool = False
    left_out: bool = False
    #: Its instance has failed.
    dead: bool = False
    logged: bool = False


@dataclass
class Reply:
    status: int
    body: bytes = b""
    direct: bool = False


@dataclass
class Model:
    """A stream. Its methods are the events; `script` holds what the guests answer."""

    plugins: list[PluginState]
    script: deque[Answer] = field(default_factory=deque)
    told: list[Told] = field(default_factory=list)
    reply: Reply | None = None
    interrupted: bool = False
    cut: bool = False
    committed: bool = False
    over: bool = False
    #: The server can send trailers that a plugin adds.
    may_add_trailers: bool = False
    request: Row = field(init=False)
    response: Row = field(init=False)
    #: In which row's callback of which plugin a guest runs.
    _running: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        numbers = range(len(self.plugins))
        self.request = Row(REQUEST, [Stage(number) for number in numbers])
        self.response = Row(RESPONSE, [Stage(number) for number in reversed(numbers)])

    # Events

    def headers(self, direction: int, *, ended: bool) -> None:
        row = self._row(direction)
        row.begun, row.ended_with_headers = True, ended
        self._pass_headers(row)

    def data(self, direction: int, chunk: bytes, *, ended: bool) -> None:
        row = self._row(direction)
        self._pass_data(row, 0, chunk, ended=ended)
        self._pass_trailers(row)

    def trailers(self) -> None:
        self.response.trailers = True
        self._pass_trailers(self.response)

    def proceed(self) -> None:
        for row in (self.request, self.response):
            for index, stage in enumerate(row.stages):
                if stage.waits and stage.resumed and not self.interrupted:
                    self._release(row, index)

    def expire(self, direction: int) -> None:
        """The time of whoever holds the direction is up."""
        row = self._row(direction)
        number = row.waits_for
        assert number is not None

        if self._failed(number):
            self._release(row, [stage.plugin for stage in row.stages].index(number))

    def deliver(self, number: int) -> None:
        """Something comes to a plugin's root context, which acts for its stream."""
        plugin = self.plugins[number]

        if plugin.dead:
            return

        answer = self._next()
        self.told.append((number, "tick", 0, 0, None))

        if plugin.created and not self.over:
            self._carry_out(number, answer)

        if answer.trap:
            plugin.dead = True
            self._lost(number)

    def begin_reply(self, *, head: bool) -> None:
        assert self.reply is not None
        reply = self.reply
        self.interrupted = False
        # The request waits for nothing any more.
        self.request.stages = [Stage(number) for number in range(len(self.plugins))]
        body = b"" if reply.status in (204, 304) else reply.body
        numbers = [] if reply.direct else reversed(range(len(self.plugins)))
        self.response = Row(RESPONSE, [Stage(number) for number in numbers])
        self.headers(RESPONSE, ended=head or not body)

        if body and not head and not self.interrupted:
            self.data(RESPONSE, body, ended=True)

    def finish(self) -> None:
        self.over = True

        for number, plugin in enumerate(self.plugins):
            wanted = "on_log" in plugin.traits.phases and not plugin.logged
            silent = plugin.left_out and (plugin.traits.fail_open or plugin.dead)

            if wanted and not silent:
                plugin.logged = True
                self._call(number, "log", 0, 0, None)

        for number, plugin in enumerate(self.plugins):
            if plugin.created:
                plugin.created = False

                for name in ("done", "delete"):
                    if not plugin.dead:
                        self.told.append((number, name, 0, 0, None))
                        plugin.dead = self._next().trap

    # How things pass

    def _row(self, direction: int) -> Row:
        return self.response if direction == RESPONSE else self.request

    def _has(self, stage: Stage, row: Row, part: str) -> bool:
        plugin = self.plugins[stage.plugin]
        name = f"on_{'response' if row.direction else 'request'}_{part}"
        return name in plugin.traits.phases and not plugin.left_out

    def _pass_headers(self, row: Row) -> None:
        while not row.complete:
            stage = row.stages[row.passed]

            if self._has(stage, row, "headers"):
                action = self._ask(stage, row, "headers", -1, row.ended_with_headers, None)

                if action is None:
                    return

                if not self._goes_on(stage, CONTINUE if action == END_STREAM else action):
                    stage.stops_all = action != STOP_ITERATION
                    return

            row.passed += 1

    def _shuts_out(self, row: Row, index: int) -> bool:
        """Whether data has to stay before a stage, with the headers."""
        if row.complete or index != row.passed:
            return index > row.passed

        stage = row.stages[index]
        meanwhile = self.plugins[stage.plugin].traits.sees_body_meanwhile
        return stage.stops_all or not (meanwhile and self._has(stage, row, "body"))

    def _pass_data(self, row: Row, index: int, chunk: bytes, *, ended: bool) -> None:
        if index == len(row.stages):
            row.out += chunk
            row.out_ended = ended
            return

        stage = row.stages[index]

        if self._shuts_out(row, index):
            stage.behind = (stage.behind or b"") + chunk
            stage.behind_ended = ended
            self._check_size(stage, row, stage.behind)
            return

        # One that is left out still lets go first what it kept.
        chunk = (stage.body or b"") + chunk
        stage.body, stage.body_ended = chunk, ended

        if self._has(stage, row, "body"):
            action = self._ask(stage, row, "body", len(chunk), ended, chunk)

            if action is None:
                return

            if not self._goes_on(stage, action):
                if action >= NO_BUFFER:
                    stage.body = b""

                self._check_size(stage, row, stage.body)
                return
        else:
            stage.waits = stage.resumed = False

        assert stage.body is not None
        chunk, stage.body = stage.body, None

        if index == row.passed and not row.complete:
            row.passed += 1
            self._pass_headers(row)

        if not self.interrupted:
            # It may have added trailers: they are the end then.
            self._pass_data(row, index + 1, chunk, ended=ended and not row.trailers)

    def _pass_trailers(self, row: Row) -> None:
        while row.trailers and row.trailers_passed < len(row.stages) and not self.interrupted:
            index = row.trailers_passed
            stage = row.stages[index]

            if self._shuts_out(row, index):
                return

            if not stage.told_of_trailers:
                stage.told_of_trailers = True
                action: int | None = CONTINUE

                # Who sees the response at all sees its trailers.
                if self._has(stage, row, "headers") or self._has(stage, row, "body"):
                    action = self._ask(stage, row, "trailers", -1, 0, None)

                if action is None or not self._goes_on(stage, action):
                    return

            elif stage.waits:
                return

            if index == row.passed:
                row.passed += 1
                self._pass_headers(row)

            row.trailers_passed += 1

            if not self.interrupted:
                self._let_go(row, index)

    def _release(self, row: Row, index: int) -> None:
        stage = row.stages[index]
        stage.waits = stage.resumed = False

        if index == row.passed:
            row.passed += 1
            self._pass_headers(row)

        if not self.interrupted:
            self._let_go(row, index)

        behind, stage.behind = stage.behind, None

        if behind is not None and not self.interrupted:
            self._pass_data(row, index, behind, ended=stage.behind_ended)

        self._pass_trailers(row)

    def _let_go(self, row: Row, index: int) -> None:
        stage = row.stages[index]
        body, stage.body = stage.body, None

        if body is not None:
            ended = stage.body_ended and not row.trailers
            self._pass_data(row, index + 1, body, ended=ended)

    def _goes_on(self, stage: Stage, action: int) -> bool:
        stage.waits = action != CONTINUE and not stage.resumed
        stage.resumed = False
        return not stage.waits

    def _check_size(self, stage: Stage, row: Row, body: bytes) -> None:
        if len(body) > self.plugins[stage.plugin].traits.body_limit:
            self._too_large(row.direction)

    # What guests do

    def _next(self) -> Answer:
        return self.script.popleft() if self.script else Answer()

    def _ask(
        self, stage: Stage, row: Row, part: str, size: int, ended: int, body: bytes | None
    ) -> int | None:
        """The action of a callback; None if nothing passes any more."""
        name = f"{'response' if row.direction else 'request'}_{part}"
        self._running = row.direction, stage.plugin
        action = self._call(stage.plugin, name, size, int(ended), body)
        self._running = None
        return None if self.interrupted else action

    def _call(self, number: int, name: str, size: int, ended: int, body: bytes | None) -> int:
        plugin = self.plugins[number]

        if not plugin.created:
            plugin.created = True

            if not plugin.dead:
                self.told.append((number, "create", 0, 0, None))
                plugin.dead = self._next().trap

        if not plugin.dead:
            self.told.append((number, name, size, ended, body))
            answer = self._next()
            self._carry_out(number, answer)
            plugin.dead = answer.trap

            if not plugin.dead:
                return answer.action

        self._failed(number)
        return CONTINUE

    def _carry_out(self, number: int, answer: Answer) -> None:
        for effect in answer.effects:
            if effect.kind == "resume":
                self._resume(number, effect.number)
            elif effect.kind == "edit":
                self._edit(number, effect)
            elif effect.kind == "trail":
                self._add_trailer(number)
            elif effect.kind == "reply":
                self._send_reply(Reply(effect.number, effect.data))
            elif effect.kind == "close":
                self._send_reply(Reply(503))

    def _stage(self, number: int, direction: int) -> Stage | None:
        stages = self._row(direction).stages
        return next((stage for stage in stages if stage.plugin == number), None)

    def _resume(self, number: int, direction: int) -> None:
        stage = self._stage(number, direction)

        if stage is not None and (stage.waits or self._running == (direction, number)):
            stage.resumed = True

    def _add_trailer(self, number: int) -> None:
        """Only with the last of the body, and only where there are none: else they are there."""
        row, stage = self.response, self._stage(number, RESPONSE)
        may = self.may_add_trailers and self._running == (RESPONSE, number) and not row.trailers

        if may and stage is not None and stage.body_ended:
            row.trailers, stage.told_of_trailers = True, True
            row.trailers_passed = row.stages.index(stage)

    def _edit(self, number: int, effect: Effect) -> None:
        stage = self._stage(number, effect.number)

        if stage is None or stage.body is None:
            return

        old, limit = stage.body, self.plugins[number].traits.body_limit
        new = old[: effect.start] + effect.data + old[effect.start + effect.size :]

        if len(new) > max(limit, len(old)):
            self._too_large(effect.number)
        else:
            stage.body = new

    # Ends

    def _send_reply(self, reply: Reply) -> None:
        if self.over:
            return

        if self.committed or self.reply is None:
            self._interrupt(reply)

    def _too_large(self, direction: int) -> None:
        """The first thing that ends a stream settles how; a guest may go on for a while."""
        if not self.interrupted:
            self._interrupt(Reply(500 if direction else 413))

    def _interrupt(self, reply: Reply) -> None:
        """Send something instead of what was to be sent, or cut it."""
        if self.over:
            return

        self.interrupted = True

        if self.committed:
            self.cut = True
        else:
            reply.direct = self.response.begun
            self.reply = reply

    def _failed(self, number: int) -> bool:
        """Apply the failure policy; whether the rest goes on without the plugin."""
        plugin = self.plugins[number]
        plugin.left_out = True

        if plugin.traits.fail_open or self.over:
            for direction in (REQUEST, RESPONSE):
                self._resume(number, direction)

            return True

        self._interrupt(Reply(503))
        return False

    def _lost(self, number: int) -> None:
        """Its instance has failed elsewhere: a stream that waits for it learns of it at once."""
        stages = (self._stage(number, direction) for direction in (REQUEST, RESPONSE))

        if any(stage is not None and stage.waits for stage in stages):
            self._failed(number)
