"""Whether what was seen of a case is what has to happen."""

from __future__ import annotations

from .case import ENGINE, Answer, Case, Ends, Error, Observation

#: Another task may be held up for no longer than this, in seconds of the processor's time. It is a
#: tick or two, and a host call that moves as much as a guest may have.
MOST_STALL = 0.25
#: What a case may make the process grow by, in bytes. Shared data has 64 MiB, the queues of each
#: plugin have 16, its instances 16 each; a failure keeps its instance until the next request.
MOST_GROWTH = 300 << 20
_REPLACED = (Ends.FAILS, Ends.FAILS_LATER, Ends.FAILS_BESIDE)
_FAILS = (*_REPLACED, Ends.BREAKS_ABI, Ends.FAILS_TO_START_AGAIN)
_ANY = (Ends.CONTAINED, Ends.CONTAINED_BLIND)


def problems(case: Case, policy: str, seen: Observation, loop: str = "asyncio") -> list[str]:
    """What is wrong with it, in words; empty if it is contained."""
    found = [f"complaint: {one}" for one in seen.complaints]
    found += [f"beside the attack: {one}" for one in seen.beside_failed]
    found += [
        f"a bug of the host: {error.text}" for error in seen.errors if "please report" in error.text
    ]

    if seen.seconds > case.bound:
        found.append(f"it took {seen.seconds:.1f} s")

    if seen.stall > MOST_STALL:
        found.append(f"another task was held up for {1e3 * seen.stall:.0f} ms")

    if seen.beside < case.least_beside * seen.busy:
        found.append(f"{seen.beside} requests were answered beside it in {seen.busy:.1f} s")

    if seen.grown > MOST_GROWTH:
        found.append(f"it took {seen.grown >> 20} MiB of memory")

    if seen.contexts:
        found.append(f"{seen.contexts} contexts are left")

    if case.ends is Ends.MUTANT:
        return found

    if case.ends is Ends.REFUSED or (case.ends is Ends.NOT_STARTED and policy == "fail_closed"):
        return found + _refusal(case, seen)

    if seen.refusal:
        return [*found, f"the server did not start: {seen.refusal}"]

    if seen.attack is None or seen.after is None:
        return [*found, "there was no answer"]

    # Under trio there are no slices, nor on wasmer. Elsewhere this says that what is shown is shown
    # of slices.
    if seen.scheduling != ("inline" if loop == "trio" or ENGINE == "wasmer" else case.scheduling):
        found.append(f"calls ran {seen.scheduling}")

    found += _log(case, seen.errors)
    found += _answer(case, policy, seen.attack)
    found += _after(case, policy, seen)
    found += _held(case, policy, seen.held)
    return found


def _refusal(case: Case, seen: Observation) -> list[str]:
    # Of a file that is none, the path is named.
    parts = ("attacker", case.phase, case.says)
    return [
        f"the refusal lacks {part!r}: {seen.refusal!r}"
        for part in parts
        if part not in seen.refusal
    ]


def _log(case: Case, errors: list[Error]) -> list[str]:
    """Logged once, with plugin and phase."""
    # What a guest is refused is said by its own logger, which its log level may hide. A failure is
    # said by the host's.
    errors = [
        error
        for error in errors
        if error.logger == "wasm_middleware" or error.text.startswith("plugin ")
    ]
    hidden = [error.text for error in errors if error.logger != "wasm_middleware"]

    if hidden:
        return [f"the plugin's log level might hide {text}" for text in hidden]

    texts = [error.text for error in errors]

    if case.ends in (Ends.SERVED, Ends.REPLIED):
        return [f"logged: {text}" for text in texts]

    if case.ends in _ANY:
        return [] if len(texts) < 2 else [f"logged more than once: {texts}"]

    # Each websocket attacks, and the second was the one after. Of three requests that come while
    # it can't be started, one has tried.
    twice = case.websocket or case.ends is Ends.FAILS_TO_START_AGAIN

    if len(texts) != case.failures + twice:
        return [f"logged {len(texts)} times: {texts}"]

    (text, *_), (error, *_) = texts, errors
    wanted = ("'attacker'", case.phase, case.says)
    found = [f"the log lacks {part!r}: {text}" for part in wanted if part not in text]

    if twice and not case.websocket and "tried again in" not in texts[1]:
        found.append(f"no word of a back-off: {texts[1]}")

    if case.ends in _FAILS and (error.plugin, error.phase) != ("attacker", case.phase):
        found.append(f"the record has the plugin {error.plugin!r} and the phase {error.phase!r}")

    return found


def _answer(case: Case, policy: str, answer: Answer) -> list[str]:
    if answer.raised:
        return [f"the request raised {answer.raised}"]

    if case.websocket or case.ends in _ANY:
        return []

    served = answer.status == 200 and not answer.cut
    wanted = {
        Ends.FAILS: answer.status == case.open_status and not answer.cut
        if policy == "fail_open"
        else answer.status == 503 or answer.cut,
        Ends.BREAKS_ABI: served if policy == "fail_open" else answer.status == 503,
        Ends.FAILS_TO_START_AGAIN: answer.status == (200 if policy == "fail_open" else 503),
        Ends.FAILS_BESIDE: served
        if answer.plugin or policy == "fail_open"
        else answer.status == 503,
        Ends.FAILS_LATER: served and answer.plugin,
        Ends.SERVED: served and answer.plugin,
        Ends.REPLIED: answer.status == case.status and not answer.cut,
        Ends.NOT_STARTED: served and not answer.plugin,
    }
    return [] if wanted[case.ends] else [f"the answer is {answer}"]


def _after(case: Case, policy: str, seen: Observation) -> list[str]:
    answer = seen.after
    assert answer is not None

    if case.websocket:
        return [f"the next one raised {answer.raised}"] if answer.raised else []

    found = []
    refused = case.ends is Ends.FAILS_TO_START_AGAIN
    status = 503 if refused and policy == "fail_closed" else 200

    if answer.raised or answer.status != status or answer.cut:
        found.append(f"the next request is answered {answer}, refused {seen.refused} times before")

    if case.ends is not Ends.CONTAINED_BLIND and answer.plugin == (
        refused or case.ends is Ends.NOT_STARTED
    ):
        found.append(f"the next request: did the plugin see it? {answer.plugin}")

    if case.ends in _REPLACED and not seen.replaced:
        found.append("its instance was not replaced")

    return found


def _held(case: Case, policy: str, answer: Answer | None) -> list[str]:
    """A request that was under way: on an instance of its own nothing happens to it."""
    if answer is None:
        return ["there is no answer to the request under way"] if case.held else []

    alone = case.held == "on another instance"
    status = 200 if alone or policy == "fail_open" else 503
    right = answer.status == status and answer.plugin == alone and not answer.cut
    return [] if right and not answer.raised else [f"the request under way is answered {answer}"]
