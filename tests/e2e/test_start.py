"""How a service starts, and how it doesn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Connect, Start
from tests.e2e.modules import write_config
from tests.e2e.serving import ROOT, DidNotStart, uvicorn

APP = "tests.e2e.service:app"


def test_two_workers_start_and_serve(start: Start, connect: Connect, tmp_path: Path) -> None:
    environment = {"WASM_TEST_CONFIG": str(write_config(tmp_path))}
    server = start(uvicorn("--workers", "2"), APP, environment)
    assert [connect(server).get("/every").status for _ in range(8)] == [200] * 8
    assert server.logged("Application startup complete") >= 1
    assert server.stop() in (0, -15)


def test_a_broken_file_ends_the_server_with_every_mistake_printed(
    start: Start, tmp_path: Path
) -> None:
    text = """\
plugins:
  - name: a
    path: no-such.wasm
    timeout: soon
routes:
  - path: /x
    plugins: [b]
"""
    (tmp_path / "plugins.yaml").write_text(text, encoding="utf-8")
    environment = {"WASM_TEST_CONFIG": str(tmp_path / "plugins.yaml")}

    with pytest.raises(DidNotStart) as ended:
        start(uvicorn(), APP, environment)

    log = str(ended.value)
    assert f"{tmp_path}/plugins.yaml:3:11: plugins.0.path: no such file" in log
    assert f"{tmp_path}/plugins.yaml:4:14: plugins.0.timeout:" in log
    assert f"{tmp_path}/plugins.yaml:7:15: routes.0.plugins.0: no plugin has the name 'b'" in log
    assert "Application startup failed" in log
    assert "Traceback" not in log


def test_a_plugin_that_refuses_its_configuration_ends_the_server(
    start: Start, tmp_path: Path
) -> None:
    module = ROOT / "example_app" / "plugins" / "rate-limit.wasm"
    text = f"plugins:\n  - name: rate-limit\n    path: {module}\n    config: nonsense\n"
    (tmp_path / "plugins.yaml").write_text(text, encoding="utf-8")
    environment = {"WASM_TEST_CONFIG": str(tmp_path / "plugins.yaml")}

    with pytest.raises(DidNotStart) as ended:
        start(uvicorn(), APP, environment)

    assert "bad configuration" in str(ended.value)
    assert "plugins.yaml:2:5: plugins.0: plugin 'rate-limit':" in str(ended.value)


def test_a_fail_open_plugin_that_would_not_start_is_left_out(
    start: Start, connect: Connect, tmp_path: Path
) -> None:
    module = ROOT / "example_app" / "plugins" / "rate-limit.wasm"
    entry = f"{{name: rate-limit, path: {module}, config: nonsense, failure_policy: fail_open}}"
    (tmp_path / "plugins.yaml").write_text(f"plugins: [{entry}]\n", encoding="utf-8")
    server = start(uvicorn(), APP, {"WASM_TEST_CONFIG": str(tmp_path / "plugins.yaml")})
    assert connect(server).get("/").status == 200
    assert server.logged("it is fail_open: the service starts without it") == 1
