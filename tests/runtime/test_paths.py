from __future__ import annotations

import re

import pytest
from hypothesis import example, given, strategies as st

from wasm_middleware.runtime.paths import PathTable, canonical_path, check_pattern, route_path

RULES = [
    ("/healthz", None, "health"),
    ("/users/me", None, "me"),
    ("/users/{id}", None, "user"),
    ("/users/{id}/posts/{post}", ["GET", "POST"], "posts"),
    ("/users/late", None, "never first"),
    ("/private/*", None, "private"),
    ("/upload", ["POST"], "upload"),
    ("/upload", None, "any upload"),
]
TABLE = PathTable(RULES)


def values(*patterns: str) -> PathTable[str]:
    return PathTable([(pattern, None, pattern) for pattern in patterns])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/healthz", ("health",)),
        ("/users/me", ("me",)),
        ("/users/5", ("user",)),
        ("/users/late", ("user",)),
        ("/users/5/posts/6", ("posts",)),
        ("/users/5/posts", ()),
        ("/users", ()),
        ("/Users/me", ()),
        ("/private", ("private",)),
        ("/private/", ("private",)),
        ("/private/x/y", ("private",)),
        ("/privateer", ()),
        ("/", ()),
        ("", ()),
    ],
)
def test_the_first_rule_that_matches_wins(path, found):
    assert TABLE.matches(path, "GET") == found
    assert TABLE.match(path, "GET") == (found[0] if found else None)


@pytest.mark.parametrize("path", ["", "/", "/x", "/x/y/", "//", "/\r", "/x\ny", "/\0", "/\ud800"])
def test_a_lone_star_is_for_every_path(path):
    assert values("/*").matches(path, "GET") == ("/*",)
    assert values("/*").lookup(path, "", "GET") == ("/*",)


def test_methods_choose_among_the_rules_of_a_path():
    assert TABLE.matches("/upload", "POST") == ("upload",)
    assert TABLE.matches("/upload", "PUT") == ("any upload",)
    assert TABLE.matches("/users/5/posts/6", "DELETE") == ()


def test_get_implies_head_and_not_the_other_way():
    table = PathTable([("/a", ["get"], 1), ("/b", ["HEAD"], 2), ("/c", ["POST"], 3)])

    assert table.matches("/a", "HEAD") == (1,)
    assert table.matches("/b", "GET") == ()
    assert table.matches("/c", "HEAD") == ()


def test_a_method_in_lower_case_is_the_same_method():
    assert TABLE.matches("/upload", "post") == ("upload",)
    assert PathTable([("/a", ["post"], 1)]).matches("/a", "POST") == (1,)


def test_an_exact_rule_behind_a_wider_one_stays_behind():
    assert values("/a/*", "/a/b").matches("/a/b", "GET") == ("/a/*",)
    assert values("/a/b", "/a/*").matches("/a/b", "GET") == ("/a/b",)


@pytest.mark.parametrize(
    "path",
    [
        "/users/me/",
        "//users/me",
        "/users//me",
        "/./users/me",
        "/users/x/../me",
        "/../users/me",
        "/users/me/.",
        "/users/me//",
    ],
)
def test_another_spelling_has_the_values_of_the_canonical_one(path):
    assert "me" in TABLE.matches(path, "GET")


def test_a_spelling_that_two_rules_match_has_the_values_of_both():
    table = PathTable([("/public/*", None, "open"), ("/*", None, "guarded")])

    assert table.matches("/public/../secret", "GET") == ("open", "guarded")
    assert table.matches("/public/x", "GET") == ("open",)
    assert table.matches("/public/./x", "GET") == ("open",)


@pytest.mark.parametrize("path", ["//private/..", "//private/x/../..", "//private//../x/"])
def test_dots_behind_doubled_slashes_are_segments_too(path):
    # Litestar drops empty segments and leaves dots alone: `/private/{rest:path}` serves these.
    assert values("/private/*").matches(path, "GET") == ("/private/*",)
    assert values("/y", "//private//*").lookup(path, "/api", "GET") == ("//private//*",)


@pytest.mark.parametrize("path", ["//users", "/x/../users", "//users/", "/users//"])
def test_rules_that_differ_in_a_trailing_slash_protect_every_spelling_of_both(path):
    # Litestar serves all but the second by the route `/users`.
    assert set(values("/users/", "/users").matches(path, "GET")) == {"/users/", "/users"}
    assert "/users" in values("/users//", "/users").matches(path, "GET")


