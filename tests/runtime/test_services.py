"""The services of a generation: made from settings, and ended with it."""

from __future__ import annotations

import logging
import subprocess
import sys

import anyio
import pytest
from asgi.guests import Guest

from wasm_middleware.config import load_settings
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.errors import ConfigError, HostBug
from wasm_middleware.runtime.generation import load_generation
from wasm_middleware.runtime.services import ServiceSet
from wasm_middleware.services import grpc

pytestmark = pytest.mark.anyio


class Engine(NullEngine):
    """Says when it is closed."""

    closed = False

    def close(self):
        self.closed = True


def without_httpcore2(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpcore2", None)
    monkeypatch.delitem(sys.modules, "wasm_middleware.services.callout", raising=False)


def without_grpcio(monkeypatch):
    monkeypatch.setattr(grpc, "INSTALLED", False)


def test_where_nothing_can_be_called_nothing_calls():
    assert ServiceSet(load_settings({"plugins": []})).services.http is None


@pytest.mark.parametrize(
    "config",
    [{"upstreams": {"auth": "http://127.0.0.1:1"}}, {"callouts": {"allow_hosts": ["a:80"]}}],
)
def test_where_something_can_be_called_it_can_be_asked_for(config):
    http = ServiceSet(load_settings({"plugins": [], **config})).services.http
    assert http.refusal("nobody").startswith("there is no upstream 'nobody'")
    assert http.refusal("auth" if "upstreams" in config else "a:80") == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("plugins: []\nupstreams: {a: http://a}\n", "2:12: upstreams:"),
        ("callouts: {allow_hosts: ['a:80']}\nplugins: []\n", "1:11: callouts:"),
    ],
)
async def test_that_both_libraries_are_missing_fails_the_start_with_the_way_out(
    text, place, tmp_path, monkeypatch
):
    without_httpcore2(monkeypatch)
    without_grpcio(monkeypatch)
    file = tmp_path / "plugins.yaml"
    file.write_text(text)
    engine = Engine({})

    with pytest.raises(ConfigError) as raised:
        await load_generation(load_settings(file), engine)

    assert str(raised.value) == (
        f"{file}:{place} needs httpcore2 or, for gRPC, grpcio: neither is installed"
        " (pip install 'wasm-middleware[http]', or [grpc])"
    )
    assert engine.closed


def test_upstreams_for_grpc_alone_need_no_http_and_a_call_says_what_it_would_need(
    monkeypatch, caplog
):
    without_httpcore2(monkeypatch)
    caplog.set_level(logging.DEBUG, "wasm_middleware")
    config = {"plugins": [], "upstreams": {"auth": "http://127.0.0.1:1"}}
    services = ServiceSet(load_settings(config)).services
    needed = "httpcore2 is not installed (pip install 'wasm-middleware[http]')"

    assert services.grpc.knows("auth")
    assert caplog.records == []
    assert [services.http.refusal("auth") for _ in range(2)] == [needed] * 2
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == f"a plugin can't call the upstream 'auth': {needed}"

    with pytest.raises(KeyError):
        services.http.start(None, None)


def test_upstreams_for_http_alone_need_no_grpc(monkeypatch):
    without_grpcio(monkeypatch)
    config = {"plugins": [], "upstreams": {"auth": "http://127.0.0.1:1"}}
    services = ServiceSet(load_settings(config)).services

    assert services.http.refusal("auth") == ""
    assert "pip install 'wasm-middleware[grpc]'" in services.grpc.refusal("auth")


async def test_without_upstreams_the_library_need_not_be_there(monkeypatch, workshop):
    without_httpcore2(monkeypatch)
    workshop.add(Guest)
    generation = await load_generation(load_settings(workshop.config()), workshop.engine())
    await generation.close()


def test_without_upstreams_the_library_is_not_even_imported():
    script = (
        "import sys, wasm_middleware\n"
        "from wasm_middleware.config import load_settings\n"
        "from wasm_middleware.runtime.services import ServiceSet\n"
        "ServiceSet(load_settings({'plugins': []}))\n"
        "assert 'httpcore2' not in sys.modules\n"
        "ServiceSet(load_settings({'plugins': [], 'upstreams': {'a': 'http://a'}}))\n"
        "assert 'httpcore2' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


async def test_a_generation_that_ends_ends_what_runs_in_its_background(workshop):
    workshop.add(Guest)
    generation = await load_generation(load_settings(workshop.config()), workshop.engine())
    background = generation.plugins["guest"].services.background
    log, begun = [], anyio.Event()

    async def forever():
        begun.set()

        try:
            await anyio.sleep_forever()
        finally:
            log.append("ended")

    background.run(forever)
    await begun.wait()
    await generation.close()
    assert log == ["ended"]


async def test_a_service_that_can_not_be_ended_leaves_no_other_open(workshop, caplog):
    workshop.add(Guest)
    settings = load_settings(workshop.config(upstreams={"auth": "http://127.0.0.1:1"}))
    engine = Engine(workshop.modules)
    generation = await load_generation(settings, engine)
    services, ended = generation.plugins["guest"].services, []

    async def fail():
        raise OSError("no good")

    async def end():
        ended.append("grpc")

    services.background.aclose = services.http.aclose = fail
    services.grpc.aclose = end

    with pytest.raises(HostBug) as raised:
        await generation.close()

    assert sorted(str(raised.value).split("; ")) == [
        "the HTTP calls could not be ended: OSError('no good')",
        "what runs in the background could not be ended: OSError('no good')",
    ]
    assert caplog.text.count("OSError: no good") == 2
    assert ended == ["grpc"]
    assert engine.closed
