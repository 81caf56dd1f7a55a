"""What a file that is right becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from wasm_middleware.config import PHASES, PluginSettings, Settings, load_settings
from wasm_middleware.errors import ConfigError
from wasm_middleware.limits import KIB, MIB

from .conftest import MODULE, Load

EVERY_FIELD = """\
# yaml-language-server: $schema=./wasm-middleware.schema.json
engine: wasmtime
plugins:
  - name: rate-limit
    mandatory: true
    path: a.wasm
    sha256: "93A44BBB96C751218E4C00D479E4C14358122A389ACCA16205B1E4D0DC5F9476"
    phase: [on_log, on_request_headers]
    priority: 100
    config: {requests_per_second: 100, burst: 200.5, on: [yes, ~, true, "é"]}
    memory_limit: 32MB
    timeout: none
    pause_timeout: 10s
    body_limit: 1KB
    bodies: false
    type: http
    isolation: shared
    allow_on_headers_stop_iteration: true
    log_level: debug
    log_rate: 50
    compile: isolated
    failure_policy: fail_open
    instances: {min: 2}
    environment: {REGION: eu, VERSION: 3.10, DEBUG: True, EMPTY: ""}
    allowed_capabilities: [proxy_log, fd_write]
    root_id: root
    vm_id: vm
    vm_config: text as it is
  - {name: auth, path: b.wasm}