def test_a_path_with_doubled_slashes_and_dots_may_be_three_paths():
    table = values("//a/*", "/a/*", "/b", "/*")

    assert table.matches("//a/../b", "GET") == ("//a/*", "/a/*", "/b")
    assert values("/a/*", "/b", "/*").matches("//a/../b", "GET") == ("/*", "/a/*", "/b")


def test_a_pattern_with_a_trailing_slash_is_also_for_the_path_without():
    table = values("/users/", "/users/{id}/")

    assert table.matches("/users/", "GET") == ("/users/",)
    assert table.matches("/users", "GET") == ("/users/",)
    assert table.matches("/users/5", "GET") == ("/users/{id}/",)
    assert table.matches("/users/5/", "GET") == ("/users/{id}/",)


def test_rules_with_and_without_a_trailing_slash_protect_each_other():
    assert values("/users/", "/users").matches("/users", "GET") == ("/users", "/users/")
    assert values("/users", "/users/").matches("/users/", "GET") == ("/users/", "/users")


@pytest.mark.parametrize("path", ["/a\n", "/users/me\n", "/users/me\n\n", "*", "http://h/users/me"])
def test_a_path_that_no_honest_client_sends_has_every_value(path):
    assert set(TABLE.matches(path, "GET")) == {value for *_, value in RULES if value != "upload"}


def test_characters_that_expressions_treat_specially_end_no_path():
    assert values("/a/{x}/b").matches("/a/\r\n.*/b", "GET") == ("/a/{x}/b",)
    assert values("/a/*").matches("/a/x\ny", "GET") == ("/a/*",)
    assert values("/a.b").matches("/axb", "GET") == ()
    assert values("/a.b/{x}").matches("/axb/c", "GET") == ()


def test_a_table_without_rules_has_no_values():
    assert PathTable([]).matches("/", "GET") == ()
    assert PathTable([]).lookup("/x", "/y", "GET") == ()
    assert PathTable([]).match("/x\n", "GET") is None


@pytest.mark.parametrize(
    ("path", "root_path", "rest"),
    [
        ("/a", "", "/a"),
        ("/api/a", "/api", "/a"),
        ("/api", "/api", ""),
        ("/api/", "/api", "/"),
        ("/apis", "/api", "/apis"),
        ("/a", "/api", "/a"),
        ("/api/a", "/api/", "/api/a"),
        ("/api//a", "/api/", "/a"),
        ("/api/", "/api/", ""),
        ("", "", ""),
        ("", "/api", ""),
    ],
)
def test_the_root_path_is_cut_where_starlette_cuts_it(path, root_path, rest):
    assert route_path(path, root_path) == rest


@given(st.text("/a\n", max_size=8), st.text("/a\n", max_size=4))
def test_the_route_path_is_starlettes(path, root_path):
    starlette = pytest.importorskip("starlette._utils")

    scope = {"type": "http", "path": path, "root_path": root_path}
    assert route_path(path, root_path) == starlette.get_route_path(scope)


def test_lookup_matches_after_the_root_path():
    assert TABLE.lookup("/api/users/me", "/api", "GET") == ("me",)
    assert TABLE.lookup("/users/me", "/api", "GET") == ("me",)
    assert TABLE.lookup("/users/me", "", "GET") == ("me",)
    assert TABLE.lookup("/api/users/me", "", "GET") == ()
    assert values("/*").lookup("/api", "/api", "GET") == ("/*",)


@pytest.mark.parametrize("path", ["/x/api/users/me", "/apiusers/me", "/api/users/me"])
def test_lookup_cuts_the_root_path_where_quart_and_litestar_do(path):
    assert TABLE.lookup(path, "/api", "GET") == ("me",)


def test_lookup_finds_what_a_mount_with_a_useless_root_path_hands_down_whole():
    # Mount("/{tenant}", routes=[Route("/admin/secret")]) under a root path that isn't there.
    table = values("/{tenant}/admin/secret", "/{tenant}/{shop}/admin/*", "/a/b/c")

    assert table.lookup("/admin/secret", "/api", "GET") == (
        "/{tenant}/admin/secret",
        "/{tenant}/{shop}/admin/*",
    )
    assert table.lookup("/admin/x/y", "/api", "GET") == ("/{tenant}/{shop}/admin/*",)
    assert table.lookup("/../admin/y", "/api", "GET") == ("/{tenant}/{shop}/admin/*",)
    assert table.lookup("/admin/secret", "", "GET") == ()
    assert table.lookup("/b/c", "/api", "GET") == ()


