"""Which routes of the file an endpoint's paths may meet: held against what matches single paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st
from starlette.routing import compile_path

from wasm_middleware.asgi.overlap import met_by, of_pattern, of_template
from wasm_middleware.runtime.paths import PathTable

CATCH_ALL, SEGMENT = "/{rest:path}", "/users/{id}"


@pytest.mark.parametrize(
    ("template", "patterns", "met", "none"),
    [
        ("/page", ["/page", "/*"], ["/page"], False),
        ("/page", ["/other", "/page/more"], [], True),
        (CATCH_ALL, ["/private/*"], ["/private/*"], True),
        (CATCH_ALL, ["/private/*", "/*"], ["/private/*", "/*"], False),
        (CATCH_ALL, ["/*", "/private/*"], ["/*"], False),
        ("/static/{rest:path}", ["/static/*", "/*"], ["/static/*"], False),
        ("/static/{rest:path}", ["/private/*", "/static"], ["/static"], True),
        ("/static/{rest:path}", ["/static/{one}"], ["/static/{one}"], True),
        (SEGMENT, ["/users/me", "/users/{id}", "/*"], ["/users/me", "/users/{id}"], False),
        (SEGMENT, ["/users"], [], True),
        ("/users/{id:int}", ["/users/{id}"], ["/users/{id}"], False),
        ("/{name}.json", ["/a.json", "/b.xml"], ["/a.json"], True),
        ("/x/{a:path}/end", ["/x/y/*"], ["/x/y/*"], True),
        ("/", ["/*"], ["/*"], False),
        ("/", ["/"], ["/"], False),
        ("/", ["/a"], [], True),
    ],
)
def test_an_endpoint_meets_these(
    template: str, patterns: list[str], met: list[str], none: bool
) -> None:
    routes = [(of_pattern(pattern), pattern) for pattern in patterns]

    assert met_by(of_template(template, mount=False), routes) == (met, none)


def test_a_mount_stands_for_all_below_it() -> None:
    routes = [(of_pattern("/files/private"), "private")]

    assert met_by(of_template("/files", mount=False), routes) == ([], True)
    assert met_by(of_template("/files/*", mount=True), routes) == (["private"], True)


SEGMENTS = st.sampled_from(["a", "b", "a.c"])
TEMPLATES = st.lists(SEGMENTS | st.sampled_from(["{x}", "{x}.c", "a{x}"]), max_size=3)
PATTERNS = st.lists(SEGMENTS | st.just("{x}"), max_size=3)
PATHS = st.lists(SEGMENTS, max_size=4)


@settings(max_examples=500, deadline=None)
@given(
    TEMPLATES,
    st.booleans(),
    st.lists(st.tuples(PATTERNS, st.booleans()), max_size=3),
    st.lists(PATHS, min_size=1, max_size=20),
)
def test_no_path_of_an_endpoint_meets_another_route(
    template: list[str],
    catches_all: bool,
    patterns: list[tuple[list[str], bool]],
    paths: list[list[str]],
) -> None:
    names = [part.replace("x", f"x{number}") for number, part in enumerate(template)]
    text = "/" + "/".join([*names, "{rest:path}"] if catches_all else names)
    rules = ["/" + "/".join([*parts, "*"] if star else parts) for parts, star in patterns]
    expression, _, _ = compile_path(text)
    table = PathTable([(rule, None, number) for number, rule in enumerate(rules)])
    routes = [(of_pattern(rule), number) for number, rule in enumerate(rules)]

    found, may_meet_none = met_by(of_template(text, mount=False), routes)

    for path in ("/" + "/".join(parts) for parts in paths):
        if expression.match(path):
            first = table.match(path, "GET")
            assert first in found if first is not None else may_meet_none, (text, rules, path)
