"""The services of a generation: made from settings, and ended with it."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest
from asgi.guests import Guest

from wasm_middleware.config import load_settings
from wasm_middleware.engines.null import NullEngine
from wasm_middleware.errors import ConfigError
from wasm_middleware.runtime.generation import load_generation
from wasm_middleware.runtime.services import ServiceSet

pytestmark = pytest.mark.anyio


class Engine(NullEngine):
    """Says when it is closed."""

    closed = False

    def close(self):
        self.closed = True


def without_httpcore2(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpcore2", None)
    monkeypatch.delitem(sys.modules, "wasm_middleware.services.callout", raising=False)


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
async def test_a_library_that_is_missing_fails_the_start_with_the_way_out(
    text, place, tmp_path, monkeypatch
):
    without_httpcore2(monkeypatch)
    file = tmp_path / "plugins.yaml"
    file.write_text(text)
    engine = Engine({})

    with pytest.raises(ConfigError) as raised:
        await load_generation(load_settings(file), engine)

    assert str(raised.value) == (
        f"{file}:{place} needs httpcore2, which is not installed"
        " (pip install 'wasm-middleware[http]')"
    )
    assert engine.closed


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
