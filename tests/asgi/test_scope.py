"""The scope: the very same where nothing changed, consistent where something did."""

from __future__ import annotations

from contextvars import ContextVar
from urllib.parse import unquote

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.asgi.scope import changed_scope, describe, request_headers, request_path

from .guests import Guest
from .harness import Server, Spy, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio

KEY = "wasm_middleware"


class SetHeader(Guest):
    def request_headers(self, end):
        self.set(b"x-user", b"me")


def rewriting(*changes: tuple[bytes, bytes]):
    class Rewrite(Guest):
        def request_headers(self, end):
            for name, value in changes:
                self.set(name, value)

    return Rewrite


async def test_an_unchanged_request_is_the_very_same_scope_with_one_key_more(workshop):
    workshop.add(Guest)
    scope = http_scope()
    before = dict(scope)
    spy = Spy()
    await Server(scope).run(workshop.wrap(spy))
    assert spy.scope is scope
    assert set(spy.seen) - set(before) == {KEY}
    assert scope == before


async def test_the_key_is_removed_when_the_application_fails(workshop):
    workshop.add(Guest)
    scope = http_scope()

    async def app(scope, receive, send):
        assert KEY in scope
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await Server(scope).run(workshop.wrap(app))

    assert KEY not in scope


async def test_without_plugins_the_application_gets_the_very_same_objects(workshop):
    workshop.add(Guest)
    app = workshop.wrap(respond(b"x"), routes=[{"path": "/private/*", "plugins": ["guest"]}])
    seen = []

    async def inside(scope, receive, send):
        seen.extend([scope, receive, send])

    app.app.app = inside
    server = Server(http_scope("/public"))
    objects = [server.scope, server.receive, server.send]
    await app.app(*objects)
    assert all(one is other for one, other in zip(seen, objects, strict=True))
    assert KEY not in server.scope


async def test_a_changed_request_is_a_copy_that_keeps_the_rest(workshop):
    workshop.add(SetHeader)
    scope = http_scope(headers=[(b"cookie", b"a=1"), (b"X-Upper", b"1"), (b"cookie", b"b=2")])
    scope["headers"][2] = (b"x-upper", b"1")
    before = [*scope["headers"]]
    spy = Spy()
    await Server(scope).run(workshop.wrap(spy))
    assert spy.scope is not scope
    assert scope["headers"] == before
    assert spy.seen["headers"] == [*before, (b"x-user", b"me")]
    assert spy.seen["state"] is scope["state"]
    assert KEY not in scope


async def test_what_the_router_leaves_is_copied_back(workshop):
    workshop.add(SetHeader)
    scope = http_scope()

    async def app(scope, receive, send):
        scope.update(route="the route", endpoint=app, path_params={"id": 1}, other="not this")
        await respond(b"")(scope, receive, send)

    await Server(scope).run(workshop.wrap(app))
    assert scope["route"] == "the route"
    assert scope["endpoint"] is app
    assert scope["path_params"] == {"id": 1}
    assert "other" not in scope


async def test_pseudo_headers_are_what_the_scope_says(workshop):
    seen = []

    class Look(Guest):
        def request_headers(self, end):
            seen.extend(self.pairs())

    workshop.add(Look)
    scope = post_scope("/a%20b?q=1", length=1, raw_path=b"/a%20b")
    scope["path"] = "/a b"
    scope["headers"].append((b"x-custom", b"1"))
    await Server(scope, []).run(workshop.wrap(respond(b"")))
    assert seen == [
        (b":authority", b"test"),
        (b":path", b"/a%20b?q=1"),
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b"content-length", b"1"),
        (b"x-custom", b"1"),
    ]


@pytest.mark.parametrize(
    ("path", "raw_path", "shown"),
    [
        ("/a b", None, b"/a%20b"),
        ("/100%", None, b"/100%25"),
        ("/é", None, b"/%C3%A9"),
        ("/a/b", b"/a%2fb", b"/a%2fb"),
        ("/a", b"/a?query=in-it", b"/a"),
        ("/a?b", None, b"/a%3Fb"),
    ],
)
def test_the_path_is_shown_as_it_was_sent(path, raw_path, shown):
    scope = {**http_scope(), "path": path, "raw_path": raw_path}
    assert request_path(scope) == shown


