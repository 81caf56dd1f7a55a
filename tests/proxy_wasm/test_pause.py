"""Pausing and going on."""

from __future__ import annotations

import pytest

from wasm_middleware.abi.enums import HeadersStatus, Status
from wasm_middleware.proxy_wasm.flow import Flow
from wasm_middleware.proxy_wasm.stream import Stream

from .harness import (
    REQUEST,
    RESPONSE,
    Guest,
    MakeGuest,
    begin,
    call,
    new_stream,
    respond,
    run,
    send_body,
)

CONTINUE = "proxy_continue_stream"
PHASES = ["request_headers", "request_body", "response_headers", "response_body"]


def reach(stream: Stream, phase: str) -> Flow:
    """Let everything through up to a phase; the flow that it belongs to."""
    begin(stream)

    if phase == "request_body":
        run(stream.request.feed(b"body", end_of_stream=True))
    elif phase != "request_headers":
        respond(stream)

        if phase == "response_body":
            run(stream.response.feed(b"body", end_of_stream=True))

    return stream.response if phase.startswith("response") else stream.request


def went_on(flow: Flow, phase: str) -> bool:
    return flow.output_ended if phase.endswith("body") else flow.passed


@pytest.mark.parametrize("answer", [1, 2, 3, 4, 77, 0xFFFF_FFFF])
@pytest.mark.parametrize("phase", PHASES)
def test_any_answer_but_continue_pauses(guest: Guest, phase: str, answer: int) -> None:
    if phase.endswith("headers") and answer == HeadersStatus.CONTINUE_AND_END_STREAM:
        return

    guest.on(f"proxy_on_{phase}", returns=answer)
    stream = new_stream(guest)
    flow = reach(stream, phase)

    assert stream.paused_by is stream.contexts[0]
    assert not went_on(flow, phase)


@pytest.mark.parametrize("phase", PHASES)
def test_a_resume_is_carried_out_after_the_guest_has_returned(guest: Guest, phase: str) -> None:
    guest.on(f"proxy_on_{phase}", returns=1)
    stream = new_stream(guest)
    flow = reach(stream, phase)
    woken: list[bool] = []
    stream.on_wake = lambda: woken.append(True)

    status = guest.ask(stream.contexts[0], CONTINUE, int(flow is stream.response))

    assert (status, woken) == (Status.OK, [True])
    assert stream.has_noted_resume
    assert not went_on(flow, phase)
    run(stream.proceed())
    assert went_on(flow, phase)
    assert stream.paused_by is None
    assert not stream.has_noted_resume


@pytest.mark.parametrize("phase", PHASES)
def test_a_resume_within_the_callback_is_not_lost(guest: Guest, phase: str) -> None:
    resumed = call(CONTINUE, int(phase.startswith("response")))
    guest.on(f"proxy_on_{phase}", resumed, returns=1)
    stream = new_stream(guest)
    flow = reach(stream, phase)

    assert guest.result(resumed) == Status.OK
    assert stream.paused_by is None
    assert went_on(flow, phase)


@pytest.mark.parametrize("phase", PHASES)
def test_a_resume_of_what_then_goes_on_by_itself_is_spent(guest: Guest, phase: str) -> None:
    guest.on(f"proxy_on_{phase}", call(CONTINUE, int(phase.startswith("response"))), returns=0)
    stream = new_stream(guest)
    flow = reach(stream, phase)
    body = f"proxy_on_{'response' if flow.response else 'request'}_body"

    assert went_on(flow, phase)
    guest.again(body)
    guest.on(body, returns=1)
    run(flow.feed(b"more", end_of_stream=True))
    assert stream.paused_by is stream.contexts[0]


@pytest.mark.parametrize("phase", PHASES)
def test_the_other_direction_is_not_resumed(guest: Guest, phase: str) -> None:
    other = 0 if phase.startswith("response") else 1
    guest.on(f"proxy_on_{phase}", call(CONTINUE, other), returns=1)
    stream = new_stream(guest)
    flow = reach(stream, phase)
    guest.ask(stream.contexts[0], CONTINUE, other)
    run(stream.proceed())

    assert flow.paused_by is stream.contexts[0]


@pytest.mark.parametrize("which", [0, 1])
def test_resuming_what_is_not_paused_is_fine(guest: Guest, which: int) -> None:
    stream = new_stream(guest)
    begin(stream)

    assert guest.ask(stream.contexts[0], CONTINUE, which) == Status.OK
    assert not stream.has_noted_resume


