"""The example service, row by row of its table, on real servers."""

from __future__ import annotations

import importlib.util
import itertools
import time
import uuid

import httpx2
import pytest

from tests.conftest import WASMER
from tests.e2e import tokens
from tests.e2e.conftest import Start
from tests.e2e.serving import Command, Server, granian, hypercorn, uvicorn, wait_until
from tests.e2e.wire import Wire

#: What to install for each, and how it is started.
SERVERS: dict[str, tuple[str, Command]] = {
    "uvicorn-h11": ("uvicorn", uvicorn("--http", "h11", "--loop", "asyncio")),
    "uvicorn-httptools": ("httptools uvloop", uvicorn("--http", "httptools", "--loop", "uvloop")),
    "hypercorn": ("hypercorn", hypercorn),
    "granian": ("granian", granian),
    # The same service on the other engine, where there is one.
    **dict.fromkeys(WASMER, ("wasmer", uvicorn())),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, start: Start) -> Server:
    """The example on each server that is installed."""
    needs, command = SERVERS[request.param]
    missing = [name for name in needs.split() if importlib.util.find_spec(name) is None]

    if missing:
        pytest.skip(f"{request.param} is not tested: pip install {' '.join(missing)}")

    environment = {"WASM_ENGINE": "wasmer"} if request.param in WASMER else None
    return start(command, "example_app.main:app", environment)


def get(server: Server, path: str, **headers: str) -> httpx2.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.get(server.url + path, headers=given, timeout=20, trust_env=False)


def test_a_request_and_its_response_get_a_header(server: Server) -> None:
    response = get(server, "/public/hello")
    assert response.status_code == 200
    assert response.headers["x-gateway"] == "wasm"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.json() == {"message": "hello", "x-processed-by": "wasm"}


def test_a_valid_token_tells_the_application_who_it_is(server: Server) -> None:
    response = get(server, "/private/me", authorization=f"Bearer {tokens.token()}")
    assert response.status_code == 200
    assert response.json() == {"user": "alice"}


