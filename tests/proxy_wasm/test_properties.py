"""Properties."""

from __future__ import annotations

import hashlib
import struct

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm import properties
from wasm_middleware.proxy_wasm.context import RootContext
from wasm_middleware.proxy_wasm.headers import HeaderMap
from wasm_middleware.proxy_wasm.stream import RequestInfo, StreamContext

from .harness import (
    OUT,
    REQUEST,
    RESPONSE,
    FakeClock,
    Guest,
    MakeGuest,
    begin,
    call,
    new_stream,
    respond,
    run,
    send_body,
)

HEADERS = [
    *REQUEST,
    (b"referer", b"https://from.example/"),
    (b"user-agent", b"curl"),
    (b"x-request-id", b"abc"),
]
ANSWER = [*RESPONSE, (b"grpc-status", b"5"), (b"x-tag", b"1"), (b"x-tag", b"2")]


def integer(value: int) -> bytes:
    return struct.pack("<q", value)


def size_of(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def joined(*replaced: tuple[bytes, bytes], headers: list[tuple[bytes, bytes]]) -> bytes:
    merged = dict(headers)
    merged.update(replaced)
    return pairs.encode(list(merged.items()))


#: What each property is while the response passes, and three bytes of each body have.
EXPECTED: dict[str, bytes | None] = {
    "request.path": b"/items/7?size=large",
    "request.url_path": b"/items/7",
    "request.query": b"size=large",
    "request.host": b"shop.example",
    "request.scheme": b"https",
    "request.method": b"GET",
    "request.referer": b"https://from.example/",
    "request.useragent": b"curl",
    "request.id": b"abc",
    "request.protocol": b"HTTP/1.1",
    "request.headers": joined((b"x-tag", b"one,two"), headers=HEADERS),
    "request.time": integer(1_700_000_000_000_000_000),
    "request.duration": None,
    "request.size": integer(3),
    "request.headers_bytes": integer(size_of(HEADERS)),
    "request.total_size": integer(size_of(HEADERS) + 3),
    "response.code": integer(200),
    "response.code_details": b"via_upstream",
    "response.flags": integer(0),
    "response.grpc_status": integer(5),
    "response.headers": joined((b"x-tag", b"1,2"), headers=ANSWER),
    "response.headers_bytes": integer(size_of(ANSWER)),
    "response.size": integer(4),
    "response.total_size": integer(size_of(ANSWER) + 4),
    "response.trailers": None,
    "source.address": b"192.0.2.7:4711",
    "source.port": integer(4711),
    "destination.address": b"[2001:db8::1]:443",
    "destination.port": integer(443),
    "connection.mtls": b"\0",
    "connection.subject_peer_certificate": None,
    "connection.sha256_peer_certificate_digest": None,
    "connection.transport_failure_reason": None,
    "connection.tls_version": b"TLSv1.3",
    "route_name": b"items",
    "xds.route_name": b"items",
    "route.id": b"items",
}


def path(dotted: str) -> bytes:
    return dotted.replace(".", "\0").encode()


def get(guest: Guest, context: StreamContext | RootContext, name: bytes) -> bytes | None:
    status = guest.ask(context, "proxy_get_property", guest.text(name), OUT, OUT + 4)

    if status == Status.NOT_FOUND:
        return None

    assert status == Status.OK
    return guest.got()


@pytest.fixture
def context(guest: Guest) -> StreamContext:
    """A stream in which the response body is passing."""
    stream = new_stream(guest)
    begin(stream, HEADERS)
    send_body(stream, b"abc")
    respond(stream, ANSWER)
    guest.on("proxy_on_response_body", returns=1)
    send_body(stream, b"defg", response=True, ended=False)
    return stream.contexts[0]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_property_has_its_type(guest: Guest, context: StreamContext, name: str) -> None:
    assert get(guest, context, path(name)) == EXPECTED[name]


def test_the_table_of_these_tests_is_complete() -> None:
    ids = {"connection.id", "connection_id"}
    assert {b".".join(found).decode() for found in properties.PATHS} == set(EXPECTED) | ids


def test_each_stream_has_a_connection_id(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    streams = [new_stream(first, second), new_stream(first, second)]
    ids = []

    for stream in streams:
        begin(stream)
        ids += [get(first, stream.contexts[0], b"connection\0id")]
        # The same for each plugin, and under the name that Envoy's plugins had first.
        assert get(second, stream.contexts[1], b"connection\0id") == ids[-1]
        assert get(first, stream.contexts[0], b"connection_id") == ids[-1]

    assert len(set(ids)) == 2
    assert [len(found or b"") for found in ids] == [8, 8]


#: Its DER is "certificate".
PEM = "-----BEGIN CERTIFICATE-----\nY2VydGlm\naWNhdGU=\n-----END CERTIFICATE-----\n"


def test_a_clients_certificate_is_described(guest: Guest) -> None:
    info = RequestInfo(peer_certificate=PEM, peer_subject="CN=ada,O=Engines")
    stream = new_stream(guest, info=info)
    begin(stream)
    context = stream.contexts[0]

    assert get(guest, context, b"connection\0mtls") == b"\1"
    assert get(guest, context, b"connection\0subject_peer_certificate") == b"CN=ada,O=Engines"
    digest = get(guest, context, b"connection\0sha256_peer_certificate_digest")
    assert digest == hashlib.sha256(b"certificate").hexdigest().encode()


@pytest.mark.parametrize(
    "certificate",
    [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nä\n-----END CERTIFICATE-----",
    ],
)
def test_a_certificate_that_can_not_be_read_has_no_digest(guest: Guest, certificate: str) -> None:
    stream = new_stream(guest, info=RequestInfo(peer_certificate=certificate))
    begin(stream)

    name = b"connection\0sha256_peer_certificate_digest"
    assert get(guest, stream.contexts[0], name) is None


def test_why_a_certificate_was_refused(guest: Guest) -> None:
    stream = new_stream(guest, info=RequestInfo(tls_failure="certificate has expired"))
    begin(stream)
    name = b"connection\0transport_failure_reason"

    assert get(guest, stream.contexts[0], name) == b"certificate has expired"
    assert get(guest, stream.contexts[0], b"connection\0mtls") == b"\0"


def test_trailers_are_properties(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream)
    respond(stream, ANSWER)
    trailers = [(b"grpc-status", b"0"), (b"x-sum", b"1"), (b"x-sum", b"2")]
    run(stream.response.end(HeaderMap(list(trailers))))
    context = stream.contexts[0]

    assert get(guest, context, b"response\0trailers") == pairs.encode(
        [(b"grpc-status", b"0"), (b"x-sum", b"1,2")]
    )
    assert get(guest, context, b"response\0trailers\0X-Sum") == b"1,2"
    assert get(guest, context, b"response\0trailers\0x-none") is None
    total = integer(size_of(ANSWER) + size_of(trailers))
    assert get(guest, context, b"response\0total_size") == total


@pytest.mark.parametrize("name", [b"listener_direction", b"xds\0listener_direction"])
def test_requests_are_inbound(guest: Guest, context: StreamContext, name: bytes) -> None:
    [root] = guest.vm.roots.values()

    assert get(guest, context, name) == integer(1)
    assert get(guest, root, name) == integer(1)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_property_can_be_asked_for_before_there_is_a_response(
    guest: Guest, name: str
) -> None:
    stream = new_stream(guest, info=RequestInfo())
    begin(stream, [])
    value = get(guest, stream.contexts[0], path(name))

    assert value is None or name.startswith(("request", "response", "connection"))


@pytest.mark.parametrize(
    "raw",
    [
        b"request\0method",
        b"request\0method\0",
        b"request\0method\0\0\0",
        b"\0request\0\0method",
    ],
)
def test_trailing_and_empty_segments_are_dropped(
    guest: Guest, context: StreamContext, raw: bytes
) -> None:
    assert get(guest, context, raw) == b"GET"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"request.method", b"request", b"Request\0method"),
        *(b"upstream\0address", b"node", b"node\0id", b"cluster_name", b"xds\0cluster_name"),
        *(b"metadata", b"filter_state", b"filter_state\0wasm.", b"filter_state\0wasm.x"),
        *(b"connection\0requested_server_name", b"connection\0dns_san_peer_certificate"),
    ],
)
def test_what_is_no_property_is_not_found(guest: Guest, context: StreamContext, raw: bytes) -> None:
    assert get(guest, context, raw) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"request\0headers\0accept", b"text/html"),
        (b"request\0headers\0Accept", b"text/html"),
        (b"request\0headers\0x-tag", b"one,two"),
        (b"request\0headers\0x-empty", b""),
        (b"request\0headers\0x-none", None),
        (b"request\0headers\0:method", b"GET"),
        (b"request\0headers\0:authority", b"shop.example"),
        (b"request\0headers\0host", b"shop.example"),
        (b"response\0headers\0server", b"app"),
        (b"response\0headers\0x-tag", b"1,2"),
        (b"request\0trailers\0x-tag", None),
        (b"upstream\0headers\0x-tag", None),
    ],
)
def test_one_header_is_a_property(
    guest: Guest, context: StreamContext, name: bytes, value: bytes | None
) -> None:
    assert get(guest, context, name) == value


