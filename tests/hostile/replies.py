"""Local replies without end, to each other, and at the wrong time; pauses that nobody ends."""

from __future__ import annotations

from collections.abc import Iterator

from wasm_middleware.abi.pairs import encode

from .case import Case, Ends
from .wat import call, data, plugin, repeat

_PHASES = ("request_headers", "request_body", "response_headers", "response_body")
#: A body callback is only called where the module imports something to read bodies with.
_BODY = f"(func {call('proxy_get_buffer_bytes', 0, 0, 0, 64, 68)})"


def reply(status: int, body: tuple[int, int] = (0, 0), headers: tuple[int, int] = (0, 0)) -> str:
    return call("proxy_send_local_response", status, 0, 0, *body, *headers, -1)


def cases() -> Iterator[Case]:
    for name in _PHASES:
        yield Case(
            f"replies-in-{name}",
            f"sends a thousand local replies in proxy_on_{name}",
            lambda name=name: plugin({name: repeat(reply(418), 1000)}, fields=_BODY),
            Ends.CONTAINED if name == "response_body" else Ends.REPLIED,
            status=418,
            settings={"timeout": "5s"},
        )

    for name in ("log", "done", "delete"):
        yield Case(
            f"replies-in-{name}",
            f"sends a local reply in proxy_on_{name}",
            lambda name=name: plugin({name: reply(418)}),
            Ends.SERVED,
        )

    yield Case(
        "replies-to-replies",
        "replies in each phase, and so to its own replies",
        lambda: plugin({name: reply(418) for name in _PHASES}, fields=_BODY),
        Ends.REPLIED,
        status=418,
    )
    yield Case(
        "replies-at-the-start",
        "sends a local reply in each callback of its root context",
        lambda: plugin(
            always={
                "context_create": f"(if (i32.eqz (local.get $b)) (then {reply(418)}))",
                "vm_start": reply(418),
                "configure": reply(418),
            }
        ),
        Ends.SERVED,
    )
    yield from _odd()
    yield from _pauses()


def _odd() -> Iterator[Case]:
    for status in (0, 99, 100, 101, 600, 1000, 0x7FFF_FFFF, 0xFFFF_FFFF):
        yield Case(
            f"replies-with-status-{status}",
            "sends a local reply with a status that is none, or that ends no answer",
            lambda status=status: plugin({"request_headers": reply(status)}),
            Ends.REPLIED,
            status=500,
        )

    for status in (204, 304):
        yield Case(
            f"replies-{status}-with-a-body",
            "sends a local reply with a body, and a status that has none",
            lambda status=status: plugin({"request_headers": reply(status, body=(16, 7))}),
            Ends.REPLIED,
            status=status,
        )

    lying = encode([(b"content-length", b"999"), (b"transfer-encoding", b"chunked"), (b"a", b"b")])
    breaks = encode([(b"x-a", b"1\r\nx-b: 2"), (b"x y", b"1"), (b":status", b"200"), (b"", b"")])

    for name, raw in {"lying-lengths": lying, "line-breaks": breaks}.items():
        yield Case(
            f"replies-with-{name}",
            f"sends a local reply whose headers have {name.replace('-', ' ')}",
            lambda raw=raw: plugin(
                {"request_headers": reply(418, (16, 7), (1024, len(raw)))},
                fields=data({1024: raw}),
            ),
            Ends.REPLIED,
            status=418,
        )

    for size in (10, 15):
        yield Case(
            f"replies-with-{size}-mib",
            f"sends a local reply of {size} MiB",
            lambda size=size: plugin(
                {
                    "request_headers": "(drop (memory.grow (i32.const 250)))"
                    + reply(418, (0, size << 20))
                }
            ),
            Ends.REPLIED,
            status=418,
            settings={"timeout": "1s"},
        )


def _pauses() -> Iterator[Case]:
    pause = "(return (i32.const 1))"

    for name in _PHASES:
        yield Case(
            f"pauses-in-{name}",
            f"pauses in proxy_on_{name}, and never resumes",
            lambda name=name: plugin({name: pause}, fields=_BODY),
            Ends.CONTAINED if "body" in name else Ends.BREAKS_ABI,
            "" if "body" in name else f"on_{name}",
            "" if "body" in name else "pause",
            settings={"pause_timeout": "50ms"},
        )
        yield Case(
            f"answers-nonsense-in-{name}",
            f"returns an action from proxy_on_{name} that there is none of",
            lambda name=name: plugin({name: "(return (i32.const -1))"}, fields=_BODY),
            Ends.CONTAINED,
            settings={"pause_timeout": "50ms"},
        )
