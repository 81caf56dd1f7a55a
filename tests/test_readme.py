"""The README's examples, run as they stand there."""

from __future__ import annotations

import asyncio
import logging
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.asgi.state import WasmProperties
from wasm_middleware.config import UpstreamSettings, load_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def first_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a newcomer has it after the first screen."""
    (tmp_path / "app.py").write_text(blocks("python")[0])
    (tmp_path / "plugins.yaml").write_text(blocks("yaml")[0])
    shutil.copy(ROOT / "example_app/plugins/add-header.wasm", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_screen_answers_what_it_promises(first_screen: Path) -> None:
    app = runpy.run_path(str(first_screen / "app.py"))["app"]
    promised = blocks("console")[0]

    with TestClient(app) as client:
        response = client.get("/public/hello")

    assert response.status_code == 200
    assert response.text in promised
    assert f"x-gateway: {response.headers['x-gateway']}" in promised
    assert f"content-length: {response.headers['content-length']}" in promised


def test_the_file_that_shows_every_key_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "plugins.yaml"
    file.write_text(blocks("yaml")[1])

    settings = load_settings(file, check_files=False)

    assert settings.warnings == ()
    assert [plugin.name for plugin in settings.plugins] == ["rate-limit"]
    assert settings.plugins[0].timeout == pytest.approx(0.05)


def test_the_file_that_shows_every_key_shows_every_key() -> None:
    text = blocks("yaml")[1]
    fields = load_settings({"plugins": []}).defaults.model_fields_set | set(
        type(load_settings({"plugins": []}).defaults).model_fields
    )
    # What can have one value only says nothing to a reader.
    fields -= {"type", "isolation"}

    missing = [field for field in fields if f"{field}:" not in text]

    assert not missing


def test_the_upstreams_of_the_call_outs_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "plugins.yaml"
    file.write_text(next(block for block in blocks("yaml") if "upstreams:" in block))
    settings = load_settings(file)
    assert [(name, str(entry.url)) for name, entry in settings.upstreams] == [
        ("auth", "http://127.0.0.1:9000"),
        ("audit", "https://audit.internal:8443"),
    ]
    default = UpstreamSettings(url=settings.upstreams[1][1].url)
    assert settings.upstreams[1][1] == default


def test_the_example_of_a_mistake_is_reported_in_those_words(tmp_path: Path) -> None:
    promised = next(block for block in blocks("console") if "has no unit" in block)
    line = promised.splitlines()[1]
    (tmp_path / "add-header.wasm").write_bytes(b"\0asm\1\0\0\0")
    file = tmp_path / "plugins.yaml"
    file.write_text("plugins:\n  - name: add-header\n    path: add-header.wasm\n    timeout: 50\n")

    with pytest.raises(Exception, match="has no unit") as caught:
        load_settings(file)

    assert str(caught.value) == line.replace("plugins.yaml", str(file))


def test_the_plugins_of_the_readme_are_those_of_the_example() -> None:
    rust = (ROOT / "example_app/plugins/add-header/src/lib.rs").read_text()
    body = rust[rust.index("use proxy_wasm") :]

    assert body in README


def test_the_decorator_examples_import_what_there_is() -> None:
    source = next(block for block in blocks("python") if "wasm_exempt" in block)
    setup = "from fastapi import FastAPI\napp = FastAPI()\n"

    namespace: dict[str, object] = {}
    exec(compile(setup + source, "README.md", "exec"), namespace)

    assert callable(namespace["reports"])
    assert callable(namespace["health"])


def test_what_plugins_share_is_shared_as_the_readme_says() -> None:
    """Its plugin sets no property: the middleware is asked what it would give to a request."""
    source = "".join(block for block in blocks("python") if "wasm_properties" in block)
    properties = WasmProperties({(b"auth", b"user"): b"ada"}, {})
    request = SimpleNamespace(state=SimpleNamespace(wasm_properties=properties))
    namespace: dict[str, object] = {"PlainTextResponse": PlainTextResponse}
    exec(compile(source, "README.md", "exec"), namespace)
    response = asyncio.run(namespace["profile"](request))  # type: ignore[operator]

    assert response.body == b"hello ada"


def test_the_foreign_functions_of_the_readme_are_accepted(first_screen: Path) -> None:
    source = next(block for block in blocks("python") if "foreign_functions" in block)
    app = FastAPI()
    namespace = {"app": app, "WasmPluginMiddleware": WasmPluginMiddleware, "database": None}
    exec(compile(source, "README.md", "exec"), namespace)

    # Loads the first screen's plugin with them.
    with TestClient(app) as client:
        assert client.get("/none").status_code == 404


def test_python_shows_a_plugins_messages_once_logging_is_configured(
    first_screen: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = runpy.run_path(str(first_screen / "app.py"))["app"]

    with caplog.at_level(logging.INFO, "wasm_middleware"), TestClient(app):
        pass

    assert any("add-header" in record.getMessage() for record in caplog.records)


def test_the_explain_log_says_what_the_readme_shows(
    first_screen: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(ROOT / "example_app/plugins/jwt-auth.wasm", first_screen)
    file = next(block for block in blocks("yaml") if "log_level: trace" in block)
    (first_screen / "plugins.yaml").write_text(file)
    app = runpy.run_path(str(first_screen / "app.py"))["app"]

    with TestClient(app) as client:
        assert client.get("/public/hello").status_code == 401

    said = [f"{record.name}: {record.getMessage()}" for record in caplog.records]
    shown = blocks("text")[0].splitlines()
    begin = next(index for index, line in enumerate(said) if "enter on_request_headers" in line)
    # How many headers a client sends is its own affair.
    assert [re.sub(r"\d+ headers", "", line) for line in said[begin : begin + len(shown)]] == [
        re.sub(r"\d+ headers", "", line) for line in shown
    ]