def test_the_path_is_what_a_plugin_has_made_of_it(guest: Guest) -> None:
    guest.on(
        "proxy_on_request_headers",
        call("proxy_replace_header_map_value", 0, guest.text(b":path"), guest.text(b"/new?a=b")),
    )
    stream = new_stream(guest)
    begin(stream)

    names = [b"request\0path", b"request\0url_path", b"request\0query"]
    assert [get(guest, stream.contexts[0], name) for name in names] == [
        b"/new?a=b",
        b"/new",
        b"a=b",
    ]


@pytest.mark.parametrize(
    ("version", "protocol"),
    [("1.0", b"HTTP/1.0"), ("1.1", b"HTTP/1.1"), ("2", b"HTTP/2"), ("3", b"HTTP/3")],
)
def test_protocols_are_named_as_envoy_does(guest: Guest, version: str, protocol: bytes) -> None:
    stream = new_stream(guest, info=RequestInfo(http_version=version))
    begin(stream)

    assert get(guest, stream.contexts[0], b"request\0protocol") == protocol


def test_the_size_of_a_request_is_what_the_client_said(guest: Guest) -> None:
    stream = new_stream(guest)
    begin(stream, [*REQUEST, (b"content-length", b"512")])

    assert get(guest, stream.contexts[0], b"request\0size") == integer(512)


