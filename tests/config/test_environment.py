from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.config.environment import substitute
from wasm_middleware.config.problems import Mistake
from wasm_middleware.errors import ConfigError

from .conftest import Load, Mistakes

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("${A}", "1"),
        ("${env:A}", "1"),
        ("<${A}${A}>", "<11>"),
        ("${A:-other}", "1"),
        ("${NONE:-other}", "other"),
        ("${NONE:-}", ""),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${NONE:-http://h:1/}", "http://h:1/"),
        ("$${A}", "${A}"),
        ("$$${A}", "$1"),
        ("$$$$", "$$"),
        ("$A $ $1 ^a$", "$A $ $1 ^a$"),
        ("${REFERENCE}", "${A}"),
    ],
)
def test_references_are_replaced_once(text: str, replaced: str) -> None:
    environ = {"A": "1", "EMPTY": "", "REFERENCE": "${A}"}
    assert substitute(text, environ) == replaced


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${1A}", "${A-x}", "${A:?x}", "${A B}"])
def test_half_a_reference_is_refused(text: str) -> None:
    with pytest.raises(Mistake) as raised:
        substitute(text, {"A": "1"})

    assert str(raised.value) == "not a reference to an environment variable"


def test_every_unset_variable_is_named() -> None:
    with pytest.raises(Mistake) as raised:
        substitute("${A} ${B} ${C:-c}", {})

    assert [problem.text() for problem in raised.value.problems] == [
        "the environment variable A is not set",
        "the environment variable B is not set",
    ]


@given(st.text().filter(lambda text: "$" not in text))
def test_text_without_a_dollar_sign_is_left_alone(text: str) -> None:
    assert substitute(text, {}) == text


@given(st.text(alphabet="${}A:-"))
def test_doubled_dollar_signs_give_back_any_text(text: str) -> None:
    assert substitute(text.replace("$", "$$"), {}) == text


@given(NAMES, st.text(alphabet="${}A:- x"))
def test_a_value_is_never_read_again(name: str, value: str) -> None:
    assert substitute(f"<${{{name}}}>", {name: value}) == f"<{value}>"


@given(st.text(alphabet="${}A:-env"))
def test_any_text_is_replaced_or_a_mistake(text: str) -> None:
    with contextlib.suppress(Mistake):
        assert isinstance(substitute(text, {"A": "1"}), str)


def test_a_plain_scalar_is_resolved_after_substitution_and_a_quoted_one_stays_text(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N", "5")
    text = "plugins:\n- name: a\n  path: a.wasm\n  priority: ${N}0\n  config:\n  - '${N}'\n  - ${N}"
    plugin = load(text).plugins[0]
    assert plugin.priority == 50
    assert plugin.config == b'["5",5]'


def test_a_quoted_number_is_not_a_number(
    mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("N", "5")
    assert mistakes("plugins: [{name: a, path: a.wasm, priority: '${N}'}]") == [
        "plugins.yaml:1:45: plugins.0.priority: expected a whole number,"
        " got the value of an environment variable"
    ]


def test_keys_are_not_substituted(load: Load) -> None:
    settings = load('plugins: [{name: a, path: a.wasm, config: {"${NOPE}": 1}}]')
    assert settings.plugins[0].config == b'{"${NOPE}":1}'


def test_a_reference_within_braces_needs_quotes(mistakes: Mistakes) -> None:
    assert mistakes("plugins: []\ndefaults: {priority: ${N}}") == [
        "plugins.yaml:2:23: not valid YAML: expected ',' or '}', but got '{'"
        " while parsing a flow mapping (within [ ] and { }, put ${NAME} in quotes)"
    ]


def test_a_value_can_not_bring_yaml_of_its_own(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V", "{a: 1}\nengine: wasmer")
    settings = load("plugins:\n- name: a\n  path: a.wasm\n  config: ${V}")
    assert settings.plugins[0].config == b"{a: 1}\nengine: wasmer"


def test_an_unset_variable_is_reported_at_its_line_and_nothing_follows_from_it(
    mistakes: Mistakes,
) -> None:
    text = "plugins:\n  - name: ${NOPE}\n    path: a.wasm\nroutes: [{path: /, plugins: [a]}]\n"
    assert mistakes(text) == [
        "plugins.yaml:2:11: plugins.0.name: the environment variable NOPE is not set"
        " (set it, or write ${NOPE:-default})"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "name: ${SECRET}",
        "path: ${SECRET}",
        "sha256: ${SECRET}",
        "phase: ${SECRET}",
        "phase: [on_log, '${SECRET}']",
        "priority: ${SECRET}",
        "memory_limit: ${SECRET}",
        "timeout: ${SECRET}",
        "bodies: ${SECRET}",
        "mandatory: ${SECRET}",
        "type: ${SECRET}",
        "isolation: ${SECRET}",
        "log_level: ${SECRET}",
        "failure_policy: ${SECRET}",
        "instances: ${SECRET}",
        "instances: {min: '${SECRET}'}",
        "environment: ${SECRET}",
        "environment: {A: '${SECRET}'}",
        "allowed_capabilities: ['${SECRET}']",
        "root_id: ${SECRET}",
    ],
)
@pytest.mark.parametrize("secret", ["pa$$ word!", "7654321", "pa//ss!", "765xs", "pa=ss!"])
def test_no_message_shows_the_value_of_a_variable(
    line: str, secret: str, mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", secret)
    # Twice, so that the names are not unique either; and a route that misspells the name.
    text = f"  - path: a.wasm\n    name: a\n    {line}\n"

    for key in ("path", "name"):
        if line.startswith(key):
            text = text.replace(f"{key}: a\n", "").replace(f"{key}: a.wasm\n    ", "")

    text = f"plugins:\n{text}{text}routes: [{{path: /, plugins: ['${{SECRET}}', {secret[:-1]!r}]}}]"
    found = "\n".join(mistakes(text))
    assert secret not in found
    assert repr(secret) not in found


def test_an_error_does_not_hold_the_values_in_its_context(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")

    with pytest.raises(ConfigError) as raised:
        load("plugins:\n- name: a\n  path: a.wasm\n  priority: ${SECRET}")

    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_settings_do_not_show_what_plugins_are_given(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    settings = load(
        "plugins: [{name: a, path: a.wasm, config: '${SECRET}', vm_config: '${SECRET}',"
        " environment: {A: '${SECRET}'}}]\n"
        "routes: [{path: /, plugins: [{name: a, config: '${SECRET}'}]}]"
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(settings.source)


def test_a_variable_that_is_not_unicode_is_refused(
    mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTES", "\udcff")
    assert mistakes("plugins: [{name: a, path: a.wasm, config: '${BYTES}'}]") == [
        "plugins.yaml:1:43: plugins.0.config: is not valid Unicode"
    ]
