"""What comes to a guest from outside of any stream: answers to its calls, ticks, queues.

All of it is delivered to a root context, between calls into the guest and never inside one. What a
delivery brings can be read while its callback runs, from whichever context the guest makes the
effective one meanwhile: the SDKs switch to the stream that made the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wasm_middleware.abi.enums import BufferType, MapType
from wasm_middleware.proxy_wasm.buffers import Buffer
from wasm_middleware.proxy_wasm.headers import HeaderMap


@dataclass(frozen=True, slots=True)
class Delivery:
    """One callback on a root context; `arguments` are those behind the context's id."""

    callback: str
    arguments: tuple[int, ...] = ()
    maps: Mapping[MapType, HeaderMap] = field(default_factory=dict)
    buffers: Mapping[BufferType, Buffer] = field(default_factory=dict)
    #: What `proxy_get_status` answers from now on; None leaves it as it is.
    status: tuple[int, bytes] | None = None


class PendingCall(Protocol):
    """A call that a guest has made and whose answer is to come."""

    def cancel(self) -> None:
        """Give it up: nothing of it is delivered any more."""
