"""What plugins and the application share, on real servers."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Connect, Start
from tests.e2e.serving import Command, granian, hypercorn, uvicorn

SERVERS = [
    pytest.param(uvicorn(), id="uvicorn"),
    pytest.param(hypercorn, id="hypercorn"),
    pytest.param(granian, id="granian"),
]


@pytest.mark.parametrize("command", SERVERS)
def test_functions_and_properties_are_there(
    command: Command, start: Start, connect: Connect
) -> None:
    server = start(command, "tests.e2e.sharing:app")
    wire = connect(server)

    # On one connection: each request has properties of its own.
    for name, result in (("upper", "ABC"), ("lower", "abc")):
        answer = wire.get("/", f"x-call: {name}", "x-arguments: aBc")
        assert answer.json() == {"result": result, "properties": {"called.function": name}}

    # Two at once, each waiting for a function that waits for both.
    wires = [connect(server), connect(server)]

    for one, text in zip(wires, ("one", "two"), strict=True):
        one.request("GET", "/", "x-call: meet", f"x-arguments: {text}", "x-late: 1")

    answers = [one.answer().json() for one in wires]
    assert answers == [
        {"result": "ONE 0 ", "properties": {}},
        {"result": "TWO 0 ", "properties": {}},
    ]
    assert "Traceback" not in server.log()