@pytest.mark.parametrize(
    ("value", "path", "raw_path", "query"),
    [
        (b"/new", "/new", b"/new", b""),
        (b"/new?a=b?c", "/new", b"/new", b"a=b?c"),
        (b"/a%2Fb%20c?x=%20", "/a/b c", b"/a%2Fb%20c", b"x=%20"),
        (b"/%C3%A9", "/é", b"/%C3%A9", b""),
        (b"/%ff", "/�", b"/%ff", b""),
        (b"*", "*", b"*", b""),
    ],
)
async def test_a_rewritten_path_changes_all_that_says_so(workshop, value, path, raw_path, query):
    workshop.add(rewriting((b":path", value)))
    spy = Spy()
    await Server(http_scope("/old?q=1", root_path="/root")).run(workshop.wrap(spy))
    seen = [spy.seen[key] for key in ("path", "raw_path", "query_string", "root_path")]
    assert seen == [path, raw_path, query, "/root"]


@pytest.mark.parametrize("value", [b"", b"new", b"/a b", b"/\xc3\xa9", b"http://x/", b"**"])
async def test_a_path_that_http_does_not_allow_is_a_503(workshop, caplog, value):
    workshop.add(rewriting((b":path", value)))
    spy = Spy()
    server = await Server(http_scope()).run(workshop.wrap(spy))
    assert spy.scopes == []
    assert server.status == 503
    assert "which HTTP does not allow" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b":method", b"G T"),
        (b":method", b""),
        (b":authority", b"a b"),
        (b":scheme", b""),
        (b":path", b"//\x7f"),
    ],
)
async def test_other_pseudo_headers_are_checked_too(workshop, name, value):
    workshop.add(rewriting((name, value)))
    server = await Server(http_scope()).run(workshop.wrap(Spy()))
    assert server.status == 503


async def test_host_and_authority_are_one(workshop):
    seen = []

    class Change(Guest):
        def request_headers(self, end):
            seen.extend([self.get(b"host"), self.get(b":authority")])
            self.set(b"host", b"elsewhere")
            seen.append(self.get(b":authority"))

    workshop.add(Change)
    spy = Spy()
    await Server(http_scope()).run(workshop.wrap(spy))
    assert seen == [b"test", b"test", b"elsewhere"]
    assert spy.header(b"host") == [b"elsewhere"]


async def test_method_and_scheme_change_where_asgi_has_them(workshop):
    workshop.add(rewriting((b":method", b"PATCH"), (b":scheme", b"https")))
    spy = Spy()
    await Server(http_scope()).run(workshop.wrap(spy))
    assert (spy.seen["method"], spy.seen["scheme"]) == ("PATCH", "https")


async def test_of_pseudo_headers_that_are_given_twice_the_first_counts(workshop):
    class Twice(Guest):
        def request_headers(self, end):
            pairs = [(b":path", b"/first"), (b":path", b"/second"), (b":authority", b"a")]
            self.set_pairs([*pairs, (b":authority", b"b"), (b"x", b"1")])

    workshop.add(Twice)
    spy = Spy()
    await Server(http_scope()).run(workshop.wrap(spy))
    assert spy.seen["path"] == "/first"
    assert spy.seen["headers"] == [(b"host", b"a"), (b"x", b"1")]


async def test_a_removed_pseudo_header_leaves_what_was(workshop):
    class Remove(Guest):
        def request_headers(self, end):
            for name in (b":path", b":method", b":scheme"):
                self.remove(name)

    workshop.add(Remove)
    spy = Spy()
    await Server(http_scope("/here", method="PUT")).run(workshop.wrap(spy))
    assert (spy.seen["path"], spy.seen["method"]) == ("/here", "PUT")


async def test_a_request_header_that_would_break_its_line_fails_the_request(workshop):
    statuses = []

    class Inject(Guest):
        def request_headers(self, end):
            statuses.append(self.set(b"x", b"a\r\nb: c"))
            statuses.append(self.set_pairs([(b"a", b"\n")]))
            statuses.append(self.set(b":path", b"/a\r\nb"))

    workshop.add(Inject)
    spy = Spy()
    server = await Server(http_scope()).run(workshop.wrap(spy))
    assert statuses == [0, 0, 0]
    assert server.status == 503
    assert spy.scopes == []