@pytest.mark.parametrize("length", [b"-1", b"many", b"9" * 5000, b""])
def test_a_length_that_is_no_number_is_not_believed(guest: Guest, length: bytes) -> None:
    stream = new_stream(guest)
    begin(stream, [*REQUEST, (b"content-length", length)])

    assert get(guest, stream.contexts[0], b"request\0size") == integer(0)


def test_the_duration_is_there_in_on_log(guest: Guest) -> None:
    asked = call("proxy_get_property", guest.text(b"request\0duration"), OUT, OUT + 4)
    guest.on("proxy_on_log", asked)
    stream = new_stream(guest)
    begin(stream)
    clock = guest.services.clock
    assert isinstance(clock, FakeClock)
    clock.steady += 1_500_000
    run(stream.finish())

    assert guest.got() == integer(1_500_000)


def test_the_details_of_a_local_reply_are_a_property(guest: Guest) -> None:
    guest.on(
        "proxy_on_request_headers",
        call(
            "proxy_send_local_response",
            *(403, guest.text(b"no_token"), guest.text(b""), guest.text(b""), -1),
        ),
    )
    asked = call("proxy_get_property", guest.text(b"response\0code_details"), OUT, OUT + 4)
    guest.on("proxy_on_log", asked)
    stream = new_stream(guest)
    begin(stream)
    run(stream.begin_reply(head=False))
    run(stream.finish())

    assert guest.got() == b"no_token"


# Who asks


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"plugin_name", b"tested"), (b"plugin_root_id", b"root"), (b"plugin_vm_id", b"machine")],
)
def test_a_plugin_knows_who_it_is_in_every_context(
    make_guest: MakeGuest, name: bytes, value: bytes
) -> None:
    guest = make_guest(root_id="root", vm_id="machine")
    stream = new_stream(guest)
    begin(stream)
    [root] = guest.vm.roots.values()

    assert get(guest, root, name) == value
    assert get(guest, stream.contexts[0], name) == value


def test_a_root_context_has_no_request(guest: Guest) -> None:
    [root] = guest.vm.roots.values()

    assert get(guest, root, b"request\0path") is None


# Setting


def put(guest: Guest, context: StreamContext | RootContext, name: bytes, value: bytes) -> int:
    return guest.ask(context, "proxy_set_property", guest.text(name), guest.text(value))


