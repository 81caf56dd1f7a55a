from __future__ import annotations

import pytest

from .conftest import Load, Mistakes


@pytest.mark.parametrize(
    "path", ["/", "/*", "/a", "/a/", "/a/*", "/{id}", "/{id}/x/{_b2}/*", "/a.b-c~d", "/ü", "/a b"]
)
def test_a_pattern_is_exact_or_has_segments_or_a_tail(path: str, load: Load) -> None:
    [route] = load(f"plugins: []\nroutes: [{{path: '{path}'}}]").routes or ()
    assert (route.path, route.id) == (path, path)


@pytest.mark.parametrize(
    ("path", "messages"),
    [
        ("x", ["'x' does not begin with /"]),
        ("", ["'' does not begin with /"]),
        ("/a*", ["'/a*' has a * that is not a trailing /* (use {name} for one segment)"]),
        ("/*/a", ["'/*/a' has a * that is not a trailing /* (use {name} for one segment)"]),
        ("/**", ["'/**' has a * that is not a trailing /* (use {name} for one segment)"]),
        ("/{}", ["'/{}' has braces that are not a whole segment {name} (use /* for all below)"]),
        ("/a{b}", [
            "'/a{b}' has braces that are not a whole segment {name} (use /* for all below)"
        ]),
        ("/{b", ["'/{b' has braces that are not a whole segment {name} (use /* for all below)"]),
        ("/{p:path}", [
            "'/{p:path}' has braces that are not a whole segment {name} (use /* for all below)"
        ]),
        ("/{a}/{a}", ["'/{a}/{a}' has the same {name} twice"]),
        ("//", ["'//' holds an empty segment (write one /)"]),
        ("/\x7f", ["'/\\x7f' holds a control character"]),
        ("/?a", ["'/?a' holds ? or #, which is never part of a path"]),
        ("/a//{b}c", [
            "'/a//{b}c' has braces that are not a whole segment {name} (use /* for all below)",
            "'/a//{b}c' holds an empty segment (write one /)",
        ]),
    ],
)  # fmt: skip
def test_any_other_pattern_is_refused(path: str, messages: list[str], mistakes: Mistakes) -> None:
    path = path.replace("\x7f", "\\x7f")
    assert mistakes(f'plugins: []\nroutes:\n- path: "{path}"\n') == [
        f"plugins.yaml:3:9: routes.0.path: {message}" for message in messages
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("id: 5", "7: routes.0.id: expected a name, got 5 (put it in quotes)"),
        ("methods: GET", "12: routes.0.methods: expected a list such as [GET, POST], got 'GET'"),
        ("methods: []", "12: routes.0.methods: is empty (remove the key for every method)"),
        ("methods: [GET, 'P T']", "18: routes.0.methods.1: expected an HTTP method, got 'P T'"),
        ("methods: [5]", "13: routes.0.methods.0: expected an HTTP method, got 5"),
        ("id: ''", "7: routes.0.id: expected a name, got '' (without control characters)"),
        ("plugins: a",
         "12: routes.0.plugins: expected a list, got 'a' (start each item with a dash)"),
        ("plugins: [5]", "13: routes.0.plugins.0: expected a mapping, got 5 (with the keys name)"),
        ("plugins: [{name: a, confg: 1}]",
         "23: routes.0.plugins.0.confg: unknown key (did you mean config?)"),
        ("plugin: [a]", "3: routes.0.plugin: unknown key (did you mean plugins?)"),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_route_is_explained(line: str, message: str, mistakes: Mistakes) -> None:
    text = f"plugins: [{{name: a, path: a.wasm}}]\nroutes:\n- path: /\n  {line}\n"
    assert mistakes(text) == [f"plugins.yaml:4:{message}"]


def test_a_path_that_is_not_text_is_explained(mistakes: Mistakes) -> None:
    assert mistakes("plugins: []\nroutes: [{path: 5}]\n") == [
        "plugins.yaml:2:17: routes.0.path: expected a path such as /private/*, got 5"
    ]


def test_a_route_without_a_path_lacks_only_that(mistakes: Mistakes) -> None:
    assert mistakes("plugins: []\nroutes:\n- methods: [GET]\n") == [
        "plugins.yaml:3:3: routes.0.path: is missing"
    ]


def test_routes_of_one_path_need_their_own_ids(load: Load, mistakes: Mistakes) -> None:
    text = "plugins: []\nroutes:\n- {path: /x, methods: [GET]}\n- {path: /x, methods: [POST]}\n"
    assert mistakes(text) == [
        "plugins.yaml:4:10: routes.1.path: another route has the id '/x'"
        " (the first is at line 3; give each its own id)"
    ]
    assert load(text.replace("- {", "- {id: get, ", 1)).routes


def test_the_config_of_a_route_may_be_empty(load: Load) -> None:
    text = "plugins: [{name: a, path: a.wasm, config: x}]\nroutes:\n- path: /\n  plugins: [{}]\n"
    configs = []

    for entry in ("{name: a}", "{name: a, config: }", "{name: a, config: ''}"):
        [route] = load(text.replace("{}", entry)).routes or ()
        configs.append(route.plugins[0].config)

    assert configs == [None, b"", b""]