async def test_with_fail_open_no_value_of_the_clients_passes_for_the_plugins(workshop):
    class Inject(Guest):
        def request_headers(self, end):
            self.set(b"x-user", b"a\r\nb: c")

    workshop.add(Inject, failure_policy="fail_open")
    spy = Spy()
    await Server(http_scope(headers=[(b"x-user", b"root")])).run(workshop.wrap(spy))
    assert spy.seen["headers"] == [(b"host", b"test")]


async def test_a_client_without_address_is_none(workshop):
    class Ask(Guest):
        def request_headers(self, end):
            path = self.text(b"source\0address")
            seen.append(self.fetch(self.host.proxy_get_property, *path))

    seen = []
    workshop.add(Ask)
    app = workshop.wrap(Spy())
    await Server(http_scope(client=None)).run(app)
    await Server(http_scope(client=("1.2.3.4", 5))).run(app)
    await Server(http_scope(client=["1.2.3.4", 5])).run(app)
    assert seen == [None, b"1.2.3.4:5", b"1.2.3.4:5"]


async def test_context_variables_flow_both_ways(workshop):
    workshop.add(Guest)
    variable = ContextVar("variable", default="nothing")

    async def app(scope, receive, send):
        assert variable.get() == "outside"
        variable.set("inside")
        await respond(b"")(scope, receive, send)

    variable.set("outside")
    await Server(http_scope()).run(workshop.wrap(app))
    assert variable.get() == "inside"


PATHS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@given(PATHS.map(lambda text: "/" + text), st.binary(max_size=10).map(lambda b: b.hex().encode()))
def test_a_path_that_is_written_back_as_it_was_read_is_the_same(path, query):
    raw = path.replace("%", "%25").replace("?", "%3F").encode()
    scope = http_scope(raw_path=raw)
    scope |= {"path": unquote(raw.decode()), "query_string": query}
    headers = request_headers(scope)
    value = headers.get(b":path")
    headers.replace(b":path", b"/other")
    headers.replace(b":path", value)
    copy = changed_scope(scope, headers, body_may_change=False)
    assert {**copy, "headers": None} == {**scope, "headers": None}
    changed = changed_scope(
        {**scope, "path": "/x", "raw_path": b"/x"}, headers, body_may_change=False
    )
    assert (changed["path"], changed["raw_path"]) == (scope["path"], raw)


def tls_scope(**tls: object) -> dict[str, object]:
    return http_scope(extensions={"tls": {"server_cert": None, "tls_version": 0x0304, **tls}})


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0x0301, "TLSv1"),
        (0x0302, "TLSv1.1"),
        (0x0303, "TLSv1.2"),
        (0x0304, "TLSv1.3"),
        (0x0399, None),
        (None, None),
    ],
)
def test_tls_versions_are_named_as_envoy_does(number, name):
    assert describe(tls_scope(tls_version=number), "").tls_version == name


@pytest.mark.parametrize("extensions", [{}, {"tls": {}}, {"tls": None}, None])
def test_without_tls_there_is_nothing_to_tell(extensions):
    info = describe(http_scope(extensions=extensions), "")

    assert (info.tls_version, info.peer_certificate, info.peer_subject) == (None, None, None)
    assert info.tls_failure is None


def test_a_clients_certificate_is_the_first_of_its_chain():
    scope = tls_scope(client_cert_chain=["own", "issuer"], client_cert_name="CN=ada")
    info = describe(scope, "")

    assert (info.peer_certificate, info.peer_subject) == ("own", "CN=ada")


@pytest.mark.parametrize("chain", [[], None])
def test_a_client_without_certificate_has_none(chain):
    info = describe(tls_scope(client_cert_chain=chain, client_cert_name=None), "")

    assert (info.peer_certificate, info.peer_subject, info.tls_failure) == (None, None, None)


def test_a_certificate_that_was_not_accepted_is_none():
    scope = tls_scope(
        client_cert_chain=["own"], client_cert_name="CN=admin", client_cert_error="expired"
    )
    info = describe(scope, "")

    assert (info.peer_certificate, info.peer_subject) == (None, None)
    assert info.tls_failure == "expired"
