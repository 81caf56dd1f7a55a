"""A gRPC server for tests: bytes in, bytes out, and a record of what it saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

#: What it sends with each answer.
INITIAL = (("x-initial", "one"), ("x-initial", "two"), ("bytes-bin", b"\x00\xff"))
TRAILING = (("x-trailing", "end"), ("more-bin", b"\xfe\xfd\xfc"))


class Service(grpc.GenericRpcHandler):
    """`/test.Service/<method>`; each method is a method of this class."""

    def __init__(self) -> None:
        #: The metadata of each call, but what grpcio adds, and its deadline in seconds.
        self.metadata: list[list[tuple[str, str | bytes]]] = []
        self.deadlines: list[float | None] = []
        self.received: list[bytes] = []
        self.cancelled = asyncio.Event()
        self.hanging = asyncio.Event()
        self.open = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Break": grpc.stream_stream_rpc_method_handler(self.break_off),
            "Deaf": grpc.stream_stream_rpc_method_handler(self.deaf),
            "Silent": grpc.stream_stream_rpc_method_handler(self.silent),
            "Wait": grpc.stream_stream_rpc_method_handler(self.wait),
        }
        return handlers.get(details.method.removeprefix("/test.Service/"))

    async def begin(self, context) -> None:
        given = [(key, value) for key, value in context.invocation_metadata()]
        self.metadata.append([pair for pair in given if pair[0] != "user-agent"])
        self.deadlines.append(context.time_remaining())
        context.set_trailing_metadata(TRAILING)
        await context.send_initial_metadata(INITIAL)

    async def echo(self, message, context):
        await self.begin(context)
        self.received.append(message)
        return message

    async def refuse(self, message, context):
        await self.begin(context)
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no entry für dich", TRAILING)

    async def hang(self, message, context):
        await self.begin(context)
        await self._hang()

    async def _hang(self) -> None:
        self.hanging.set()

        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def count(self, message, context):
        await self.begin(context)

        for number in range(int(message)):
            yield b"%d" % number

    async def join(self, messages, context):
        await self.begin(context)
        return b"+".join([message async for message in messages])

    async def talk(self, messages, context):
        await self.begin(context)

        async for message in messages:
            yield b"you said " + message

        yield b"bye"

    async def break_off(self, messages, context):
        await self.begin(context)
        yield b"one"
        await context.abort(grpc.StatusCode.DATA_LOSS, "broken", TRAILING)

    async def deaf(self, messages, context):
        """Reads nothing until it is told to."""
        await self.begin(context)
        await self.open.wait()

        async for message in messages:
            self.received.append(message)

        yield b"%d" % sum(map(len, self.received))

    async def silent(self, messages, context):
        """Sends nothing at all."""
        await self._hang()
        yield b""

    async def wait(self, messages, context):
        await self.begin(context)
        yield b"ready"
        await self._hang()


@asynccontextmanager
async def serving(
    address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[tuple[Service, int]]:
    """The service and its port, in the running event loop."""
    service = Service()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([service])

    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)

    await server.start()

    try:
        yield service, port
    finally:
        await server.stop(None)
