"""`check` and `inspect` on network plugins."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import ROOT, Run

MODULE = ROOT / "tests" / "plugins" / "ws-filter.wasm"
FILE = f"plugins:\n  - {{name: filter, path: {MODULE}, type: network}}\n"


def test_a_network_plugin_says_what_it_sees_of_websockets(check: Run) -> None:
    result = check(FILE)
    assert result.exit_code == 0, result.stderr
    [line] = [line for line in result.stdout.splitlines() if line.startswith("  filter")]
    seen = "websocket data: downstream and upstream may be changed"
    assert line.split("  ")[1:] == ["filter", "ABI 0.2.1", seen, "every phase"]
    assert "advice" not in result.stdout


def test_the_same_for_programs(check: Run) -> None:
    [row] = json.loads(check(FILE, "--format", "json").stdout)["plugins"]
    assert row["type"] == "network"
    assert row["phases"] == [
        "on_new_connection",
        "on_downstream_data",
        "on_upstream_data",
        "on_downstream_connection_close",
        "on_upstream_connection_close",
        "on_log",
    ]


def test_what_means_nothing_for_it_is_warned_of(check: Run) -> None:
    text = (
        "defaults: {type: network}\n"
        f"plugins:\n  - name: filter\n    path: {MODULE}\n"
        "    phase: on_request_headers\n    bodies: true\n"
    )
    result = check(text)
    assert result.exit_code == 0
    assert [line.partition(" has ")[0] for line in result.stderr.splitlines()] == [
        "warning: plugins.yaml:5:12: plugins.0.phase:",
        "warning: plugins.yaml:6:13: plugins.0.bodies:",
    ]


def test_a_module_without_callbacks_for_connections_is_a_mistake(check: Run) -> None:
    result = check("plugins:\n  - {name: plain, path: plain.wasm, type: network}\n")
    assert result.exit_code == 1
    assert "its module exports no callback for connections" in result.stderr
    assert result.stderr.startswith("plugins.yaml:2:")


def test_http_endpoints_don_t_have_it_in_their_chains(folder: Path, check: Run) -> None:
    (folder / "sockets.py").write_text(
        """\
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute
from wasm_middleware import WasmPluginMiddleware


async def endpoint(request): ...


app = Starlette(
    routes=[Route("/page", endpoint), WebSocketRoute("/ws", endpoint)],
    middleware=[Middleware(WasmPluginMiddleware, config="plugins.yaml")],
)
""",
        encoding="utf-8",
    )
    text = FILE + "  - {name: plain, path: plain.wasm}\n"
    rows = json.loads(check(text, "--app", "sockets:app", "--format", "json").stdout)["endpoints"]
    assert {row["path"]: row["chain"] for row in rows} == {
        "/page": ["plain"],
        "/ws": ["filter", "plain"],
    }


def test_a_module_is_told_to_have_callbacks_for_connections(run: Run) -> None:
    result = run("inspect", str(MODULE))
    assert "network  on_new_connection, on_downstream_data" in result.stdout
    found = json.loads(run("inspect", str(MODULE), "--format", "json").stdout)
    assert found["network_phases"][0] == "on_new_connection"