def test_a_client_can_not_say_who_it_is(server: Server) -> None:
    token = f"Bearer {tokens.token()}"
    response = get(server, "/private/me", authorization=token, x_user_id="mallory")
    assert response.json() == {"user": "alice"}
    assert get(server, "/private/me", x_user_id="mallory").status_code == 401


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        ("", "missing bearer token"),
        ("Basic YTpi", "missing bearer token"),
        ("Bearer nonsense", "malformed token"),
        (f"Bearer {tokens.token(expires_in=-60)}", "token expired"),
        (f"Bearer {tokens.unsigned()}", "unsupported algorithm"),
        (f"Bearer {tokens.tampered()}", "invalid signature"),
        (f"Bearer {tokens.token(secret='another')}", "invalid signature"),
    ],
    ids=["none", "basic", "nonsense", "expired", "none-alg", "tampered", "other-secret"],
)
def test_a_bad_token_is_refused(server: Server, authorization: str, error: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    response = get(server, "/private/me", **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json() == {"error": error}


def test_a_body_that_is_json_arrives_whole(server: Server) -> None:
    value = {"numbers": list(range(20_000)), "text": "ä" * 1000}
    response = httpx2.post(server.url + "/echo", json=value, timeout=20, trust_env=False)
    assert response.status_code == 200
    assert response.json() == value


def test_a_body_in_many_small_chunks_arrives_whole(wire: Wire) -> None:
    text = b'{"chunked": [1, 2, 3], "more": "' + b"x" * 40 + b'"}'
    wire.request("POST", "/echo", "content-type: application/json", "transfer-encoding: chunked")
    wire.send_chunks(text[at : at + 1] for at in range(len(text)))
    answer = wire.answer()
    assert answer.status == 200
    assert answer.json() == {"chunked": [1, 2, 3], "more": "x" * 40}
    assert wire.get("/public/hello").status == 200


@pytest.mark.parametrize("body", [b"{", b"[1,]", b"\xff", b"{}{}"])
def test_a_body_that_is_not_json_is_refused_and_the_connection_lives_on(
    wire: Wire, body: bytes
) -> None:
    for _ in range(2):
        wire.request("POST", "/echo", body=body)
        answer = wire.answer()
        assert (answer.status, answer.json()) == (400, {"error": "invalid JSON"})

    assert wire.get("/public/hello").status == 200


def test_a_client_that_is_too_fast_is_told_to_wait_and_then_let_in_again(server: Server) -> None:
    statuses = [get(server, "/limited").status_code for _ in range(5)]
    assert statuses == [200] * 5

    # A slow machine may have earned a token or two meanwhile.
    refused = next(
        response for _ in range(40) if (response := get(server, "/limited")).status_code != 200
    )
    assert refused.status_code == 429
    assert refused.json() == {"error": "rate limit exceeded"}
    assert int(refused.headers["retry-after"]) >= 1
    assert wait_until(lambda: get(server, "/limited").status_code == 200, within=15)


def test_the_page_is_redacted_and_its_length_is_true(wire: Wire) -> None:
    answer = wire.get("/page")
    assert answer.status == 200
    assert b"secret" not in answer.body
    assert answer.body.count(b"[redacted]") == 2
    assert answer.headers["content-length"] == str(len(answer.body))
    # A wrong length would make nonsense of what follows.
    assert wire.get("/page").body == answer.body


def test_events_arrive_one_by_one(wire: Wire) -> None:
    wire.request("GET", "/stream?events=4&interval=0.3")
    arrived = []
    assert wire.head().status == 200

    for number, event in enumerate(wire.chunks()):
        arrived.append(time.monotonic())
        assert event == f"data: {number}\n\n".encode()

    # Held back until the end, they would all come at once.
    gaps = [after - before for before, after in itertools.pairwise(arrived)]
    assert len(gaps) == 3
    assert sum(gap > 0.1 for gap in gaps) >= 2


def test_a_client_that_goes_away_in_a_stream_does_no_harm(server: Server) -> None:
    name = f"/stream?events=1000&interval=0.05&{uuid.uuid4()}"

    with Wire(server.connect()) as wire:
        wire.request("GET", name)
        assert wire.head().status == 200
        assert next(wire.chunks()) == b"data: 0\n\n"

    assert server.logged(f"access-log: GET {name} 200") == 1
    assert get(server, "/public/hello").status_code == 200
    assert "Traceback" not in server.log()


def test_each_request_is_logged_once(server: Server) -> None:
    for path, status in (("/public/hello", 200), ("/private/me", 401), ("/nowhere", 404)):
        name = f"{path}?{uuid.uuid4()}"
        assert get(server, name).status_code == status
        assert server.logged(f"access-log: GET {name} {status} ") == 1


def test_a_plugin_that_rejects_by_the_headers_does_not_ask_for_the_body(
    wire: Wire, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["server"] == "hypercorn":
        pytest.skip("hypercorn asks for the body before the application runs")

    wire.request("POST", "/private/me", "expect: 100-continue", "content-length: 10")
    # A 100 would be the first thing to arrive.
    assert wire.answer().status == 401


def test_a_body_is_asked_for_when_a_plugin_wants_it(wire: Wire) -> None:
    wire.request("POST", "/echo", "expect: 100-continue", "content-length: 2")
    assert wire.head().status == 100
    wire.send(b"[]")
    answer = wire.answer()
    assert (answer.status, answer.body) == (200, b"[]")


def test_a_connection_lives_on_after_a_local_reply(wire: Wire) -> None:
    for _ in range(3):
        assert wire.get("/private/me").status == 401
        assert wire.get("/public/hello").status == 200


def test_head_is_covered_as_get_is(wire: Wire) -> None:
    wire.request("HEAD", "/private/me")
    answer = wire.head()
    assert answer.status == 401
    assert wire.get("/public/hello").status == 200


@pytest.mark.parametrize("path", ["//private/me", "/public/../private/me", "/private/%6de"])
def test_no_spelling_of_a_path_gets_past_its_plugin(wire: Wire, path: str) -> None:
    answer = wire.get(path)
    assert answer.status in (401, 404)
    assert b"user" not in answer.body


def test_the_log_has_no_traceback_when_all_is_done(server: Server) -> None:
    assert "Traceback" not in server.log()
