"""Calls that an application gives up on, as `asyncio.wait_for` does: nothing of theirs is lost.

A task that is cancelled by asyncio itself is not protected by any of anyio's shields.
"""

from __future__ import annotations

import asyncio

import anyio
import pytest

from .guests import CONTINUE, PAUSE, BodyGuest
from .harness import Server, chunks, http_scope, post_scope, respond
from .test_from_outside import Remote, held, request
from .test_pauses import running

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class RejectBody(BodyGuest):
    def request_body(self, size, end):
        self.reply(422, b"bad body")
        return PAUSE


def gate(server: Server, message_type: str) -> tuple[anyio.Event, anyio.Event]:
    """Events: the server is sending a message of that type; it may go on."""
    sending, go_on = anyio.Event(), anyio.Event()

    async def on_send(message):
        if message["type"] == message_type:
            sending.set()
            await go_on.wait()

    server.on_send = on_send
    return sending, go_on


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_a_receive_that_is_cancelled_does_not_lose_the_reply_that_it_found(workshop):
    workshop.add(RejectBody)
    server = Server(post_scope(), chunks(b"a"))
    sending, go_on = gate(server, "http.response.start")

    async def app(scope, receive, send):
        task = asyncio.ensure_future(receive())
        await sending.wait()
        await cancel(task)
        go_on.set()
        await respond(b"nobody sees this")(scope, receive, send)

    with anyio.fail_after(5):
        await server.run(workshop.wrap(app, trusts_app=True))

    assert (server.status, server.bodies) == (422, [b"bad body"])
    assert workshop.phases("rejectbody").count("delete") == 1


class HoldsBody(Remote):
    def request_body(self, size, end):
        return PAUSE


async def test_a_wait_that_is_cancelled_just_as_the_reply_is_made_does_not_lose_it(workshop):
    """Who waits has been woken then, and is cancelled before it can do anything."""
    workshop.add(HoldsBody)
    answered, done = anyio.Event(), anyio.Event()

    @held
    async def app(scope, receive, send):
        task = asyncio.ensure_future(receive())
        await anyio.wait_all_tasks_blocked()
        reply = asyncio.ensure_future(request(wrapped, "/reply"))
        # Until the guest has replied; the waiter has not run since.
        while workshop.phases("holdsbody").count("request_headers") != 2:
            await asyncio.sleep(0)

        await cancel(task)
        await reply
        answered.set()
        await done.wait()

    wrapped = await workshop.load(workshop.wrap(app, trusts_app=True))
    server = Server(post_scope("/held"), chunks(b"a"))

    async with running(server, wrapped):
        await answered.wait()
        await anyio.wait_all_tasks_blocked()
        assert (server.status, server.body) == (429, b"enough")
        done.set()


async def test_a_last_send_that_is_cancelled_goes_out_when_the_plugin_lets_go(workshop):
    workshop.add(Remote)
    gave_up, done = anyio.Event(), anyio.Event()

    @held
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        task = asyncio.ensure_future(send({"type": "http.response.body", "body": b"first"}))
        await anyio.wait_all_tasks_blocked()
        await cancel(task)
        gave_up.set()
        await done.wait()

    wrapped = await workshop.load(workshop.wrap(app, trusts_app=True))
    server = Server(http_scope("/held"))

    async with running(server, wrapped):
        await gave_up.wait()
        await request(wrapped, "/resume")
        await anyio.wait_all_tasks_blocked()
        assert server.body == b"first"
        done.set()

    assert server.types == ["http.response.start", "http.response.body"]


async def test_a_last_send_that_is_cancelled_while_it_goes_out_still_ends_the_stream(workshop):
    class Looks(BodyGuest):
        def response_body(self, size, end):
            return CONTINUE

    workshop.add(Looks)
    server = Server(http_scope())
    sending, go_on = gate(server, "http.response.body")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        task = asyncio.ensure_future(send({"type": "http.response.body", "body": b"hi"}))
        await sending.wait()
        await cancel(task)
        go_on.set()

    with anyio.fail_after(5):
        await server.run(workshop.wrap(app, trusts_app=True))

    assert workshop.phases("looks")[-3:] == ["log", "done", "delete"]


async def test_the_application_may_return_while_a_reply_to_its_held_body_is_sent(workshop):
    """The start is held back for its content-length: the reply takes its place."""
    workshop.add(Remote)
    done, ended = anyio.Event(), anyio.Event()

    @held
    async def app(scope, receive, send):
        headers = [(b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await done.wait()

    wrapped = await workshop.load(workshop.wrap(app, trusts_app=True))
    server = Server(http_scope("/held"))
    sending, go_on = gate(server, "http.response.start")

    async def run():
        await server.run(wrapped)
        ended.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(request, wrapped, "/reply")
            await sending.wait()
            done.set()
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()
            go_on.set()

    assert (server.status, server.body) == (429, b"enough")


async def test_a_reply_that_comes_with_the_last_of_the_body_comes_too_late(workshop, caplog):
    workshop.add(Remote)
    server = Server(http_scope("/held"))
    sending, go_on = gate(server, "http.response.body")
    app = await workshop.load(workshop.wrap(held(respond(b"all of it"))))

    async with running(server, app):
        await sending.wait()
        await request(app, "/reply")
        go_on.set()

    assert (server.status, server.body) == (200, b"all of it")
    assert "a local reply (429) came too late: the response is over" in caplog.text


async def test_a_server_that_cancels_the_request_does_not_wait_for_its_reply(workshop):
    """A client that does not read must not hold up a server that stops."""
    workshop.add(RejectBody)
    server = Server(post_scope(), chunks(b"a"))
    sending, _ = gate(server, "http.response.start")

    async def app(scope, receive, send):
        await receive()

    with anyio.fail_after(5):
        task = asyncio.ensure_future(server.run(workshop.wrap(app, trusts_app=True)))
        await sending.wait()
        await cancel(task)

    assert task.cancelled()
    assert workshop.phases("rejectbody").count("delete") == 1