routes:
  - id: private
    path: /private/{user}/*
    methods: [get, POST]
    plugins: [auth, {name: rate-limit, config: {burst: 5}}]
  - path: /
upstreams:
  auth: http://127.0.0.1:9000
  "outbound|443||api": {url: https://api.example.com, max_in_flight: 5, response_limit: 2MB}
callouts: {allow_hosts: ["example.com:443"]}
shared_data: memory://
log_level: warn
scheduling: sliced
reload: off
defaults: {priority: 5, timeout: 1s}
"""


def test_every_field_is_read(load: Load, folder: Path) -> None:
    settings = load(EVERY_FIELD)
    plugin = settings.plugins[0]

    assert settings.engine == "wasmtime"
    assert settings.shared_data == "memory://"
    assert settings.log_level == "warn"
    assert settings.scheduling == "sliced"
    assert settings.reload == "off"
    assert settings.warnings == ()
    assert plugin.name == "rate-limit"
    assert plugin.mandatory is True
    assert plugin.path == folder / "a.wasm"
    assert plugin.phase == ("on_request_headers", "on_log")
    assert plugin.priority == 100
    assert plugin.config == (
        '{"requests_per_second":100,"burst":200.5,"on":["yes",null,true,"é"]}'.encode()
    )
    assert plugin.memory_limit == 32 * MIB
    assert plugin.timeout is None
    assert plugin.pause_timeout == 10.0
    assert plugin.body_limit == KIB
    assert plugin.bodies is False
    assert plugin.type == "http"
    assert plugin.isolation == "shared"
    assert plugin.allow_on_headers_stop_iteration is True
    assert plugin.log_level == "debug"
    assert plugin.log_rate == 50
    assert plugin.compile == "isolated"
    assert plugin.failure_policy == "fail_open"
    assert plugin.instances.min == 2
    assert plugin.environment == (
        ("REGION", "eu"),
        ("VERSION", "3.10"),
        ("DEBUG", "True"),
        ("EMPTY", ""),
    )
    assert plugin.allowed_capabilities == frozenset({"proxy_log", "fd_write"})
    assert plugin.root_id == "root"
    assert plugin.vm_id == "vm"
    assert plugin.vm_config == b"text as it is"


def test_what_is_left_out_has_the_documented_default(load: Load) -> None:
    [plugin] = load("plugins: [{name: a, path: a.wasm}]").plugins

    assert plugin.mandatory is False
    assert plugin.sha256 is None
    assert plugin.phase == PHASES
    assert plugin.priority == 0
    assert plugin.config == b""
    assert plugin.memory_limit == 16 * MIB
    assert plugin.timeout == 0.05
    assert plugin.pause_timeout == 30.0
    assert plugin.body_limit == 10 * MIB
    assert plugin.bodies is None
    assert plugin.log_level == "info"
    assert plugin.log_rate == 1000
    assert plugin.compile == "in_process"
    assert plugin.failure_policy == "fail_closed"
    assert (plugin.instances.min, plugin.instances.most) == (1, 8)
    assert plugin.environment == ()
    assert plugin.allowed_capabilities is None
    assert (plugin.root_id, plugin.vm_id, plugin.vm_config) == ("", "", b"")


@pytest.mark.parametrize(
    ("written", "least", "most"),
    [
        ("{min: 3}", 3, 8),
        ("{min: 9}", 9, 9),
        ("{max: 1000}", 1, 1000),
        ("{min: 64, max: 64}", 64, 64),
    ],
)
def test_a_least_above_the_default_most_is_the_most(
    load: Load, written: str, least: int, most: int
) -> None:
    [plugin] = load(f"plugins: [{{name: a, path: a.wasm, instances: {written}}}]").plugins

    assert (plugin.instances.min, plugin.instances.most) == (least, most)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{min: 65}", "65 is out of bounds, expected 1 to 64"),
        ("{max: 1001}", "1001 is out of bounds, expected 1 to 1000"),
        ("{min: 3, max: 2}", "2 is less than min, which is 3"),
    ],
)
def test_the_number_of_instances_has_bounds(load: Load, written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(f"plugins: [{{name: a, path: a.wasm, instances: {written}}}]")


def test_routes_are_read_in_order(load: Load) -> None:
    private, home = load(EVERY_FIELD).routes or ()

    assert private.id == "private"
    assert private.methods == frozenset({"GET", "POST"})
    assert [(plugin.name, plugin.config) for plugin in private.plugins] == [
        ("auth", None),
        ("rate-limit", b'{"burst":5}'),
    ]
    assert (home.id, home.path, home.methods, home.plugins) == ("/", "/", None, ())


def test_no_routes_and_an_empty_list_of_routes_differ(load: Load) -> None:
    assert load("plugins: []").routes is None
    assert load("plugins: []\nroutes: []").routes == ()


def test_defaults_are_for_plugins_that_lack_the_field(load: Load) -> None:
    settings = load(EVERY_FIELD)
    assert [(plugin.priority, plugin.timeout) for plugin in settings.plugins] == [
        (100, None),
        (5, 1.0),
    ]


@pytest.mark.parametrize(
    ("top", "defaults", "own", "level"),
    [
        ("", "", "", "info"),
        ("log_level: warn", "", "", "warn"),
        ("log_level: warn", "defaults: {log_level: error}", "", "error"),
        ("log_level: warn", "defaults: {log_level: error}", "log_level: trace", "trace"),
    ],
)
def test_a_plugins_log_level_comes_from_the_nearest(
    top: str, defaults: str, own: str, level: str, load: Load
) -> None:
    text = f"plugins:\n- name: a\n  path: a.wasm\n  {own}\n{top}\n{defaults}\n"
    assert load(text).plugins[0].log_level == level


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ("", b""),
        ("config:", b""),
        ("config: text", b"text"),
        ("config: '{\"a\": 1}'", b'{"a": 1}'),
        ("config: 5", b"5"),
        ("config: true", b"true"),
        ("config: {z: 1, a: 2}", b'{"z":1,"a":2}'),
        ("config: []", b"[]"),
        ("config: 2024-01-01", b"2024-01-01"),
    ],
)
def test_a_config_is_given_as_json_and_text_as_it_is(config: str, given: bytes, load: Load) -> None:
    assert load(f"plugins:\n- name: a\n  path: a.wasm\n  {config}\n").plugins[0].config == given


@pytest.mark.parametrize("word", ["off", '"off"', "false"])
def test_reload_is_off_in_any_spelling(word: str, load: Load) -> None:
    assert load(f"plugins: []\nreload: {word}").reload == "off"


def test_no_is_a_name_like_any_other(load: Load) -> None:
    assert load("plugins: [{name: no, path: a.wasm}]").plugins[0].name == "no"


def test_module_paths_are_relative_to_the_file(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "c.wasm").write_bytes(MODULE)
    (folder / "etc" / "plugins.yaml").write_text(
        f"plugins: [{{name: a, path: c.wasm}}, {{name: b, path: {folder}/a.wasm}}]"
    )
    settings = load_settings(Path("etc/plugins.yaml"))
    assert [plugin.path for plugin in settings.plugins] == [
        folder / "etc" / "c.wasm",
        folder / "a.wasm",
    ]


def test_a_dict_is_a_configuration_relative_to_the_working_folder(folder: Path) -> None:
    settings = load_settings(
        {
            "plugins": (
                {"name": "a", "path": Path("a.wasm"), "config": {"n": 1}, "phase": ("on_log",)},
                {"name": "b", "path": "a.wasm", "config": b"\xff", "environment": {"N": 1.5}},
            ),
            "reload": False,
        }
    )
    assert [plugin.path for plugin in settings.plugins] == [folder / "a.wasm"] * 2
    assert [plugin.config for plugin in settings.plugins] == [b'{"n":1}', b"\xff"]
    assert settings.plugins[1].environment == (("N", "1.5"),)


def test_an_empty_dict_is_no_plugins() -> None:
    assert load_settings({}).plugins == ()


def test_options_override_the_file(load: Load) -> None:
    settings = load("plugins: [{name: a, path: a.wasm}]\nlog_level: nonsense", log_level="debug")
    assert settings.log_level == "debug"
    assert settings.plugins[0].log_level == "debug"


def test_an_option_replaces_even_what_can_not_be_read(load: Load) -> None:
    assert load("plugins: []\nlog_level: ${NOPE}", log_level="debug").log_level == "debug"


def test_an_option_of_none_leaves_the_files_value(load: Load) -> None:
    assert load("plugins: []\nlog_level: warn", log_level=None).log_level == "warn"


def test_a_wrong_option_is_reported_as_one(folder: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings({}, log_levle="debug", engine="v8", reload="${NOPE}")

    assert str(raised.value).splitlines() == [
        "<options>: engine: expected wasmtime or wasmer, got 'v8'",
        "<options>: log_levle: unknown option (did you mean log_level?)",
        "<options>: reload: the environment variable NOPE is not set"
        " (set it, or write ${NOPE:-default})",
    ]


def test_settings_are_returned_as_they_are(load: Load) -> None:
    settings = load(EVERY_FIELD)
    assert load_settings(settings) is settings


def test_settings_take_options_by_being_checked_again(load: Load) -> None:
    settings = load_settings(load(EVERY_FIELD), log_level="trace")
    assert [plugin.log_level for plugin in settings.plugins] == ["debug", "trace"]


def test_settings_made_by_hand_take_no_options() -> None:
    settings = Settings(log_level="debug")
    assert load_settings(settings) is settings

    with pytest.raises(TypeError, match="made by hand"):
        load_settings(settings, log_level="trace")


def test_loading_the_same_file_twice_gives_equal_settings(load: Load) -> None:
    assert load(EVERY_FIELD) == load(EVERY_FIELD)
    assert load(EVERY_FIELD) != load(EVERY_FIELD.replace("priority: 100", "priority: 99"))


def test_settings_are_frozen_all_the_way_down(load: Load) -> None:
    settings = load(EVERY_FIELD)

    with pytest.raises(ValidationError):
        settings.log_level = "debug"

    with pytest.raises(ValidationError):
        settings.plugins[0].instances.min = 3

    # What can be hashed holds no list and no dict.
    assert isinstance(hash(settings), int)


LOOM_PAGES = [
    """\
plugins:
  - name: rate-limit
    path: /etc/loom/plugins/rate-limit.wasm
    phase: on_request_headers
    priority: 100
    config:
      requests_per_second: 100
      burst: 200
    memory_limit: 16MB
    timeout: 50ms
""",
    """\
plugins:
  - name: auth
    path: /plugins/auth.wasm

  - name: rate-limit
    path: /plugins/rate-limit.wasm

routes:
  - id: public
    path: /public/*
    upstream: backend
    plugins:
      - rate-limit  # Only rate limiting

  - id: private
    path: /private/*
    upstream: backend
    plugins:
      - auth        # Both auth and rate limiting
      - rate-limit
""",
    """\
plugins:
  - name: my-plugin
    path: /plugins/my-plugin.wasm
    log_level: debug
""",
    """\
plugins:
  - name: add-header
    path: /path/to/add-header-plugin.wasm
    phase: on_request_headers
    priority: 100
    memory_limit: 16MB
    timeout: 50ms

routes:
  - id: api
    path: /api/*
    upstream: backend
    plugins:
      - add-header  # Reference the plugin by name
""",
]


@pytest.mark.parametrize("text", LOOM_PAGES)
def test_the_files_of_looms_pages_load(text: str, load: Load) -> None:
    settings = load(text, check_files=False)
    assert [warning.message for warning in settings.warnings] == [
        "has no effect: the app is the upstream"
    ] * text.count("upstream:")


def test_warnings_have_places(load: Load) -> None:
    settings = load(
        "plugins: []\nroutes:\n- path: /a%20b\n  upstream: backend\n- {path: /c, upstream: x}\n"
    )
    assert [str(warning) for warning in settings.warnings] == [
        "plugins.yaml:3:9: routes.0.path: holds a %, and routes are matched on the decoded path"
        " (write the character itself)",
        "plugins.yaml:4:13: routes.0.upstream: has no effect: the app is the upstream",
        "plugins.yaml:5:24: routes.1.upstream: has no effect: the app is the upstream",
    ]


def test_a_plugin_can_be_made_by_hand() -> None:
    plugin = PluginSettings.model_validate(
        {"name": "a", "path": Path("a.wasm"), "config": b"x", "environment": {"A": False}}
    )
    assert (plugin.config, plugin.environment) == (b"x", (("A", "false"),))

    with pytest.raises(ValidationError, match="the key 1 is not text"):
        PluginSettings.model_validate({"name": "a", "path": "a.wasm", "config": {1: 2}})
