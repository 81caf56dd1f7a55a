"""`check --app`: what runs on each endpoint, and what can't be known of an application."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

pytest.importorskip("starlette")

FILE = """\
plugins:
  - {name: plain, path: plain.wasm}
  - {name: redact, path: redact.wasm}
routes:
  - {path: /page, plugins: [redact]}
"""

APP = """\
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from wasm_middleware import WasmPluginMiddleware, wasm_exempt, wasm_plugins

async def page(request): ...

@wasm_exempt
async def open_page(request): ...

@wasm_plugins("plain")
async def marked(request): ...

mount = Mount("/m", routes=[Route("/x", marked)])
routes = [Route("/page", page), Route("/open", open_page), mount]
OURS = Middleware(WasmPluginMiddleware, config="plugins.yaml")
app = Starlette(routes=routes, middleware=[OURS])
%s
"""


def write(folder: Path, more: str = "") -> None:
    (folder / "service.py").write_text(APP % more, encoding="utf-8")


def test_each_endpoint_is_listed_with_its_chain(folder: Path, check: Run) -> None:
    write(folder)
    result = check(FILE, "--app", "service:app")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert (result.exit_code, result.stderr) == (0, "")
    assert "GET,HEAD /page page redact" in lines
    assert "GET,HEAD /open open_page no plugin" in lines
    assert "GET,HEAD /m/x marked plain" in lines


def test_what_no_plugin_covers_is_listed(folder: Path, check: Run) -> None:
    write(folder)
    result = check(FILE, "--app", "service:app")
    uncovered = result.stdout.split("no plugin runs on\n")[1].splitlines()
    assert "  GET,HEAD  /open" in uncovered
    assert not any("/page" in line for line in uncovered)
    report = json.loads(check(FILE, "--app", "service:app", "--format", "json").stdout)
    assert "GET,HEAD /open" in report["uncovered"]


def test_an_endpoint_whose_paths_have_several_chains_shows_them_all(
    folder: Path, check: Run
) -> None:
    write(folder, 'app.router.routes.append(Route("/{rest:path}", page))')
    result = check(FILE, "--app", "service:app")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "GET,HEAD /{rest:path} page no plugin, or redact" in lines
    nowhere, somewhere = result.stdout.split("no plugin runs on\n")[1].split(
        "no plugin runs on some paths of\n"
    )
    assert "/{rest:path}" not in nowhere
    assert somewhere.splitlines()[0] == "  GET,HEAD  /{rest:path}"
    report = json.loads(check(FILE, "--app", "service:app", "--format", "json").stdout)
    assert report["partly_uncovered"] == ["GET,HEAD /{rest:path}"]
    assert not any("rest" in line for line in report["uncovered"])
    assert report["endpoints"][-1]["other_chains"] == [["redact"]]


def test_a_marker_that_names_no_plugin_is_a_finding(folder: Path, check: Run) -> None:
    write(folder, 'wasm_plugins("redcat")(page)')
    result = check(FILE, "--app", "service:app")
    assert result.exit_code == 1
    assert (
        "@wasm_plugins on page (/page) names 'redcat', which is no plugin of this file "
        "(did you mean 'redact'?)"
    ) in result.stderr


def test_a_chain_that_the_middleware_was_given_is_the_chain_of_all_endpoints(
    folder: Path, check: Run
) -> None:
    write(folder, 'app = WasmPluginMiddleware(app, config="plugins.yaml", plugins=["plain"])')
    lines = [
        " ".join(line.split()) for line in check(FILE, "--app", "service:app").stdout.splitlines()
    ]
    assert "GET,HEAD /page page plain" in lines
    assert "GET,HEAD /open open_page plain" in lines


@pytest.mark.parametrize(
    ("order", "warned"),
    [("[OURS, Middleware(GZipMiddleware)]", True), ("[Middleware(GZipMiddleware), OURS]", False)],
)
def test_a_compressing_middleware_inside_ours_is_warned_of(
    order: str, warned: bool, folder: Path, check: Run
) -> None:
    write(folder, f"app = Starlette(routes=routes, middleware={order})")
    result = check(FILE, "--app", "service:app")
    assert result.exit_code == 0
    assert (
        "GZipMiddleware is inside WasmPluginMiddleware, so redact would" in result.stderr
    ) is warned


def test_an_application_without_our_middleware_is_warned_of(folder: Path, check: Run) -> None:
    write(folder, "app = Starlette(routes=routes)")
    assert "it has no WasmPluginMiddleware" in check(FILE, "--app", "service:app").stderr


def test_a_middleware_that_reads_another_file_is_warned_of(folder: Path, check: Run) -> None:
    other = 'middleware=[Middleware(WasmPluginMiddleware, config="other.yaml")]'
    write(folder, f"app = Starlette(routes=routes, {other})")
    stderr = check(FILE, "--app", "service:app").stderr
    assert "its WasmPluginMiddleware reads other.yaml, not plugins.yaml" in stderr


def test_the_lifespan_of_the_application_is_not_run(folder: Path, check: Run) -> None:
    write(
        folder,
        "def lifespan(app): raise SystemExit('started')\napp.router.lifespan_context = lifespan",
    )
    assert check(FILE, "--app", "service:app").exit_code == 0


def test_what_an_application_prints_does_not_spoil_the_json(folder: Path, check: Run) -> None:
    write(folder, "print('hello from the import')")
    result = check(FILE, "--app", "service:app", "--format", "json")
    assert json.loads(result.stdout)["ok"] is True
    assert "hello from the import" in result.stderr


def test_a_factory_is_called_with_parentheses_and_suggested_without(
    folder: Path, check: Run
) -> None:
    write(folder, "def make(): return app")
    assert "/m/x" in check(FILE, "--app", "service:make()").stdout
    result = check(FILE, "--app", "service:make")
    assert result.exit_code == 2
    assert "'service:make': make is a factory: write service:make()" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("service", "'service' names no application: write module:attribute, as for uvicorn"),
        ("servcie:app", "there is no module 'servcie' in "),
        ("service:ap", "'service:ap': there is no 'ap' in it"),
        ("service:routes", "'service:routes' is a list, not an ASGI application"),
    ],
)
def test_a_name_that_stands_for_no_application_is_wrong_usage(
    name: str, message: str, folder: Path, check: Run
) -> None:
    write(folder)
    result = check(FILE, "--app", name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('no DATABASE_URL')", "SystemExit: no DATABASE_URL"),
    ],
)
def test_an_application_that_fails_is_a_finding_with_its_line(
    code: str, message: str, folder: Path, check: Run
) -> None:
    write(folder, f"\n\n{code}")
    line = len((folder / "service.py").read_text(encoding="utf-8").splitlines())
    result = check(FILE, "--app", "service:app")
    assert result.exit_code == 1
    assert f"service:app: service.py:{line}: importing 'service' failed: {message}" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_application_of_another_framework_is_said_to_have_no_endpoints(
    folder: Path, check: Run
) -> None:
    (folder / "raw.py").write_text("async def app(scope, receive, send): ...\n", encoding="utf-8")
    result = check(FILE, "--app", "raw:app")
    assert result.exit_code == 0
    assert "raw:app: its endpoints can't be listed" in result.stderr