def test_a_mount_needs_a_slash_after_it_to_hand_anything_down():
    assert values("/{tenant}/{a}/").lookup("/me/", "/api", "GET") == ("/{tenant}/{a}/",)
    assert values("/{tenant}/{a}").lookup("/me", "/api", "GET") == ()
    assert values("/{tenant}/{a}/{b}").lookup("/../b", "/api", "GET") == ("/{tenant}/{a}/{b}",)


def test_a_root_path_that_is_not_there_changes_nothing_for_common_rules():
    table = values("/v1/admin/login", "/v1/admin/*", "/v1/{name}", "/me")

    assert table.lookup("/v1/admin/login", "/api", "GET") == ("/v1/admin/login",)
    assert table.lookup("/v1/me", "/api", "GET") == ("/v1/{name}",)
    assert table.lookup("/me", "/api", "GET") == ("/me",)


def test_values_found_twice_are_told_once():
    chain: list[str] = []
    table = PathTable([("/*", None, chain)])

    assert table.lookup("//x/api/y", "/api", "GET") == (chain,)


@pytest.mark.parametrize(
    "pattern", ["/", "/a", "/a/", "/{a}", "/a/{b_1}/c", "/*", "/a/{b}/*", "/é x"]
)
def test_a_good_pattern_has_no_flaw(pattern):
    assert check_pattern(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "start with '/'"),
        ("*", "start with '/'"),
        ("private", "start with '/'"),
        ("/private*", "only at the end"),
        ("/*/x", "only at the end"),
        ("/**", "only at the end"),
        ("/a?b=c", "without a query"),
        ("/a#b", "without a query"),
        ("/a%20b", "write the character itself"),
        ("/{id:int}", "{name} for the whole segment"),
        ("/{file:path}", "a trailing '/*'"),
        ("/{a}.json", "{name} for the whole segment"),
        ("/v{a}", "{name} for the whole segment"),
        ("/{a", "{name} for the whole segment"),
        ("/a}", "{name} for the whole segment"),
        ("/{}", "{name} for the whole segment"),
    ],
)
def test_a_pattern_that_would_not_do_what_it_says_is_refused(pattern, text):
    assert text in (check_pattern(pattern) or "")

    with pytest.raises(ValueError, match=re.escape(f"route path {pattern!r}: ")):
        PathTable([(pattern, None, 1)])


@given(st.text("/.ab", max_size=10))
def test_a_canonical_path_is_its_own_canonical_path(path):
    once = canonical_path(path)

    assert canonical_path(once) == once
    assert once.startswith("/")
    assert not {".", ".."} & set(once.split("/"))
    assert once == "/" or (not once.endswith("/") and "//" not in once)


SEGMENTS = st.sampled_from(["a", "b", "{x}", "{y}"])
PATTERNS = st.builds(
    lambda segments, end: "/" + "/".join(segments) + end if segments else (end or "/"),
    st.lists(SEGMENTS, max_size=4),
    st.sampled_from(["", "/", "/*"]),
)


def by_hand(pattern: str, path: str) -> bool:
    """Match as the definition says, one segment after the other."""
    star = pattern.endswith("/*")
    wanted = (pattern[:-2] if star else pattern).split("/")
    given_ = path.split("/")

    if len(given_) < len(wanted) or (len(given_) > len(wanted) and not star):
        return False

    return all(
        (text != "" if one.startswith("{") else text == one)
        for one, text in zip(wanted, given_, strict=False)
    )


@given(st.lists(PATTERNS, max_size=6), st.text("/ab.", max_size=8).map(lambda text: "/" + text))
@example(["/*"], "/")
@example(["/a/", "/a"], "/a")
def test_a_path_always_has_the_first_rule_that_the_definition_names(patterns, path):
    table = PathTable([(pattern, None, index) for index, pattern in enumerate(patterns)])
    expected = next((i for i, pattern in enumerate(patterns) if by_hand(pattern, path)), None)
    found = table.matches(path, "GET")

    assert found[:1] == (expected,) if expected is not None else True
    assert len(found) == len(set(found))

    if path == canonical_path(path) and not any(one.endswith("/") for one in patterns):
        assert found == (() if expected is None else (expected,))
