"""`check` on files: what is wrong with them, and what their plugins do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trustme

from tests.cli.conftest import ROOT, Run
from tests.conftest import WASMER
from wasm_middleware import limits
from wasm_middleware.runtime.engines import make_engine

FIVE_MISTAKES = """\
plugins:
  - name: plain
    path: plain.wasm
    timeout: soon
  - name: plain
    path: no-such.wasm
    memory_limt: 16MB
routes:
  - path: private/*
    plugins: [plain]
"""

GOOD = """\
plugins:
  - {name: plain, path: plain.wasm, priority: 5}
  - {name: security-headers, path: security-headers.wasm, priority: 9}
  - {name: redact, path: redact.wasm}
routes:
  - {id: page, path: /page, methods: [GET], plugins: [redact, plain, security-headers]}
  - {id: rest, path: /*, plugins: []}
"""


def test_a_file_with_five_mistakes_names_all_five_with_their_lines(check: Run) -> None:
    result = check(FIVE_MISTAKES)
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    assert [line.split(" ")[0] for line in lines] == [
        "plugins.yaml:4:14:",
        "plugins.yaml:5:11:",
        "plugins.yaml:6:11:",
        "plugins.yaml:7:5:",
        "plugins.yaml:9:11:",
    ]
    assert "plugins.1.path: no such file" in lines[2]
    assert lines[3].endswith("plugins.1.memory_limt: unknown key (did you mean memory_limit?)")
    assert result.stdout == ""


def test_an_engine_that_this_python_has_not_is_a_mistake_in_its_line(
    check: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wasm_middleware.engines.wasmer", None)
    result = check(GOOD + "engine: wasmer\n")

    assert result.exit_code == 1
    assert result.stderr.startswith("plugins.yaml:8:9: engine: wasmer can't be loaded with CPython")
    assert "wheels for CPython up to 3.10; use engine: wasmtime" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_each_engine_that_is_there_runs_the_plugins(check: Run) -> None:
    for engine in ("wasmtime", *WASMER):
        result = check(GOOD + f"engine: {engine}\n")
        assert result.exit_code == 0, result.stderr
        assert f"engine: {engine} " in result.stdout


def test_a_good_file_prints_each_route_with_its_chain_in_request_order(check: Run) -> None:
    result = check(GOOD)
    assert result.exit_code == 0, result.stderr
    assert "  page  GET  /page  security-headers -> plain -> redact" in result.stdout.splitlines()
    assert "  rest  *    /*     no plugin" in result.stdout.splitlines()
    assert result.stdout.splitlines()[-1] == "plugins.yaml: no mistakes"
    assert result.stderr == ""


def test_each_plugin_is_printed_with_abi_bodies_and_phases(check: Run) -> None:
    plugins = check(GOOD).stdout.split("plugins\n")[1].split("\n\n")[0].splitlines()
    assert [" ".join(line.split()) for line in plugins] == [
        "plain ABI 0.2.1 bodies: never seen on_request_headers",
        "security-headers ABI 0.2.1 bodies: never seen on_response_headers",
        "redact ABI 0.2.1 bodies: response may be changed on_response_headers, on_response_body",
    ]


def test_a_file_without_routes_says_what_every_request_passes(check: Run) -> None:
    result = check("plugins: [{name: plain, path: plain.wasm}]\n")
    assert "  every request  *  /*  plain" in result.stdout.splitlines()


def test_a_plugin_that_refuses_its_configuration_is_a_finding_at_its_line(check: Run) -> None:
    result = check(
        "plugins:\n  - name: rate-limit\n    path: rate-limit.wasm\n    config: nonsense\n"
    )
    assert result.exit_code == 1
    assert "ERROR wasm_middleware.plugin.rate-limit: bad configuration" in result.stderr
    assert "plugins.yaml:2:5: plugins.0: plugin 'rate-limit': on_configure answered false" in (
        result.stderr
    )


def test_a_plugin_that_would_not_start_is_a_finding_though_it_is_fail_open(check: Run) -> None:
    result = check("plugins: [{name: refusing, path: refusing.wasm, failure_policy: fail_open}]\n")
    assert result.exit_code == 1
    assert "plugin 'refusing': on_configure answered false" in result.stderr


def test_a_start_that_takes_too_long_is_told_by_the_time_that_it_has(
    check: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "START_TIMEOUT", 0.1)
    result = check("plugins: [{name: spinning, path: spinning.wasm, timeout: 20ms}]\n")
    assert result.exit_code == 1
    assert (
        "it failed in on_configure while it started: it ran for longer than the 0.1 s that a start"
        " has" in result.stderr
    )


def test_an_import_with_a_wrong_type_is_a_finding(check: Run) -> None:
    result = check("plugins: [{name: wrong, path: wrong-type.wasm}]\n")
    assert result.exit_code == 1
    assert "it imports proxy_log with the type I>i, but that is iii>i" in result.stderr


def test_an_import_that_no_abi_has_is_named_and_is_no_finding(check: Run) -> None:
    result = check("plugins: [{name: future, path: unknown-import.wasm}]\n")
    assert result.exit_code == 0
    assert "    imports env.proxy_from_the_future, which no ABI has" in result.stdout


def test_advice_is_given_where_the_file_could_spare_body_calls(check: Run) -> None:
    rust = "plugins: [{name: r, path: rate-limit.wasm, config: {requests_per_second: 1}%s}]\n"
    assert "advice: its imports don't tell" in check(rust % "").stdout
    assert "advice" not in check(rust % ", bodies: false").stdout
    assert "advice" not in check(rust % ", phase: on_request_headers").stdout


def test_a_phase_that_can_never_run_is_warned_of(check: Run) -> None:
    result = check(
        "plugins:\n  - {name: p, path: plain.wasm, phase: [on_request_headers, on_log]}\n"
    )
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: plugins.yaml:2:40: plugins.0.phase: p is never called in on_log "
        "(its module exports no proxy_on_log)\n"
    )


@pytest.mark.parametrize(
    ("keys", "warning"),
    [
        ("timeout: none", "p has no limit of time: a call of it may never end (give it a timeout"),
        ("timeout: none, request_timeout: 1s", ""),
        ("request_timeout: 50ms", ""),
        (
            "request_timeout: 20ms",
            "p may take 20ms in all calls of a request, less than its timeout of 50ms for each",
        ),
    ],
)
def test_limits_of_time_that_are_missing_or_never_count_are_warned_of(
    check: Run, keys: str, warning: str
) -> None:
    result = check(f"plugins:\n  - {{name: p, path: plain.wasm, {keys}}}\n")
    assert result.exit_code == 0
    key = keys.split(":")[0]
    assert result.stderr.startswith(
        f"warning: plugins.yaml:2:{35 + len(key)}: plugins.0.{key}: {warning}" if warning else ""
    )
    assert bool(result.stderr) == bool(warning)


@pytest.mark.parametrize("keys", ["", "scheduling: inline\n"])
def test_the_engine_runs_calls_as_a_server_would(check: Run, keys: str) -> None:
    wanted = "inline" if keys else "sliced"
    engine = make_engine("wasmtime", wanted)
    described, possible = engine.description, engine.suspends
    engine.close()
    result = check(f"{keys}plugins: [{{name: plain, path: plain.wasm}}]\n")
    assert result.stdout.splitlines()[0] == f"engine: {described}"
    assert described.endswith("sliced" if possible else "inline")
    assert ("calls into plugins are not sliced" in result.stderr) == (
        wanted == "sliced" and not possible
    )


UPSTREAMS = """\
plugins: []
upstreams:
  auth: http://127.0.0.1:9000
  audit: {url: https://audit.internal, timeout: 250ms, max_in_flight: 7, response_limit: 2MB}
  pay: {url: https://pay.internal:8443, ca_file: ca.pem}
  near: unix:run/near.sock
callouts:
  allow_hosts: ["api.example:443", "a.example:80"]
"""


def test_what_plugins_may_call_is_listed(check: Run, folder: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
    result = check(UPSTREAMS)
    assert result.exit_code == 0, result.stderr
    *listed, _ = result.stdout.split("plugins may call\n")[1].splitlines()
    assert [" ".join(line.split()) for line in listed] == [
        "auth http://127.0.0.1:9000 plain timeout 5s 1024 at a time answers up to 1MB",
        "audit https://audit.internal:443 TLS, the system's CAs timeout 250ms 7 at a time"
        " answers up to 2MB",
        "pay https://pay.internal:8443 TLS, the CAs of ca.pem timeout 5s 1024 at a time"
        " answers up to 1MB",
        "near unix:run/near.sock plain timeout 5s 1024 at a time answers up to 1MB",
        "a.example:80 http://a.example:80 plain timeout 5s 1024 at a time answers up to 1MB",
        "api.example:443 https://api.example:443 TLS, the system's CAs timeout 5s 1024 at a time"
        " answers up to 1MB",
    ]


def test_what_plugins_may_call_is_in_the_json_too(check: Run, folder: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(folder / "ca.pem"))
    upstreams = json.loads(check(UPSTREAMS, "--format", "json").stdout)["upstreams"]
    assert upstreams[1] == {
        "name": "audit",
        "url": "https://audit.internal:443",
        "tls": "TLS, the system's CAs",
        "timeout": "250ms",
        "max_in_flight": 7,
        "response_limit": "2MB",
    }
    assert [row["name"] for row in upstreams][4:] == ["a.example:80", "api.example:443"]


def test_where_nothing_can_be_called_nothing_is_said_of_it(check: Run) -> None:
    assert "plugins may call" not in check(GOOD).stdout
    assert json.loads(check(GOOD, "--format", "json").stdout)["upstreams"] == []


def test_what_is_odd_in_a_file_is_a_warning(check: Run) -> None:
    result = check("plugins: []\nroutes: [{path: /x, upstream: backend}]\n")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: plugins.yaml:2:")


def test_json_says_the_same_and_keeps_stderr_for_the_log(check: Run) -> None:
    bad = check(FIVE_MISTAKES, "--format", "json")
    assert (bad.exit_code, bad.stderr) == (1, "")
    assert [finding["line"] for finding in json.loads(bad.stdout)["findings"]] == [4, 5, 6, 7, 9]

    good = json.loads(check(GOOD, "--format", "json").stdout)
    assert good["ok"] is True
    assert good["routes"][0]["chain"] == ["security-headers", "plain", "redact"]
    assert good["plugins"][0]["phases"] == ["on_request_headers"]


def test_the_log_level_of_the_command_line_is_that_of_the_file_too(check: Run, run: Run) -> None:
    check(GOOD)
    result = run("--log-level", "debug", "check", "plugins.yaml")
    assert "DEBUG wasm_middleware: compiled plugin 'plain'" in result.stderr


def test_a_file_that_is_not_there_is_wrong_usage(folder: Path, run: Run) -> None:
    result = run("check", "nope.yaml")
    assert result.exit_code == 2
    assert "'nope.yaml' does not exist" in result.stderr


def test_the_example_prints_every_route_and_every_endpoint_with_its_chain(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = run("check", "plugins.yaml", "--app", "example_app.main:app")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    first = "access-log -> security-headers"
    assert result.exit_code == 0, result.stderr

    for line in (
        f"public * /public/* {first} -> add-header",
        f"private * /private/* {first} -> jwt-auth",
        f"echo POST /echo {first} -> json-validator",
        f"limited * /limited {first} -> rate-limit",
        f"page * /page {first} -> redact",
        f"everything-else * /* {first}",
        f"GET /public/hello hello {first} -> add-header",
        f"GET /private/me me {first} -> jwt-auth",
        f"POST /echo echo {first} -> json-validator",
        f"GET /stream stream {first}",
    ):
        assert line in lines

    assert result.stderr == ""
