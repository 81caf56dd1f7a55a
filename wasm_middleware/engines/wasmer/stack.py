"""How much of the machine's stack a guest may have.

wasmer runs guests on the stack of the thread that calls them, and ends them at its end with a
signal's handler. If that comes while a host call runs, the handler jumps over Python's own frames,
and the interpreter is broken from then on: it was seen to lose count of its recursion. So guests
end well before, by counting (`engines.metering`).
"""

from __future__ import annotations

import threading

from wasm_middleware import limits

#: What threads have where nobody says otherwise.
_USUAL = 8 * limits.MIB
#: The rest is Python's: host calls run on top of the guest.
_PART = 2


def guest_stack() -> int:
    """In bytes: half of what this thread can be expected to have."""
    return min(_USUAL, threading.stack_size() or _USUAL, _limit()) // _PART


def _limit() -> int:
    # Not at the top: there is none on Windows.
    try:
        import resource
    except ImportError:
        return limits.MIB

    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    # Then glibc gives threads so much.
    return 2 * limits.MIB if soft == resource.RLIM_INFINITY else soft