@pytest.mark.parametrize("name", [b"one", b"two\0parts", b"a\0b\0c\0d"])
def test_what_is_set_is_what_is_got(guest: Guest, context: StreamContext, name: bytes) -> None:
    status = put(guest, context, name, b"value\0\xff")

    assert (status, get(guest, context, name)) == (Status.OK, b"value\0\xff")


@pytest.mark.parametrize("name", [b"request\0method", b"source\0address", b"request\0duration"])
def test_no_plugin_tells_another_what_the_host_knows(
    guest: Guest, context: StreamContext, name: bytes
) -> None:
    before = get(guest, context, name)

    assert put(guest, context, name, b"forged") == Status.OK
    assert get(guest, context, name) == before


def test_no_plugin_tells_another_who_it_is(guest: Guest, context: StreamContext) -> None:
    put(guest, context, b"plugin_name", b"forged")

    assert get(guest, context, b"plugin_name") == b"tested"


@pytest.mark.parametrize(
    "name",
    [
        b"plugin_name",
        b"plugin_root_id",
        b"plugin_vm_id",
        b"listener_direction",
        b"xds\0listener_direction",
    ],
)
def test_no_plugin_changes_what_it_is(guest: Guest, context: StreamContext, name: bytes) -> None:
    [root] = guest.vm.roots.values()
    before = get(guest, root, name)
    statuses = [put(guest, setter, name, b"forged") for setter in (root, context)]

    assert statuses == [Status.OK] * 2
    assert before is not None
    assert [get(guest, reader, name) for reader in (root, context)] == [before] * 2


@pytest.mark.parametrize("setter", ["root", "stream"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"request\0headers\0accept", b"text/html"),
        (b"request\0headers\0x-user", None),
        (b"response\0headers\0x-user", None),
        (b"response\0trailers\0x-user", None),
    ],
)
def test_no_plugin_tells_another_what_a_header_says(
    guest: Guest, context: StreamContext, setter: str, name: bytes, value: bytes | None
) -> None:
    [root] = guest.vm.roots.values()

    assert put(guest, root if setter == "root" else context, name, b"forged") == Status.OK
    assert get(guest, context, name) == value


def test_a_trailing_nul_makes_no_other_path(guest: Guest, context: StreamContext) -> None:
    put(guest, context, b"my\0path\0", b"value")

    assert get(guest, context, b"my\0path") == b"value"


@pytest.mark.parametrize(
    ("name", "alias"),
    [(b"user", b"filter_state\0wasm.user"), (b"auth\0user", b"filter_state\0wasm.auth\0user")],
)
def test_what_is_set_is_filter_state_as_in_envoy(
    guest: Guest, context: StreamContext, name: bytes, alias: bytes
) -> None:
    put(guest, context, name, b"ada")

    assert get(guest, context, alias) == b"ada"


@pytest.mark.parametrize("name", [b"filter_state\0tier", b"metadata\0filter_metadata\0mine\0x"])
def test_metadata_is_what_plugins_set(guest: Guest, context: StreamContext, name: bytes) -> None:
    assert get(guest, context, name) is None
    put(guest, context, name, b"gold")

    assert get(guest, context, name) == b"gold"


def test_an_empty_value_is_a_value(guest: Guest, context: StreamContext) -> None:
    put(guest, context, b"empty", b"")

    assert get(guest, context, b"empty") == b""


def test_later_plugins_of_the_stream_see_what_was_set(make_guest: MakeGuest) -> None:
    first, second = make_guest(), make_guest()
    first.on(
        "proxy_on_request_headers",
        call("proxy_set_property", first.text(b"auth\0user"), first.text(b"ada")),
    )
    asked = call("proxy_get_property", second.text(b"auth\0user"), OUT, OUT + 4)
    second.on("proxy_on_request_headers", asked)

    begin(new_stream(first, second))

    assert second.got() == b"ada"


def test_other_streams_do_not_see_it(guest: Guest, context: StreamContext) -> None:
    put(guest, context, b"auth\0user", b"ada")
    other = new_stream(guest)
    begin(other)

    assert get(guest, other.contexts[0], b"auth\0user") is None


def test_what_a_root_context_set_all_its_streams_see(guest: Guest) -> None:
    [root] = guest.vm.roots.values()
    put(guest, root, b"shared\0value", b"1")
    stream = new_stream(guest)
    begin(stream)

    assert get(guest, stream.contexts[0], b"shared\0value") == b"1"


