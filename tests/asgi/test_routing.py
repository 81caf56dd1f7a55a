"""Which plugins run: routes, decorators, `plugins=[…]`, order, phases, configurations."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from wasm_middleware import WasmPluginMiddleware, wasm_exempt, wasm_plugins

from .guests import RESPONSE_HEADERS, BodyGuest, Guest
from .harness import Server, Spy, chunks, echo, http_scope, post_scope, respond

pytestmark = pytest.mark.anyio


async def endpoint(request):
    return PlainTextResponse("hi")


def route(path, *plugins, **more):
    return {"path": path, "plugins": list(plugins), **more}


def starlette(workshop, *routes, **options):
    app = Starlette(routes=list(routes))
    options = {"config": workshop.config(), "engine": workshop.engine, **options}
    app.add_middleware(WasmPluginMiddleware, **options)
    return workshop.around(app)


async def ran(workshop, app, path="/", phase="request_headers", **more):
    """The plugins of one request, in the order of a phase."""
    workshop.events.clear()
    await Server(http_scope(path, **more)).run(app)
    pairs = [event.split(" ") for event in workshop.events]
    return [name for name, what in pairs if what == phase]


async def test_without_routes_every_plugin_is_on_every_request(workshop):
    workshop.add(Guest, name="a")
    workshop.add(Guest, name="b")
    app = workshop.wrap(respond(b""))
    assert await ran(workshop, app, "/any/where") == ["a", "b"]


async def test_the_first_route_that_matches_chooses(workshop):
    for name in "abc":
        workshop.add(Guest, name=name)

    routes = [
        route("/x/{id}", "a"),
        route("/x/*", "b", methods=["POST"], id="post"),
        route("/x/*", "c", "a"),
        route("/free"),
        route("/*", "b"),
    ]
    app = workshop.wrap(respond(b""), routes=routes)
    assert await ran(workshop, app, "/x/1") == ["a"]
    assert await ran(workshop, app, "/x/1/2") == ["c", "a"]
    assert await ran(workshop, app, "/x/1/2", method="POST") == ["b"]
    assert await ran(workshop, app, "/free") == []
    assert await ran(workshop, app, "/other") == ["b"]


async def test_a_get_route_covers_head(workshop):
    workshop.add(Guest, name="a")
    app = workshop.wrap(respond(b""), routes=[route("/x", "a", methods=["GET"])])
    assert await ran(workshop, app, "/x", method="HEAD") == ["a"]
    assert await ran(workshop, app, "/x", method="POST") == []


async def test_priority_orders_and_ties_keep_the_routes_order(workshop):
    for name, priority in (("low", -1), ("one", 0), ("two", 0), ("high", 5)):
        workshop.add(Guest, name=name, priority=priority)

    app = workshop.wrap(respond(b""), routes=[route("/*", "low", "two", "high", "one")])
    order = ["high", "two", "one", "low"]
    assert await ran(workshop, app) == order
    assert await ran(workshop, app, phase="response_headers") == order[::-1]
    # In chain order, as in Envoy; and each context ends as a whole.
    assert await ran(workshop, app, phase="log") == order
    ends = [event for event in workshop.events if event.endswith(("done", "delete"))]
    assert ends == [f"{name} {end}" for name in order for end in ("done", "delete")]


async def test_ties_follow_the_route_then_the_decorator_then_the_file(workshop):
    for name in "abcd":
        workshop.add(Guest, name=name)

    decorated = wasm_plugins("c", "a")(Route("/x", endpoint))
    app = starlette(workshop, decorated, routes=[route("/x", "d", "b")])
    assert await ran(workshop, app, "/x") == ["d", "b", "c", "a"]
    app = starlette(workshop, decorated)
    assert await ran(workshop, app, "/x") == ["a", "b", "c", "d"]


async def test_a_decorator_adds_to_what_the_path_chose_and_nothing_runs_twice(workshop):
    for name in "ab":
        workshop.add(Guest, name=name)

    @wasm_plugins("b", "a")
    async def both(request):
        return PlainTextResponse("hi")

    app = starlette(
        workshop, Route("/both", both), Route("/one", endpoint), routes=[route("/*", "a")]
    )
    assert await ran(workshop, app, "/both") == ["a", "b"]
    assert await ran(workshop, app, "/one") == ["a"]


async def test_an_exempt_endpoint_has_only_what_is_mandatory_on_its_path(workshop):
    workshop.add(Guest, name="a")
    workshop.add(Guest, name="must", mandatory=True)

    @wasm_exempt
    async def exempt(request):
        return PlainTextResponse("hi")

    routes = [route("/guarded/*", "a", "must"), route("/*", "a")]
    app = starlette(
        workshop,
        Route("/x", exempt),
        Mount("/guarded", routes=[Route("/x", exempt), Route("/y", endpoint)]),
        routes=routes,
    )
    assert await ran(workshop, app, "/x") == []
    assert await ran(workshop, app, "/guarded/x") == ["must"]
    assert await ran(workshop, app, "/guarded/y") == ["a", "must"]


async def test_plugins_is_the_whole_chain(workshop):
    for name in "abc":
        workshop.add(Guest, name=name)

    decorated = wasm_plugins("c")(Route("/x", endpoint))
    exempt = wasm_exempt(Route("/y", endpoint))
    options = {"plugins": ["b", "a"], "routes": [route("/*", "c")]}
    app = starlette(workshop, decorated, exempt, **options)
    assert await ran(workshop, app, "/x") == ["b", "a"]
    assert await ran(workshop, app, "/y") == ["b", "a"]
    app = starlette(workshop, decorated, plugins=[])
    assert await ran(workshop, app, "/x") == []


async def test_decorators_of_another_file_do_not_concern_a_chain_that_was_given(workshop):
    workshop.add(Guest, name="a")
    decorated = wasm_plugins("not-in-this-file")(Route("/x", endpoint))
    app = starlette(workshop, decorated, plugins=["a"])
    assert await ran(workshop, app, "/x") == ["a"]


PHASES = {
    "on_request_headers": "request_headers",
    "on_request_body": "request_body",
    "on_response_headers": "response_headers",
    "on_response_body": "response_body",
    "on_log": "log",
}


@pytest.mark.parametrize("phase", [[one] for one in PHASES] + [["on_log", "on_request_body"]])
async def test_only_the_phases_of_the_file_run(workshop, phase):
    workshop.add(BodyGuest, name="a", phase=phase)
    app = workshop.wrap(echo)
    server = await Server(post_scope(), chunks(b"x")).run(app)
    assert server.body == b"x"
    phases = workshop.phases("a")
    assert {one for one in phases if one in PHASES.values()} == {PHASES[one] for one in phase}
    assert [phases.count(one) for one in ("create", "done", "delete")] == [1, 1, 1]


async def test_bodies_may_be_switched_off_and_on(workshop):
    workshop.add(BodyGuest, name="off", bodies=False)
    workshop.add(Guest, name="on", bodies=True)
    await Server(post_scope(), chunks(b"x")).run(workshop.wrap(echo))
    assert "request_body" not in workshop.phases("off")
    assert {"request_body", "response_body"} <= set(workshop.phases("on"))


async def test_a_routes_configuration_is_another_root_context_of_the_same_instance(workshop):
    class Configured(BodyGuest):
        made = 0

        def __init__(self, memory, host):
            super().__init__(memory, host)
            type(self).made += 1
            self.configs = {}
            self.roots = {}

        def configure(self):
            self.configs[self.context] = self.config()

        def proxy_on_context_create(self, context, root):
            super().proxy_on_context_create(context, root)
            self.roots[context] = root

        def request_headers(self, end):
            self.set(b"x-config", self.configs[self.roots[self.context]])
            self.set(b"x-own", self.fetch(self.host.proxy_get_buffer_bytes, 7, 0, 99))

    made = workshop.add(Configured, name="a", config="default")
    routes = [
        route("/one", {"name": "a", "config": {"n": 1}}),
        route("/two", {"name": "a", "config": "two"}),
        route("/same", {"name": "a", "config": "two"}),
        route("/*", "a"),
    ]
    spy = Spy()
    app = workshop.wrap(spy, routes=routes)
    seen = {}

    for path in ("/one", "/two", "/same", "/x"):
        await Server(http_scope(path)).run(app)
        (seen[path],) = {spy.header(b"x-config")[0], spy.header(b"x-own")[0]}

    assert seen == {"/one": b'{"n":1}', "/two": b"two", "/same": b"two", "/x": b"default"}
    assert made.made == 1
    assert workshop.phases("a").count("root") == 3


async def test_streams_are_spread_over_instances_that_share_data(workshop):
    class Counter(Guest):
        made = 0

        def __init__(self, memory, host):
            super().__init__(memory, host)
            type(self).made += 1
            self.number = b"%d" % type(self).made

        def request_headers(self, end):
            count = int(self.shared(b"count") or b"0") + 1
            self.share(b"count", b"%d" % count)
            self.set(b"x-seen", b"%d by %s" % (count, self.number))

    workshop.add(Counter, instances={"min": 2})
    spy = Spy()
    app = workshop.wrap(spy)
    seen = []

    for _ in range(4):
        await Server(http_scope()).run(app)
        seen += spy.header(b"x-seen")

    counts, instances = zip(*(text.split(b" by ") for text in seen), strict=True)
    assert counts == (b"1", b"2", b"3", b"4")
    assert sorted(instances) == [b"1", b"1", b"2", b"2"]
    assert instances[0] != instances[1]


async def test_a_capability_that_is_not_listed_is_refused(workshop, caplog):
    statuses = []

    class Curious(Guest):
        def request_headers(self, end):
            statuses.append(self.set(b"x", b"1"))

        def response_headers(self, end):
            statuses.append(self.set(b"x", b"1", RESPONSE_HEADERS))

    allowed = ["proxy_on_request_headers", "proxy_on_memory_allocate"]
    workshop.add(Curious, name="a", allowed_capabilities=allowed)
    await Server(http_scope()).run(workshop.wrap(respond(b"")))
    assert statuses == [10]
    assert "response_headers" not in workshop.phases("a")
    assert "allowed_capabilities do not list it" in caplog.text
