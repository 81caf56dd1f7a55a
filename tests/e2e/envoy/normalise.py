"""What is not compared, with the reason: what belongs to the wire, and not to plugins."""

from __future__ import annotations

from collections.abc import Iterable

#: Of what the client gets. Whoever speaks HTTP adds these: with us the ASGI server, on both sides
#: after all plugins.
_CLIENT = {
    "date": "Envoy adds it to every response; ASGI servers do if they are asked to",
    "transfer-encoding": "how the body is framed on this connection",
    "connection": "whether this connection goes on",
}
_APPLICATION = {
    "transfer-encoding": "how the body is framed on this connection",
}


def client_headers(headers: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers if name not in _CLIENT]


def application_headers(headers: object) -> list[str]:
    assert isinstance(headers, list)
    return [f"{name}: {value}" for name, value in headers if name not in _APPLICATION]
