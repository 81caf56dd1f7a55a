"""What a file that is wrong is answered with: every mistake, in full."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.config import PluginSettings, RouteSettings, Settings, load_settings
from wasm_middleware.errors import ConfigError

from .conftest import Mistakes

LATER = "not available in this version of wasm-middleware"


def test_a_file_with_five_mistakes_is_answered_with_all_five(mistakes: Mistakes) -> None:
    text = """\
plugins:
  - name: auth
    path: a.wasm
    priorty: 100
    timeout: 50
  - name: auth
    path: plugins/nope.wasm
    environment: {HOME: "${NOPE_UNSET}"}
routes:
  - path: /private/*
    plugins: [auht]
"""
    folder = Path.cwd()
    assert mistakes(text) == [
        "plugins.yaml:4:5: plugins.0.priorty: unknown key (did you mean priority?)",
        "plugins.yaml:5:14: plugins.0.timeout: 50 has no unit"
        " (write 50ms; the units are us, ms, s, m, h)",
        "plugins.yaml:6:11: plugins.1.name: another plugin has the name 'auth'"
        " (the first is at line 2)",
        f"plugins.yaml:7:11: plugins.1.path: no such file: '{folder}/plugins/nope.wasm'",
        "plugins.yaml:8:25: plugins.1.environment.HOME: the environment variable NOPE_UNSET"
        " is not set (set it, or write ${NOPE_UNSET:-default})",
    ]


def test_a_misspelled_plugin_on_a_route_is_told_with_the_rest(mistakes: Mistakes) -> None:
    text = """\
plugins: [{name: auth, path: a.wasm, priority: high}]
routes:
  - path: /private/*
    plugins: [auht, {name: nothing-like-it}, auth, {name: auth}]
"""
    assert mistakes(text) == [
        "plugins.yaml:1:48: plugins.0.priority: expected a whole number, got 'high'",
        "plugins.yaml:4:15: routes.0.plugins.0: no plugin has the name 'auht' (did you mean auth?)",
        "plugins.yaml:4:28: routes.0.plugins.1.name: no plugin has the name 'nothing-like-it'"
        " (define it under plugins)",
        "plugins.yaml:4:59: routes.0.plugins.3.name: the route has 'auth' twice"
        " (the first is at line 4)",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mandatory: yes", "16: plugins.0.mandatory: expected true or false, got 'yes'"
         " (write true or false)"),
        ("mandatory: 1", "16: plugins.0.mandatory: expected true or false, got 1"),
        ("mandatory:", "15: plugins.0.mandatory: has no value, expected true or false"
         " (or remove the key)"),
        ("sha256: abc", "13: plugins.0.sha256: expected 64 hexadecimal digits, got 'abc'"
         " (see sha256sum)"),
        ("sha256: 123", "13: plugins.0.sha256: expected 64 hexadecimal digits, got 123"
         " (put it in quotes)"),
        ("sha256:", "12: plugins.0.sha256: has no value, expected 64 hexadecimal digits"
         " (or remove the key)"),
        ("phase: on_request", "12: plugins.0.phase: expected one of on_request_headers,"
         " on_request_body, on_response_headers, on_response_body, on_log, got 'on_request'"
         " (did you mean on_request_body?)"),
        ("phase: [on_log, on_log]", "21: plugins.0.phase.1: 'on_log' stands here twice"),
        ("phase: []", "12: plugins.0.phase: is empty (remove the key for all of them)"),
        ("phase: [5]", "13: plugins.0.phase.0: expected one of on_request_headers,"
         " on_request_body, on_response_headers, on_response_body, on_log, got 5"),
        ("priority: 010", "15: plugins.0.priority: expected a whole number, got '010'"),
        ("priority: 1.5", "15: plugins.0.priority: expected a whole number, got 1.5"),
        ("priority: true", "15: plugins.0.priority: expected a whole number, got true"),
        ("priority: 3000000000", "15: plugins.0.priority: 3000000000 is out of bounds,"
         " expected -2147483648 to 2147483647"),
        ("memory_limit: 1KB", "19: plugins.0.memory_limit: '1KB' is out of bounds,"
         " expected 64KB to 4GB"),
        ("pause_timeout: none", "20: plugins.0.pause_timeout: expected a duration such as 50ms,"
         " got 'none' (write 50ms; the units are us, ms, s, m, h)"),
        ("bodies: maybe", "13: plugins.0.bodies: expected auto, true or false, got 'maybe'"
         " (write auto, true or false)"),
        ("type: tcp", "11: plugins.0.type: expected http or network, got 'tcp'"),
        ("isolation: request",
         f"16: plugins.0.isolation: 'request' is {LATER} (use isolation: shared)"),
        ("log_level: INFO", "16: plugins.0.log_level: expected one of trace, debug, info, warn,"
         " error, critical, got 'INFO' (did you mean info?)"),
        ("failure_policy: open", "21: plugins.0.failure_policy: expected fail_closed or fail_open,"
         " got 'open' (did you mean fail_open?)"),
        ("instances: 2", "16: plugins.0.instances: expected a mapping, got 2"
         " (with the keys min, max)"),
        ("instances: {min: 65}", "22: plugins.0.instances.min: 65 is out of bounds,"
         " expected 1 to 64"),
        ("instances: {min: 1, mix: 2}", "25: plugins.0.instances.mix: unknown key"
         " (did you mean min?)"),
        ("instances: {size: 2}", "17: plugins.0.instances.size: unknown key (known: min, max)"),
        ("instances: {max: 1001}", "22: plugins.0.instances.max: 1001 is out of bounds,"
         " expected 1 to 1000"),
        ("instances: {min: 3, max: 2}", "30: plugins.0.instances.max: 2 is less than min,"
         " which is 3"),
        ("environment: [A]", "18: plugins.0.environment: expected a mapping of names to text,"
         " got a list"),
        ('environment: {"A=B": c}', "19: plugins.0.environment.A=B: not a name for an"
         " environment variable"),
        ('environment: {A: "\\0"}', "22: plugins.0.environment.A: holds a NUL character"),
        ("environment: {A: [b]}", "22: plugins.0.environment.A: expected text, got a list"),
        ("environment: {A: ~}", "22: plugins.0.environment.A: has no value, expected text"
         " (or remove the key)"),
        ("allowed_capabilities: proxy_log", "27: plugins.0.allowed_capabilities: expected a list"
         " of host calls such as [proxy_log], got 'proxy_log'"),
        ("allowed_capabilities: [proxy-log]", "28: plugins.0.allowed_capabilities.0: expected a"
         " host call or callback such as proxy_log, got 'proxy-log' (did you mean proxy_log?)"),
        ("allowed_capabilities:", "26: plugins.0.allowed_capabilities: has no value, expected a"
         " list of host calls such as [proxy_log] (or remove the key)"),
        ('vm_id: "a\\nb"', "12: plugins.0.vm_id: expected text, got 'a\\nb'"
         " (without control characters)"),
        ("root_id: 5", "14: plugins.0.root_id: expected text, got 5 (put it in quotes)"),
        ("config: {a: [.nan]}", "18: plugins.0.config.a.0: nan is not a number in JSON"
         " (put it in quotes)"),
        ("config: 1e999", "13: plugins.0.config: inf is not a number in JSON (put it in quotes)"),
        ("grants: {}", f"5: plugins.0.grants: is {LATER} (remove it)"),
        ("request_timeout: 10",
         "22: plugins.0.request_timeout: 10 has no unit"
         " (write 50ms; the units are us, ms, s, m, h)"),
        ("memoryLimit: 1MB", "5: plugins.0.memoryLimit: unknown key (did you mean memory_limit?)"),
        ("zzz: 1", "5: plugins.0.zzz: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_plugin_is_explained(
    line: str, message: str, plugin_mistakes: Mistakes
) -> None:
    assert plugin_mistakes(line) == [f"plugins.yaml:4:{message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("engine: v8", "9: engine: expected wasmtime or wasmer, got 'v8'"),
        ("reload: watch", f"9: reload: 'watch' is {LATER} (use reload: off)"),
        ("reload: true", "9: reload: expected off, got true"),
        ("scheduling: slices",
         "13: scheduling: expected sliced or inline, got 'slices' (did you mean sliced?)"),
        ("shared_data: redis://u:pass@h/0",
         f"14: shared_data: 'redis://…' is {LATER} (use shared_data: memory://)"),
        ("shared_data: sqlite:///x.db",
         f"14: shared_data: 'sqlite://…' is {LATER} (use shared_data: memory://)"),
        ("shared_data: mysql://u:pass@h", "14: shared_data: expected memory://, got 'mysql://…'"),
        ("metrics: {}", f"1: metrics: is {LATER} (remove it)"),
        ("secrets: {}", f"1: secrets: is {LATER} (give them in a plugin's config, as ${{NAME}})"),
        ("plugin: []", "1: plugin: unknown key (did you mean plugins?)"),
        ("defaults: {name: a}", "12: defaults.name: has no default (each plugin has its own)"),
        ("defaults: {url: a}", f"12: defaults.url: is {LATER} (download the module, and use path)"),
        ("defaults: {timeout: 5}", "21: defaults.timeout: 5 has no unit"
         " (write 50ms; the units are us, ms, s, m, h)"),
        ("defaults: [a]", "11: defaults: expected a mapping, got a list (with the keys mandatory,"
         " phase, priority, …)"),
        ("routes:", "8: routes: has no value, expected a list (start each item with a dash)"),
    ],
)  # fmt: skip
def test_a_wrong_field_at_the_top_is_explained(line: str, message: str, mistakes: Mistakes) -> None:
    assert mistakes(f"plugins: []\n{line}\n") == [f"plugins.yaml:2:{message}"]


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ("", "1:9: plugins: has no value, expected a list (start each item with a dash)"),
        ("{auth: {path: a.wasm}}",
         "1:10: plugins: expected a list, got a mapping (start each item with a dash)"),
        ("auth", "1:10: plugins: expected a list, got 'auth' (start each item with a dash)"),
        ("[auth]", "1:11: plugins.0: expected a mapping, got 'auth' (with the keys name, path)"),
        ("[~]", "1:11: plugins.0: has no value, expected a mapping (with the keys name, path)"),
        ("[{path: a.wasm}]", "1:11: plugins.0.name: is missing"),
        ("[{name: a}]", "1:11: plugins.0.path: is missing"),
        ("[{name: a, url: 'https://x/a.wasm'}]",
         f"1:21: plugins.0.url: is {LATER} (download the module, and use path)"),
        ("[{name: a b, path: a.wasm}]", "1:18: plugins.0.name: expected a plugin name, got 'a b'"
         " (use letters, digits and _ . -)"),
        ("[{name: 5, path: a.wasm}]",
         "1:18: plugins.0.name: expected a plugin name, got 5 (put it in quotes)"),
        ("[{name: a, path: 5}]", "1:27: plugins.0.path: expected a path, got 5 (put it in quotes)"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_explained(plugins: str, message: str, mistakes: Mistakes) -> None:
    assert mistakes(f"plugins: {plugins}\n") == [f"plugins.yaml:{message}"]


def test_a_dict_has_paths_instead_of_lines(folder: Path) -> None:
    config: dict[str, object] = {
        "plugins": [
            {"name": False, "path": "a.wasm", "config": {"when": datetime.date(2024, 1, 1)}},
            {"name": "b", "path": "a.wasm", "config": {"set": {1}, "bytes": b"", 5: 6}},
            {"name": "b", "path": "a.wasm", 7: 8},
        ],
        "routes": [{"path": "/", "plugins": ["c"]}],
    }
    with pytest.raises(ConfigError) as raised:
        load_settings(config)

    assert str(raised.value).splitlines() == [
        "<config>: plugins.0.config.when: a date has no form in JSON (write it as text)",
        "<config>: plugins.0.name: expected a plugin name, got false (put it in quotes)",
        "<config>: plugins.1.config: the key 5 is not text (quote it)",
        "<config>: plugins.1.config.bytes: a bytes has no form in JSON (write it as text)",
        "<config>: plugins.1.config.set: a set has no form in JSON (write it as text)",
        "<config>: plugins.2: the key 7 is not text (quote it)",
        "<config>: plugins.2.name: another plugin has the name 'b'"
        " (the first is at plugins.1.name)",
        "<config>: routes.0.plugins.0: no plugin has the name 'c' (define it under plugins)",
    ]


def test_a_dict_that_holds_itself_is_refused() -> None:
    config: dict[str, object] = {}
    config["plugins"] = [config]

    with pytest.raises(ConfigError, match="nested more than 64 levels deep"):
        load_settings(config)


def test_diagnostics_are_in_file_order_and_have_their_parts(mistakes: Mistakes) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings({"plugins": [], "engine": "v8"})

    [diagnostic] = raised.value.diagnostics
    assert (diagnostic.file, diagnostic.line, diagnostic.path) == ("", 0, "engine")
    lines = [int(line.split(":")[1]) for line in mistakes("z: 1\nplugins: 5\na: 1\nengine: 2\n")]
    assert lines == [1, 2, 3, 4]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    plugin=st.dictionaries(st.sampled_from(sorted(PluginSettings.model_fields)), VALUES),
    route=st.dictionaries(st.sampled_from(sorted(RouteSettings.model_fields)), VALUES),
    top=st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), VALUES, max_size=3),
)
def test_any_values_are_settings_or_mistakes(
    plugin: dict[str, object], route: dict[str, object], top: dict[str, object]
) -> None:
    config = {"plugins": [{"name": "a", "path": "a.wasm"} | plugin], "routes": [route]} | top

    with contextlib.suppress(ConfigError):
        assert isinstance(hash(load_settings(config)), int)
