"""What a request leaves behind is freed with it, and not by a full collection, which holds up all
requests for as long as it takes."""

from __future__ import annotations

import gc
from typing import ClassVar

import pytest

from .guests import CONTINUE, PAUSE, REQUEST, RESPONSE, BodyGuest, Guest
from .harness import Server, chunks, echo, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio


class Headers(Guest):
    pass


class Bodies(BodyGuest):
    """Waits for both bodies, and changes them."""

    def request_body(self, size, end):
        if not end:
            return PAUSE

        self.set_body(REQUEST, self.body(REQUEST).upper())
        return CONTINUE

    def response_body(self, size, end):
        if not end:
            return PAUSE

        self.set_body(RESPONSE, self.body(RESPONSE) + b"!")
        return CONTINUE


class Replies(Guest):
    def request_headers(self, end):
        self.reply(403, b"no")


class Waits(Guest):
    """As one does that asks somebody else first."""

    waiting: ClassVar[list[int]] = []

    def configure(self):
        self.host.proxy_set_tick_period_milliseconds(1)

    def request_headers(self, end):
        self.waiting.append(self.context)
        return PAUSE

    def proxy_on_tick(self, root):
        while self.waiting:
            self.host.proxy_set_effective_context(self.waiting.pop())
            self.resume()


class RepliesLate(Guest):
    """While the application runs."""

    def response_headers(self, end):
        self.reply(403, b"no")
        return PAUSE


CASES = {
    "headers": (Headers, 200),
    "bodies": (Bodies, 200),
    "a reply": (Replies, 403),
    "a pause": (Waits, 200),
    "a late reply": (RepliesLate, 403),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_request_leaves_nothing_of_ours_to_collect(workshop, case):
    guest, status = CASES[case]
    workshop.add(guest)
    app = workshop.wrap(echo if guest is Bodies else respond(b"hello"))

    async def request():
        if guest is Bodies:
            return await Server(post_scope(), chunks(b"a", b"b")).run(app)

        return await Server(http_scope()).run(app)

    assert (await request()).status == status
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    try:
        assert (await request()).status == status
        gc.collect()
        left = {type(thing).__qualname__ for thing in gc.garbage if _is_ours(thing)}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert left == set()


def _is_ours(thing: object) -> bool:
    return type(thing).__module__.startswith("wasm_middleware.")