def test_what_a_stream_set_goes_before_what_a_root_context_set(
    guest: Guest, context: StreamContext
) -> None:
    [root] = guest.vm.roots.values()
    put(guest, root, b"user", b"nobody")
    assert get(guest, context, b"user") == b"nobody"
    put(guest, context, b"user", b"ada")
    put(guest, root, b"user", b"anybody")

    assert get(guest, context, b"user") == b"ada"
    assert get(guest, context, b"filter_state\0wasm.user") == b"ada"
    assert get(guest, root, b"user") == b"anybody"


def test_what_another_root_context_set_is_its_own(guest: Guest, context: StreamContext) -> None:
    """A route with a configuration of its own."""
    other = run(guest.vm.add_root(b"another configuration"))
    put(guest, other, b"shared\0value", b"1")

    assert get(guest, other, b"shared\0value") == b"1"
    assert get(guest, context, b"shared\0value") is None


def test_the_properties_of_a_root_context_have_a_cap(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_STREAM_PROPERTIES", 2)
    [root] = guest.vm.roots.values()

    for name in (b"a", b"b", b"c"):
        put(guest, root, name, b"x")

    assert [get(guest, root, name) for name in (b"a", b"b", b"c")] == [b"x", b"x", None]


@pytest.mark.parametrize(
    "name",
    [b"", b"\0", b"x" * (limits.MAX_PROPERTY_PATH_BYTES + 1)],
    ids=["empty", "without segments", "too long"],
)
def test_what_is_no_path_is_neither_set_nor_got(
    guest: Guest, context: StreamContext, name: bytes
) -> None:
    """Not the specification's statuses: the Rust SDK's `Context` panics on those."""
    assert put(guest, context, name, b"value") == Status.OK
    assert context.stream.properties == {}

    status = guest.ask(context, "proxy_get_property", guest.text(name), OUT, OUT + 4)
    assert status == Status.NOT_FOUND


def test_the_properties_of_a_stream_have_a_cap(
    guest: Guest, context: StreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A path of one segment, and a value.
    most = 20 + 2 * limits.PROPERTY_OVERHEAD
    monkeypatch.setattr(limits, "MAX_STREAM_PROPERTIES_BYTES", most)

    assert put(guest, context, b"a", b"x" * 10) == Status.OK
    assert put(guest, context, b"b", b"x" * 10) == Status.OK
    assert put(guest, context, b"c", b"x" * 21) == Status.OK
    # What replaces another value takes its room.
    for _ in range(3):
        assert put(guest, context, b"a", b"y" * 19) == Status.OK

    assert put(guest, context, b"a", b"z" * 20) == Status.OK
    assert get(guest, context, b"a") == b"y" * 19
    assert [get(guest, context, name) for name in (b"b", b"c")] == [None, None]


@pytest.mark.parametrize("setter", ["root", "stream"])
def test_the_segments_of_a_path_take_memory_too(
    guest: Guest, context: StreamContext, setter: str
) -> None:
    """Each is an object: 400 paths of 2,000 of them took 26 MiB."""
    [root] = guest.vm.roots.values()
    kept = root.properties if setter == "root" else context.stream.properties
    segments = [b"xy"] * 600
    made = limits.MAX_STREAM_PROPERTIES_BYTES // (600 * limits.PROPERTY_OVERHEAD)

    for number in range(made + 5):
        name = b"\0".join([b"%d" % number, *segments])
        put(guest, root if setter == "root" else context, name, b"")

    assert made - 2 <= len(kept) <= made


@pytest.mark.parametrize("setter", ["root", "stream"])
def test_setting_one_does_not_look_at_all_others(
    guest: Guest, context: StreamContext, setter: str
) -> None:
    class Counted(bytes):
        measured = 0

        def __len__(self) -> int:
            type(self).measured += 1
            return super().__len__()

    [root] = guest.vm.roots.values()
    asked = root if setter == "root" else context
    asked.set_property((Counted(b"a"), Counted(b"b")), Counted(b"1"))
    before = Counted.measured
    asked.set_property((b"other",), b"2")

    assert Counted.measured == before


def test_a_stream_has_only_so_many_properties(
    guest: Guest, context: StreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_STREAM_PROPERTIES", 2)
    statuses = [put(guest, context, name, b"x") for name in (b"a", b"b", b"c", b"a")]

    assert statuses == [Status.OK] * 4
    assert [get(guest, context, name) for name in (b"a", b"b", b"c")] == [b"x", b"x", None]
