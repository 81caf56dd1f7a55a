"""How much of the machine's stack a guest may have.

wasmer runs guests on the stack of the thread that calls them, and ends them at its end with a
signal's handler. If that comes while a host call runs, the handler jumps over Python's own frames,
and the interpreter is broken from then on: it was seen to lose count of its recursion. So guests
end well before, by counting (`engines.metering`).
"""

from __future__ import annotations

import ctypes
import sys
import threading

from wasm_middleware import limits

#: What threads have where nobody says otherwise, and what guests have half of at most.
_USUAL = 8 * limits.MIB
#: The rest is Python's: host calls run on top of the guest.
_PART = 2
#: More than `pthread_attr_t` takes anywhere.
_ATTRIBUTES = 256


def _size() -> int:
    """What the system says that this thread has; 0 where it does not say."""
    if not sys.platform.startswith("linux"):
        return 0

    attributes = ctypes.create_string_buffer(_ATTRIBUTES)
    address, size = ctypes.c_void_p(), ctypes.c_size_t()
    library = ctypes.CDLL(None)
    library.pthread_self.restype = ctypes.c_ulong

    if library.pthread_getattr_np(ctypes.c_ulong(library.pthread_self()), attributes):
        return 0

    library.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    return size.value


def _limit() -> int:
    # Not at the top: there is none on Windows.
    try:
        import resource
    except ImportError:
        return limits.MIB

    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    # Then glibc gives threads so much.
    return 2 * limits.MIB if soft == resource.RLIM_INFINITY else soft


class _Thread(threading.local):
    """Asked for once: the system takes a millisecond to say it of the main thread."""

    def __init__(self) -> None:
        size = _size() or min(threading.stack_size() or _USUAL, _limit())
        self.guest = min(_USUAL, size) // _PART


_THREAD = _Thread()


def guest_stack() -> int:
    """In bytes: half of what this thread has, or can be expected to have."""
    return _THREAD.guest
