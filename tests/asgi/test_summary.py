"""What a start says of what runs where."""

from __future__ import annotations

import logging
import re

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from wasm_middleware import WasmPluginMiddleware, wasm_plugins

from .guests import Guest
from .harness import Server, http_scope

pytestmark = pytest.mark.anyio


async def endpoint(request):
    return PlainTextResponse("hi")


async def summary(workshop, caplog, *endpoints, **options):
    """The lines that the first request finds."""
    app = Starlette(routes=list(endpoints))
    options = {"config": workshop.config(**options), "engine": workshop.engine}
    app.add_middleware(WasmPluginMiddleware, **options)

    with caplog.at_level(logging.INFO, "wasm_middleware"):
        await Server(http_scope()).run(workshop.around(app))

    return [record.getMessage() for record in caplog.records if record.name == "wasm_middleware"]


@pytest.mark.parametrize("routes", [None, [{"path": "/*", "id": "all", "plugins": ["bad", "a"]}]])
async def test_what_was_not_started_is_marked_wherever_it_is_named(workshop, caplog, routes):
    class Bad(Guest):
        def configure(self):
            return False

    workshop.add(Bad, name="bad", failure_policy="fail_open", priority=1)
    workshop.add(Guest, name="a")

    lines = await summary(workshop, caplog, **({} if routes is None else {"routes": routes}))

    assert lines[0].startswith("plugin 'bad': on_configure answered false")
    assert re.search(
        r"fail_open: the service starts without it, and tries again in [01]\.\d s$", lines[0]
    )
    assert lines[1].endswith("; plugins: bad (not started), a")
    chain = "bad (not started) -> a"
    where = "every request" if routes is None else "route all (* /*)"
    assert f"{where}: {chain}" in lines


async def test_an_endpoint_without_plugins_on_some_of_its_paths_is_not_said_to_have_none(
    workshop, caplog, tmp_path
):
    @wasm_plugins("a")
    async def marked(request):
        return PlainTextResponse("hi")

    workshop.add(Guest, name="a")
    lines = await summary(
        workshop,
        caplog,
        Route("/open", endpoint),
        Mount("/files", app=StaticFiles(directory=tmp_path)),
        Mount("/free", app=StaticFiles(directory=tmp_path)),
        Route("/marked/{rest:path}", marked),
        Route("/{rest:path}", endpoint),
        routes=[
            {"path": "/free/*", "plugins": []},
            {"path": "/files/private/*", "plugins": ["a"]},
        ],
    )

    assert "no plugin runs on: GET,HEAD /open, * /free/*" in lines
    assert "no plugin runs on some paths of: * /files/*, GET,HEAD /{rest:path}" in lines


async def test_methods_of_the_file_s_routes_count(workshop, caplog):
    workshop.add(Guest, name="a")
    lines = await summary(
        workshop,
        caplog,
        Route("/{rest:path}", endpoint, methods=["GET", "POST"]),
        routes=[{"path": "/x", "methods": ["POST"], "plugins": ["a"]}],
    )

    assert "no plugin runs on: GET,HEAD /{rest:path}" in lines
    assert "no plugin runs on some paths of: POST /{rest:path}" in lines


async def test_without_routes_there_is_nothing_that_no_plugin_runs_on(workshop, caplog):
    workshop.add(Guest, name="a")
    lines = await summary(workshop, caplog, Route("/{rest:path}", endpoint))

    assert not any(line.startswith("no plugin") for line in lines)
