"""Each way of using the middleware that the README names, on uvicorn."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Connect, Start
from tests.e2e.serving import uvicorn
from tests.e2e.wire import Answer


def touched(answer: Answer) -> bool:
    """Whether add-header ran on a request: on both its ways, or else on none."""
    assert answer.status == 200
    by_request = answer.json() == {"x-processed-by": "wasm"}
    assert by_request is (answer.headers.get("x-gateway") == "wasm")
    return by_request


def test_any_asgi_application_can_be_wrapped(start: Start, connect: Connect) -> None:
    wire = connect(start(uvicorn(), "tests.e2e.usages:raw"))
    assert touched(wire.get("/covered/x"))
    assert not touched(wire.get("/elsewhere"))


def test_a_route_can_have_plugins_of_its_own(start: Start, connect: Connect) -> None:
    wire = connect(start(uvicorn(), "tests.e2e.usages:route"))
    assert touched(wire.get("/one"))
    assert not touched(wire.get("/other"))


def test_endpoints_of_an_included_router_can_be_decorated(start: Start, connect: Connect) -> None:
    server = start(uvicorn(), "tests.e2e.usages:decorated")
    wire = connect(server)
    marked = wire.get("/api/marked")
    assert touched(marked)
    assert marked.headers["x-frame-options"] == "DENY"
    assert not touched(wire.get("/api/covered"))
    assert not touched(wire.get("/covered/exempt"))
    assert touched(wire.get("/covered/all"))
    assert server.logged("/api/marked): add-header -> security-headers") == 1


@pytest.mark.parametrize("framework", ["litestar", "quart"])
def test_other_frameworks_can_be_wrapped(framework: str, start: Start, connect: Connect) -> None:
    pytest.importorskip(framework, reason=f"{framework} is not tested: pip install {framework}")
    wire = connect(start(uvicorn(), f"tests.e2e.usages:of_{framework}"))
    assert touched(wire.get("/covered/it"))
