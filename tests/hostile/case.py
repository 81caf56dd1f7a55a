"""What a case is: a module that attacks, and what has to happen then."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.wat import wat2wasm

#: What the cases are played on (`make hostile ENGINE=wasmer`).
ENGINE = os.environ.get("WASM_ENGINE", "wasmtime")


class Ends(enum.Enum):
    """What has to happen, in words for people. "Once" is one line at ERROR, by plugin and phase."""

    FAILS = "the request gets the failure policy, it is logged once, a new instance serves the next"
    FAILS_LATER = "the request is answered, it is logged once, a new instance serves the next"
    FAILS_BESIDE = "it is logged once, a new instance serves; what is under way gets the policy"
    BREAKS_ABI = "the request gets the failure policy, it is logged once, the instance serves on"
    SERVED = "the request is answered with 200, nothing fails"
    REPLIED = "the request gets the guest's own reply, nothing fails"
    REFUSED = "the file is wrong: the server does not start, and says which plugin and why"
    FAILS_TO_START_AGAIN = (
        "the request gets the failure policy, those after it are refused, with back-off"
    )
    NOT_STARTED = "closed: the server does not start; open: it starts without it, logged once"
    CONTAINED = "any answer, at most one line at ERROR, the next request is served"
    CONTAINED_BLIND = (
        "any answer, at most one line at ERROR, the next request is answered; no mark of the plugin"
    )
    MUTANT = "anything but harm to others: it is refused, or fails, or serves"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    does: str
    #: As text or as binary; made when it is needed, since some are large.
    code: Callable[[], str | bytes]
    ends: Ends
    #: What the log has to name: the phase, and a part of the reason.
    phase: str = ""
    says: str = ""
    #: The answer to a request, for REPLIED.
    status: int = 0
    #: The answer under fail_open, where it is not the application's.
    open_status: int = 200
    #: Failures, each of which is logged; `says` is of the first.
    failures: int = 1
    #: Of the plugin, beside those that each case has.
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    #: The attack takes as many requests, of which the last one counts.
    requests: int = 1
    websocket: bool = False
    trailers: bool = False
    #: Another request is in the application when the attack comes: "on the same instance", or "on
    #: another instance".
    held: str = ""
    scheduling: str = "sliced"
    #: How many requests to other plugins are answered in a second of the loop's time, at least.
    least_beside: int = 0
    #: No more than this may pass, in seconds, until there is an answer.
    bound: float = 15.0

    def wasm(self) -> bytes:
        code = self.code()
        return wat2wasm(code) if isinstance(code, str) else code

    @property
    def policies(self) -> tuple[str, ...]:
        """The failure policies that it is tried with."""
        if self.ends in (Ends.REFUSED, Ends.SERVED, Ends.REPLIED):
            return ("fail_closed",)

        return ("fail_closed", "fail_open")


@dataclass(slots=True)
class Error:
    """One line at ERROR or above."""

    logger: str
    plugin: str
    phase: str
    text: str


@dataclass(slots=True)
class Answer:
    """How one request ended. `plugin`: the attacker's plugin has marked the answer."""

    status: int = 0
    plugin: bool = False
    #: The response was cut after it had started; or what was raised instead.
    cut: bool = False
    raised: str = ""

    def __str__(self) -> str:
        if self.raised:
            return self.raised

        return f"{self.status}{', cut' if self.cut else ''}"


@dataclass(slots=True)
class Observation:
    """What was seen of one case under one failure policy."""

    #: Why the server did not start.
    refusal: str = ""
    #: How calls into plugins ran, where it did.
    scheduling: str = ""
    attack: Answer | None = None
    #: The next request through the plugin, and how often it was refused before it was served.
    after: Answer | None = None
    refused: int = 0
    #: Requests through other plugins, beside the attack; and those of them that were not served.
    beside: int = 0
    beside_failed: list[str] = field(default_factory=list)
    errors: list[Error] = field(default_factory=list)
    replaced: bool = False
    #: The request that was in the application during the attack.
    held: Answer | None = None
    #: Of the loop's and of Python's own complaints.
    complaints: list[str] = field(default_factory=list)
    #: Contexts of streams that are left when all has ended.
    contexts: int = 0
    #: Bytes that the process has more of, with all of it loaded.
    grown: int = 0
    seconds: float = 0.0
    #: Of them, those of the processor's time that the event loop's thread has used.
    busy: float = 0.0
    stall: float = 0.0
    lines: int = 0
