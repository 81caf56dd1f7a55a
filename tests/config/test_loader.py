"""Reading: what is a file, what is YAML, what its scalars are, and where everything stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from wasm_middleware.config import load_settings
from wasm_middleware.config.document import compose
from wasm_middleware.config.loader import resolve_plain
from wasm_middleware.config.tree import MAX_VALUES
from wasm_middleware.errors import ConfigError
from wasm_middleware.limits import MAX_CONFIG_BYTES

from .conftest import Load, Mistakes


def mistakes_in(path: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_settings(path)

    return str(raised.value)


def test_a_missing_file_is_named_with_the_folder_it_was_sought_in(folder: Path) -> None:
    assert mistakes_in("nope.yaml") == f"nope.yaml: no such file (looked in {folder})"
    assert mistakes_in(f"{folder}/nope.yaml") == f"{folder}/nope.yaml: no such file"


def test_a_folder_is_not_a_file(folder: Path) -> None:
    assert mistakes_in(".") == ".: is a folder, expected a YAML file (name the file in it)"


def test_a_file_that_can_not_be_read_says_why(folder: Path) -> None:
    (folder / "loop.yaml").symlink_to("loop.yaml")
    assert mistakes_in("loop.yaml") == (
        "loop.yaml: can't be read: Too many levels of symbolic links"
        " (check its path and permissions)"
    )


def test_a_nul_in_the_path_is_a_mistake_not_a_crash() -> None:
    assert mistakes_in("a\0b") == "a\0b: is not a path"


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    (folder / "big.yaml").write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    assert mistakes_in("big.yaml") == "big.yaml: is larger than 4MB"


def test_a_file_that_is_not_utf_8_is_reported_at_its_line(folder: Path) -> None:
    (folder / "latin.yaml").write_bytes(b"plugins: []\n# caf\xe9\n")
    assert mistakes_in("latin.yaml") == "latin.yaml:2:1: is not UTF-8 (save the file as UTF-8)"


def test_a_byte_order_mark_is_allowed(folder: Path) -> None:
    (folder / "bom.yaml").write_bytes(b"\xef\xbb\xbfplugins: []\n")
    assert load_settings("bom.yaml").plugins == ()


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~\n"])
def test_an_empty_file_is_a_mistake(text: str, mistakes: Mistakes) -> None:
    assert mistakes(text) == ["plugins.yaml: the file is empty (write plugins: [] for no plugins)"]


@pytest.mark.parametrize(("text", "kind"), [("- a\n", "a list"), ("plugins\n", "text")])
def test_the_top_is_a_mapping(text: str, kind: str, mistakes: Mistakes) -> None:
    assert mistakes(text) == [
        f"plugins.yaml:1:1: expected a mapping at the top, got {kind} (begin with plugins:)"
    ]


def test_a_second_document_is_refused(mistakes: Mistakes) -> None:
    assert mistakes("plugins: []\n---\nplugins: []\n") == [
        "plugins.yaml:2:1: a second document starts here (keep one, and remove the ---)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "plugins:\n  - name: a\n   path: b\n",
            "3:4: not valid YAML: expected <block end>, but found '<block mapping start>'"
            " while parsing a block collection that starts on line 2",
        ),
        (
            "plugins:\n\t- name: a\n",
            "2:1: not valid YAML: found character '\\t' that cannot start any token"
            " while scanning for the next token (indent with spaces)",
        ),
        ("plugins: [\n", "2:1: not valid YAML: expected the node content, but found '<stream end>'"
         " while parsing a flow node"),
        ("plugins: *a\n", "1:10: not valid YAML: found undefined alias 'a'"),
        ("a: \x01\n", "1:4: holds a control character (remove it)"),
        ("a: 1\x85b: \x01\n", "2:4: holds a control character (remove it)"),
        ('a: "\\UFFFFFFFF"\n', " not valid YAML: an escape stands for no character"),
    ],
)  # fmt: skip
def test_a_syntax_error_has_a_place(text: str, message: str, mistakes: Mistakes) -> None:
    assert mistakes(text) == [f"plugins.yaml:{message}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("22:30", "22:30"),
        ("0x1F", "0x1F"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("5", 5),
        ("-5", -5),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("TRUE", True),
        ("false", False),
        ("", None),
        ("~", None),
        ("Null", None),
        ("-.inf", float("-inf")),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_are_what_they_look_like(text: str, value: object) -> None:
    assert resolve_plain(text) == value
    assert type(resolve_plain(text)) is type(value)


def test_a_duplicate_key_is_reported_with_both_lines(mistakes: Mistakes) -> None:
    text = "plugins: []\nengine: wasmtime\nengine: wasmtime\n"
    assert mistakes(text) == ["plugins.yaml:3:1: engine: duplicate key (the first is on line 2)"]


def test_a_duplicate_key_within_a_config_is_reported(mistakes: Mistakes) -> None:
    text = "plugins:\n- name: a\n  path: a.wasm\n  config:\n    x: 1\n    x: 2\n"
    assert mistakes(text) == [
        "plugins.yaml:6:5: plugins.0.config.x: duplicate key (the first is on line 5)"
    ]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("1", "the key 1 is not text (quote it)"),
        ("true", "the key true is not text (quote it)"),
        ("~", "the key nothing is not text (quote it)"),
        ("? [a]\n    ", "a key must be text"),
        ("!!int '1'", "a key must be text"),
        ("<<", "merge keys are not supported (use defaults, or an alias)"),
        ('"\\ud800"', "the key '\\ud800' is not text (quote it)"),
    ],
)
def test_keys_are_text(key: str, message: str, mistakes: Mistakes) -> None:
    text = f"plugins:\n- name: a\n  path: a.wasm\n  config:\n    {key}: 2\n"
    column = 7 if key.startswith("?") else 5
    assert mistakes(text) == [f"plugins.yaml:5:{column}: plugins.0.config: {message}"]


@pytest.mark.parametrize("tag", ["!!timestamp 2024-01-01", "!!set {a}", "!!binary aGk=", "!mine x"])
def test_tags_are_refused(tag: str, mistakes: Mistakes) -> None:
    name = tag.split()[0]
    assert mistakes(f"plugins:\n- name: a\n  path: a.wasm\n  config: {tag}\n") == [
        f"plugins.yaml:4:11: plugins.0.config: the tag '{name}' is not supported (remove it)"
    ]


def test_an_explicit_string_stays_text(load: Load) -> None:
    text = "plugins:\n- name: a\n  path: a.wasm\n  config: [!!str 5, !!seq [7]]\n"
    assert load(text).plugins[0].config == b'["5",[7]]'


def test_half_a_character_is_refused(mistakes: Mistakes) -> None:
    assert mistakes('plugins:\n- name: a\n  path: a.wasm\n  config: "\\ud800"\n') == [
        "plugins.yaml:4:11: plugins.0.config: is not valid Unicode"
    ]


def test_aliases_work(load: Load) -> None:
    text = (
        "plugins:\n"
        "- {name: a, path: a.wasm, config: &c {x: [1]}}\n"
        "- {name: b, path: a.wasm, config: *c}\n"
    )
    assert [plugin.config for plugin in load(text).plugins] == [b'{"x":[1]}'] * 2


def test_an_alias_within_itself_is_refused(mistakes: Mistakes) -> None:
    text = "plugins:\n- name: a\n  path: a.wasm\n  config: &c [*c]\n"
    assert mistakes(text) == [
        "plugins.yaml:4:11: plugins.0.config.0: an alias stands inside of what it stands for"
    ]


def test_an_alias_bomb_is_refused(mistakes: Mistakes) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    [mistake] = mistakes("\n".join(lines))
    assert mistake.endswith(f"more than {MAX_VALUES:,} values, aliases written out")


def test_an_alias_bomb_of_long_text_is_refused(mistakes: Mistakes) -> None:
    text = f"a: &a {'x' * 1_000_000}\nb: [{', '.join(['*a'] * 20)}]\n"
    [mistake] = mistakes(text)
    assert mistake.endswith("b.15: too much text, aliases written out")


def test_deep_nesting_is_refused(mistakes: Mistakes) -> None:
    assert mistakes("a: " + "[" * 100_000) == [
        "plugins.yaml:1:67: not valid YAML: nested more than 64 levels deep"
    ]


def test_deep_nesting_by_aliases_is_refused(mistakes: Mistakes) -> None:
    nested = "[" * 40 + "{}" + "]" * 40
    text = f"a: &a {nested.format('x')}\nb: {nested.format('*a')}\n"
    [mistake] = mistakes(text)
    assert mistake.endswith("nested more than 64 levels deep")


def test_too_many_values_are_refused(mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wasm_middleware.config.document.MAX_VALUES", 1_000)
    assert mistakes("a: [" + "x," * 3_000 + "]") == [
        "plugins.yaml:1:3999: not valid YAML: more than 1,000 values"
    ]


def test_a_tag_at_the_top_is_refused(mistakes: Mistakes) -> None:
    assert mistakes("!mine\nplugins: []\n") == [
        "plugins.yaml:1:1: the tag '!mine' is not supported (remove it)"
    ]


@hypothesis_settings(max_examples=300)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t\\ux0$", max_size=60))
def test_any_text_is_a_document_or_a_mistake_with_a_place(text: str) -> None:
    try:
        compose(text, "f")
    except ConfigError as error:
        mistakes = error.diagnostics
    else:
        mistakes = ()

    assert all(mistake.message for mistake in mistakes)
