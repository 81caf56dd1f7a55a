"""Plugins in Python: override what one does, and the workshop loads it."""

from __future__ import annotations

import struct
from typing import ClassVar

from wasm_middleware.abi.pairs import encode
from wasm_middleware.abi.signatures import ENV, HOST_CALLS
from wasm_middleware.engines.module_info import ExternKind, Import
from wasm_middleware.engines.null import NullGuest

CONTINUE, PAUSE = 0, 1
REQUEST, RESPONSE = 0, 1
#: Header maps.
REQUEST_HEADERS, RESPONSE_HEADERS = 0, 2


def imports(*without: str) -> tuple[Import, ...]:
    return tuple(
        Import(ENV, call.name, ExternKind.FUNCTION, call.signature)
        for call in HOST_CALLS.values()
        if call.name not in without
    )


_READ_BUFFER = ("proxy_get_buffer_bytes", "proxy_get_buffer_status")


class Guest(NullGuest):
    """A plugin that reads headers only, since it can't read buffers. Override what it does.

    `events` is the workshop's; each callback is noted there as "name phase".
    """

    imports = imports(*_READ_BUFFER, "proxy_set_buffer_bytes")
    events: ClassVar[list[str]] = []
    name: ClassVar[str] = ""
    context = 0

    def configure(self): ...
    def request_headers(self, end): ...
    def request_body(self, size, end): ...
    def response_headers(self, end): ...
    def response_body(self, size, end): ...
    def log(self): ...
    def done(self): ...

    def note(self, what):
        self.events.append(f"{self.name} {what}")

    def enter(self, context, phase):
        self.context = context
        self.note(phase)

    def proxy_on_context_create(self, context, root):
        self.enter(context, "create" if root else "root")

    def proxy_on_vm_start(self, context, size):
        return 1

    def proxy_on_configure(self, context, size):
        self.context = context
        self.config_size = size
        answer = self.configure()
        return True if answer is None else answer

    def proxy_on_request_headers(self, context, count, end):
        self.enter(context, "request_headers")
        return self.request_headers(bool(end))

    def proxy_on_request_body(self, context, size, end):
        self.enter(context, "request_body")
        return self.request_body(size, bool(end))

    def proxy_on_response_headers(self, context, count, end):
        self.enter(context, "response_headers")
        return self.response_headers(bool(end))

    def proxy_on_response_body(self, context, size, end):
        self.enter(context, "response_body")
        return self.response_body(size, bool(end))

    def proxy_on_log(self, context):
        self.enter(context, "log")
        return self.log()

    def proxy_on_done(self, context):
        self.enter(context, "done")
        self.done()
        return 1

    def proxy_on_delete(self, context):
        self.enter(context, "delete")

    # What a plugin may do

    def fetch(self, call, *arguments):
        """Call what hands out bytes; None for any status but OK."""
        where = self.proxy_on_memory_allocate(8)

        if call(*arguments, where, where + 4):
            return None

        return self.memory.read(self.memory.read_u32(where), self.memory.read_u32(where + 4))

    def get(self, name, headers=REQUEST_HEADERS):
        return self.fetch(self.host.proxy_get_header_map_value, headers, *self.text(name))

    def set(self, name, value, headers=REQUEST_HEADERS):
        call = self.host.proxy_replace_header_map_value
        return call(headers, *self.text(name), *self.text(value))

    def add(self, name, value, headers=REQUEST_HEADERS):
        call = self.host.proxy_add_header_map_value
        return call(headers, *self.text(name), *self.text(value))

    def remove(self, name, headers=REQUEST_HEADERS):
        return self.host.proxy_remove_header_map_value(headers, *self.text(name))

    def pairs(self, headers=REQUEST_HEADERS):
        data = self.fetch(self.host.proxy_get_header_map_pairs, headers)
        count = struct.unpack_from("<I", data)[0]
        sizes = struct.unpack_from(f"<{2 * count}I", data, 4)
        position = 4 + 8 * count
        texts = []

        for size in sizes:
            texts.append(data[position : position + size])
            position += size + 1

        return list(zip(texts[::2], texts[1::2], strict=True))

    def set_pairs(self, pairs, headers=REQUEST_HEADERS):
        return self.host.proxy_set_header_map_pairs(headers, *self.text(encode(pairs)))

    def body(self, which):
        return self.fetch(self.host.proxy_get_buffer_bytes, which, 0, 1 << 30)

    def set_body(self, which, value):
        return self.host.proxy_set_buffer_bytes(which, 0, 1 << 30, *self.text(value))

    def reply(self, status=403, body=b"", headers=()):
        texts = (*self.text(b"details"), *self.text(body), *self.text(encode(list(headers))))
        return self.host.proxy_send_local_response(status, *texts, 0xFFFF_FFFF)

    def resume(self, which=REQUEST):
        return self.host.proxy_continue_stream(which)

    def resume_other(self, context, which=REQUEST):
        """Let another context go on, from within a callback of this one."""
        self.host.proxy_set_effective_context(context)
        self.resume(which)
        self.host.proxy_set_effective_context(self.context)

    def config(self):
        return self.fetch(self.host.proxy_get_buffer_bytes, 7, 0, self.config_size)

    def share(self, key, value):
        return self.host.proxy_set_shared_data(*self.text(key), *self.text(value), 0)

    def shared(self, key):
        cas = self.proxy_on_memory_allocate(4)
        where = self.proxy_on_memory_allocate(8)
        call = self.host.proxy_get_shared_data

        if call(*self.text(key), where, where + 4, cas):
            return None

        return self.memory.read(self.memory.read_u32(where), self.memory.read_u32(where + 4))


class BodyReader(Guest):
    """A plugin that reads bodies, but can't change them."""

    imports = imports("proxy_set_buffer_bytes")


class BodyGuest(Guest):
    """A plugin that may change bodies."""

    imports = imports()