@pytest.mark.parametrize("response", [False, True])
def test_resuming_what_is_not_paused_is_not_kept_for_later(guest: Guest, response: bool) -> None:
    kind = "response" if response else "request"
    guest.on(f"proxy_on_{kind}_body", returns=0)
    guest.on(f"proxy_on_{kind}_body", returns=1)
    stream = new_stream(guest)
    flow = reach(stream, f"{kind}_headers")
    guest.ask(stream.contexts[0], CONTINUE, int(response))
    send_body(stream, b"one", response=response, ended=False)
    guest.ask(stream.contexts[0], CONTINUE, int(response))
    send_body(stream, b"two", response=response)

    assert flow.paused_by is stream.contexts[0]


def test_a_root_context_has_nothing_to_resume(guest: Guest) -> None:
    [root] = guest.vm.roots.values()

    assert guest.ask(root, CONTINUE, 0) == Status.OK


@pytest.mark.parametrize(
    ("which", "status"),
    [
        # Nothing to continue in HTTP, and no status that the SDKs would panic on.
        (2, Status.OK),
        (3, Status.OK),
        (4, Status.BAD_ARGUMENT),
        (0xFFFF_FFFF, Status.BAD_ARGUMENT),
    ],
)
def test_other_streams_can_not_be_continued(guest: Guest, which: int, status: int) -> None:
    stream = new_stream(guest)
    begin(stream)

    assert guest.ask(stream.contexts[0], CONTINUE, which) == status


@pytest.mark.parametrize("phase", PHASES)
def test_another_context_resumes_by_making_it_effective(guest: Guest, phase: str) -> None:
    guest.on(f"proxy_on_{phase}", returns=1)
    stream = new_stream(guest)
    flow = reach(stream, phase)
    [root] = guest.vm.roots.values()
    guest.on(
        "proxy_on_queue_ready",
        call("proxy_set_effective_context", stream.contexts[0].id),
        call(CONTINUE, int(flow.response)),
    )
    guest.enter(root, "proxy_on_queue_ready")
    run(stream.proceed())

    assert went_on(flow, phase)


def test_a_context_resumes_another_stream_from_its_own_callback(guest: Guest) -> None:
    guest.on("proxy_on_request_headers", returns=1)
    first, second = new_stream(guest), new_stream(guest)
    begin(first)
    guest.again("proxy_on_request_headers")
    guest.on(
        "proxy_on_request_headers",
        call("proxy_set_effective_context", first.contexts[0].id),
        call(CONTINUE, 0),
        returns=1,
    )
    begin(second)
    run(first.proceed())
    run(second.proceed())

    assert first.request.passed
    assert not second.request.passed


def test_only_the_plugin_that_paused_goes_on_and_the_next_one_is_shown(
    make_guest: MakeGuest,
) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_request_headers", returns=1)
    second.on("proxy_on_request_headers", returns=1)
    stream = new_stream(first, second)
    begin(stream)
    assert second.arguments_of("proxy_on_request_headers") == []

    first.ask(stream.contexts[0], CONTINUE, 0)
    run(stream.proceed())
    assert stream.paused_by is stream.contexts[1]

    first.ask(stream.contexts[0], CONTINUE, 0)
    run(stream.proceed())
    assert stream.paused_by is stream.contexts[1]
    assert first.called.count("on_request_headers") == 1


def test_both_directions_may_be_paused_at_once(guest: Guest) -> None:
    guest.on("proxy_on_request_body", returns=1)
    guest.on("proxy_on_response_headers", returns=1)
    stream = new_stream(guest)
    begin(stream)
    run(stream.request.feed(b"up", end_of_stream=True))
    respond(stream)
    guest.ask(stream.contexts[0], CONTINUE, 0)
    guest.ask(stream.contexts[0], CONTINUE, 1)
    run(stream.proceed())

    assert stream.request.take_output() == b"up"
    assert stream.response.passed


# Headers and bodies


@pytest.mark.parametrize("response", [False, True])
def test_a_body_waits_while_its_headers_do(guest: Guest, response: bool) -> None:
    kind = "response" if response else "request"
    guest.on(f"proxy_on_{kind}_headers", returns=1)
    stream = new_stream(guest)
    flow = reach(stream, f"{kind}_headers")
    output = send_body(stream, b"one", b"two", response=response)

    assert output == b""
    assert f"on_{kind}_body" not in guest.called
    assert not flow.takes_body

    guest.ask(stream.contexts[0], CONTINUE, int(response))
    run(stream.proceed())
    assert flow.take_output() == b"onetwo"
    assert flow.output_ended
    assert [arguments[1:3] for arguments in guest.arguments_of(f"proxy_on_{kind}_body")] == [(6, 1)]


