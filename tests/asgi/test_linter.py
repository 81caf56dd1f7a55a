"""The linter itself: what it is there to find, it finds."""

from __future__ import annotations

import pytest

from .harness import Server, chunks, http_scope, post_scope, respond
from .linter import AsgiLinter

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ab"}
LENGTH = [(b"content-length", b"3")]


def sends(*messages):
    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize(
    ("messages", "finding"),
    [
        ([START, START, BODY], "two starts"),
        ([BODY, START], "a body before the start"),
        ([START, BODY, BODY], "after the response was complete"),
        ([START], "returned without a complete response"),
        ([{**START, "headers": LENGTH}, BODY], "2 bytes, 3 declared"),
        ([{**START, "headers": [(b"content-length", b"1")]}, BODY], "more body than"),
        ([{**START, "headers": LENGTH * 2}, {**BODY, "body": b"abc"}], "two content-lengths"),
        ([{**START, "headers": [(b":status", b"1")]}, BODY], "name of"),
        ([{**START, "headers": [(b"Upper", b"1")]}, BODY], "name of"),
        ([{**START, "headers": [("text", b"1")]}, BODY], "types of"),
        ([{**START, "headers": [(b"a", b"1\r\nb: 2")]}, BODY], "value of"),
        ([{**START, "status": 100}, BODY], "status 100"),
        ([{**START, "status": 204}, BODY], "a body where there is none"),
        ([START, {**BODY, "body": "text"}], "types in the response's body"),
        ([START, {"type": "http.response.trailers", "headers": []}, BODY], "not announced"),
    ],
)
async def test_it_finds_what_an_application_does_wrong(messages, finding):
    linter = AsgiLinter(sends(*messages), "app")

    try:
        await Server(http_scope()).run(linter)
    except TypeError:
        assert "text" in str(messages)

    assert any(finding in violation for violation in linter.violations)


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        (chunks(b"a") * 2, "after the last one"),
        ([{"type": "http.disconnect"}, *chunks(b"abc")], "after the disconnect"),
        (chunks(b"ab"), "2 bytes, b'3' declared"),
        ([{"type": "http.request", "body": "abc"}], "type of the request's body"),
        ([{"type": "websocket.connect"}], "received websocket.connect"),
    ],
)
async def test_it_finds_what_a_server_does_wrong(script, finding):
    async def app(scope, receive, send):
        for _ in script:
            await receive()

        await respond(b"")(scope, receive, send)

    linter = AsgiLinter(app, "server")
    await Server(post_scope(length=3), list(script)).run(linter)
    assert any(finding in violation for violation in linter.violations)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "x", "raw_path": None},
        {"raw_path": b"/y"},
        {"headers": [(b"A", b"")]},
        {"root_path": None},
    ],
)
async def test_it_finds_what_is_wrong_in_a_scope(change):
    linter = AsgiLinter(respond(b""), "scope")
    await Server({**http_scope("/x"), **change}).run(linter)
    assert len(linter.violations) == 1
