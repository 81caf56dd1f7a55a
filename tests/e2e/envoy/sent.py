"""Requests that many cases send."""

from __future__ import annotations

from typing import Final

from tests.e2e.envoy.shapes import Answer, Request

PLAIN: Final = Request()
ONE: Final = Request(headers=(("x-a", "1"),))
TWO: Final = Request(headers=(("x-a", "1"), ("x-b", "b"), ("x-a", "2")))
CASED: Final = Request(headers=(("X-Upper", "One"), ("x-UPPER", "Two")))
QUERY: Final = Request(path="/a/b%20c?x=1&y=%2F")
POST: Final = Request(method="POST", chunks=(b"hello world",))
CHUNKS: Final = Request(method="POST", chunks=(b"one ", b"two ", b"three"))
STREAM: Final = Request(answer=Answer(chunks=(b"one ", b"two ", b"three")))
ANSWER_TWO: Final = Request(
    answer=Answer(headers=(("x-a", "1"), ("X-Upper", "up"), ("x-b", "b"), ("x-a", "2")))
)
DATED: Final = Request(
    headers=(("x-a", "1"),), answer=Answer(headers=(("date", "Sat, 01 Jan 2000 00:00:00 GMT"),))
)
COOKIES: Final = Request(answer=Answer(headers=(("set-cookie", "a=1"), ("set-cookie", "b=2"))))
EMPTY: Final = Request(answer=Answer(chunks=()))
HEADER_EMPTY: Final = Request(headers=(("x-empty", ""),), answer=Answer(headers=(("x-none", ""),)))
HIGH: Final = Request(
    headers=(("x-a", b"caf\xe9 \xff"),), answer=Answer(headers=(("x-b", b"\xfe\x80"),))
)
#: Nobody reads its body.
UNREAD: Final = Request(method="POST", chunks=(b"hello world",), answer=Answer(unasked=True))
GO_THEN_NOT: Final = (Request(headers=(("x-go", "1"),)), PLAIN)