@pytest.mark.parametrize("response", [False, True])
def test_a_plugin_may_see_the_body_while_its_headers_wait(
    make_guest: MakeGuest, response: bool
) -> None:
    kind = "response" if response else "request"
    guest = make_guest(allow_on_headers_stop_iteration=True)
    guest.on(f"proxy_on_{kind}_headers", returns=1)
    guest.on(f"proxy_on_{kind}_body", returns=1)
    guest.on(f"proxy_on_{kind}_body", returns=0)
    stream = new_stream(guest)
    flow = reach(stream, f"{kind}_headers")
    assert flow.takes_body
    run(flow.feed(b"one", end_of_stream=False))
    assert not flow.passed

    run(flow.feed(b"two", end_of_stream=True))

    assert flow.passed
    assert flow.take_output() == b"onetwo"
    sizes = [arguments[1] for arguments in guest.arguments_of(f"proxy_on_{kind}_body")]
    assert sizes == [3, 6]


@pytest.mark.parametrize("response", [False, True])
def test_its_headers_can_still_be_changed_then(make_guest: MakeGuest, response: bool) -> None:
    kind = "response" if response else "request"
    guest = make_guest(allow_on_headers_stop_iteration=True)
    guest.on(f"proxy_on_{kind}_headers", returns=1)
    which = 2 if response else 0
    guest.on(
        f"proxy_on_{kind}_body",
        call("proxy_add_header_map_value", which, guest.text(b"x-late"), guest.text(b"1")),
    )
    stream = new_stream(guest)
    flow = reach(stream, f"{kind}_headers")
    run(flow.feed(b"body", end_of_stream=True))

    assert flow.headers is not None
    assert flow.headers.pairs[-1] == (b"x-late", b"1")


def test_the_headers_that_then_go_on_reach_the_next_plugin_before_the_body(
    make_guest: MakeGuest,
) -> None:
    first, second = make_guest(allow_on_headers_stop_iteration=True), make_guest()
    first.on("proxy_on_request_headers", returns=1)
    stream = new_stream(first, second)
    begin(stream)

    assert send_body(stream, b"body") == b"body"
    assert second.called[-2:] == ["on_request_headers", "on_request_body"]


def test_a_plugin_without_body_callback_does_not_take_the_body(make_guest: MakeGuest) -> None:
    guest = make_guest(
        allow_on_headers_stop_iteration=True, phases=frozenset({"on_request_headers"})
    )
    guest.on("proxy_on_request_headers", returns=1)
    stream = new_stream(guest)
    begin(stream)

    assert not stream.request.takes_body


def test_resuming_headers_lets_a_body_that_was_seen_go_too(make_guest: MakeGuest) -> None:
    guest = make_guest(allow_on_headers_stop_iteration=True)
    guest.on("proxy_on_request_headers", returns=1)
    guest.on("proxy_on_request_body", returns=1)
    stream = new_stream(guest)
    begin(stream)
    send_body(stream, b"one", ended=False)
    guest.ask(stream.contexts[0], CONTINUE, 0)
    run(stream.proceed())

    assert stream.request.passed
    assert stream.request.take_output() == b"one"


def test_headers_that_are_let_go_stay_with_the_next_plugin_that_pauses(
    make_guest: MakeGuest,
) -> None:
    first, second = make_guest(), make_guest()
    first.on("proxy_on_request_headers", returns=1)
    second.on("proxy_on_request_headers", returns=1)
    stream = new_stream(first, second)
    begin(stream)
    send_body(stream, b"one", b"two", ended=True)
    first.ask(stream.contexts[0], CONTINUE, 0)
    run(stream.proceed())
    assert [arguments[1:3] for arguments in first.arguments_of("proxy_on_request_body")] == [(6, 1)]
    assert "on_request_body" not in second.called

    second.ask(stream.contexts[1], CONTINUE, 0)
    run(stream.proceed())
    assert stream.request.take_output() == b"onetwo"
    assert stream.request.output_ended


def test_plugins_added_later_are_passed_by_the_headers(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    stream = new_stream(first)
    begin(stream, REQUEST)
    stream.add(second.vm, b"")
    assert not stream.request.passed
    run(stream.request.pass_more())

    assert stream.request.passed
    respond(stream, RESPONSE)
    assert second.called[-2:] == ["on_request_headers", "on_response_headers"]
