"""No spelling of a path reaches a protected endpoint past its plugin.

The whole way is walked: the path as a client sends it, decoded as servers do, routes, decorators
and the application's own router. Every protected endpoint notes whether the guard has run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from fastapi import APIRouter, FastAPI, Request
from hypothesis import example, given, settings, strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from wasm_middleware import WasmPluginMiddleware, wasm_exempt, wasm_plugins

from .guests import Guest
from .harness import Server, Workshop, http_scope

ran: Counter[str] = Counter()


class Guard(Guest):
    def request_headers(self, end):
        self.set(b"x-guard", b"was here")


class Rewrite(Guest):
    """Puts the path of x-to in the place of the request's."""

    def request_headers(self, end):
        self.set(b":path", self.get(b"x-to"))


async def protected(request):
    ran["guarded" if "x-guard" in request.headers else "BYPASSED"] += 1
    return PlainTextResponse("private")


async def exempt(request):
    return await protected(request)


async def public(request):
    ran["public"] += 1
    return PlainTextResponse("public")


async def fastapi_protected(request: Request) -> None:
    await protected(request)


async def fastapi_public(request: Request) -> None:
    await public(request)


def starlette_app(mark) -> Starlette:
    below = [
        Route("/", mark(protected)),
        Route("/me", mark(exempt)),
        Route("/{id}", mark(protected)),
    ]
    tree = [Route("/leaf", mark(protected)), Mount("/deep", routes=below)]
    return Starlette(
        routes=[
            Route("/", public),
            Route("/private", mark(protected)),
            Route("/private/", mark(protected)),
            Route("/private/me", mark(exempt)),
            Mount("/private/tree", app=Router(tree)),
            Mount("/private/app", app=Starlette(routes=below)),
            Route("/private/users/{name}/posts", mark(protected), methods=["GET", "POST"]),
            Route("/private/files/{path:path}", mark(protected)),
            Route("/{page}", public),
            Mount("/public", routes=[Route("/{rest:path}", public)]),
        ]
    )


def fastapi_app(mark, root_path="") -> FastAPI:
    app = FastAPI()
    # As `FastAPI(root_path=...)`, which is deprecated but not gone.
    app.root_path = root_path
    inner, outer, sub = APIRouter(), APIRouter(prefix="/private"), FastAPI()
    inner.get("/inner/{id}")(mark(fastapi_protected))
    outer.get("/me")(mark(fastapi_protected))
    outer.api_route("/", methods=["GET", "POST"])(mark(fastapi_protected))
    outer.include_router(inner, prefix="/nested")
    sub.get("/me")(mark(fastapi_protected))
    app.include_router(outer)
    app.mount("/private/sub", sub)
    app.get("/public/{rest:path}")(fastapi_public)
    app.get("/{page}")(fastapi_public)
    return app


def unmarked(endpoint):
    """The path protects it; what a decorator says against it does not count."""
    return wasm_exempt(endpoint) if endpoint is exempt else endpoint


def marked(endpoint):
    return wasm_plugins("guard")(function_like(endpoint))


def function_like(endpoint):
    """A copy, since a decorator marks what it is given."""

    async def copy(request: Request):
        await endpoint(request)
        return PlainTextResponse("")

    return copy


BUILDERS = {
    "starlette, routes": lambda: starlette_app(unmarked),
    "starlette, decorators": lambda: starlette_app(marked),
    "fastapi, routes": lambda: fastapi_app(unmarked),
    "fastapi, decorators": lambda: fastapi_app(marked),
    "fastapi with root_path, routes": lambda: fastapi_app(unmarked, root_path="/api"),
    "fastapi with root_path, decorators": lambda: fastapi_app(marked, root_path="/api"),
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module", params=[*BUILDERS])
def site(request, tmp_path_factory):
    """A builder's application, plain, and with a plugin that rewrites every path; by decorators
    there are no routes, and by routes no decorators that add anything."""
    workshop = Workshop(tmp_path_factory.mktemp("plugins"))
    workshop.add(Guard, mandatory=True)
    workshop.add(Rewrite, priority=9)
    by_route = request.param.endswith("routes")
    guarded = [{"path": "/private/*", "plugins": ["guard"]}] if by_route else []
    first = [{"path": "/public/*", "plugins": ["rewrite"]}]

    def wrapped(routes):
        app = BUILDERS[request.param]()
        app.add_middleware(
            WasmPluginMiddleware, config=workshop.config(routes=routes), engine=workshop.engine
        )
        return app

    return wrapped(guarded), wrapped(guarded + first)


#: Where protected endpoints are, and some that are not.
BASES = [
    "/private",
    "/private/",
    "/private/me",
    "/private/tree/leaf",
    "/private/tree/deep/",
    "/private/tree/deep/me",
    "/private/tree/deep/5",
    "/private/app/me",
    "/private/users/x/posts",
    "/private/files/a/b",
    "/private/nested/inner/7",
    "/private/sub/me",
    "/public/private/me",
    "/api/private/me",
    "/api/private/sub/me",
]

PIECES = st.sampled_from(
    ["/", "//", "/./", "/x/../", "/../", "%2F", "%2f", "%2E%2E/", "..%2f", "/%2e/", "%00", "%0A",
     "%0a", "%", "%25", "%252F", ";", ";x=1", "?", "#", "\\", "%5C", " ", "é", "private", "api",
     "PRIVATE", "me"]
)  # fmt: skip


@st.composite
def spellings(draw) -> str:
    """A path near one that exists: characters encoded or in other case, pieces put in or cut."""
    text = draw(st.sampled_from(BASES))

    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))

        match draw(st.sampled_from(["encode", "insert", "insert", "slash", "end", "case", "cut"])):
            case "encode" if at < len(text) and text[at] != "%":
                text = f"{text[:at]}%{ord(text[at]) % 256:02x}{text[at + 1 :]}"
            case "insert":
                text = text[:at] + draw(PIECES) + text[at:]
            case "slash":
                slash = text.find("/", at)
                text = text[:slash] + draw(PIECES) + text[slash + 1 :] if slash >= 0 else text
            case "end":
                text += draw(PIECES)
            case "case" if at < len(text):
                text = text[:at] + text[at].swapcase() + text[at + 1 :]
            case "cut":
                text = text[:at] + text[at + 1 :]

    return text


ROOT_PATHS = st.sampled_from(["", "", "/api", "/root", "/private", "/p", "/api/", "private"])
METHODS = st.sampled_from(["GET", "GET", "HEAD", "POST", "get", "OPTIONS"])


def request_scope(text: str, root_path: str, prefixed: bool, method: str, **more):
    """What a server makes of a request line."""
    path, _, query = text.partition("?")
    path = (root_path if prefixed else "") + path
    raw = path.encode()
    scope = http_scope("/", method=method, raw_path=raw, root_path=root_path, **more)
    return {**scope, "path": unquote(raw.decode()), "query_string": query.encode()}


def visit(loop, app, scope) -> None:
    ran.clear()
    loop.run_until_complete(Server(scope).run(app))
    assert not ran["BYPASSED"]


CASES = {
    "text": spellings(),
    "root_path": ROOT_PATHS,
    "prefixed": st.booleans(),
    "method": METHODS,
}


@settings(max_examples=300)
@given(**CASES)
@example(text="/private/me\n", root_path="", prefixed=False, method="GET")
@example(text="/private/me%0A", root_path="", prefixed=False, method="GET")
@example(text="/%70rivate/me", root_path="", prefixed=False, method="GET")
@example(text="/private%2Fme", root_path="", prefixed=False, method="GET")
@example(text="/private/me", root_path="/root", prefixed=True, method="GET")
@example(text="/private/tree/deep%0A", root_path="/root", prefixed=True, method="GET")
@example(text="/me", root_path="/private", prefixed=True, method="GET")
def test_no_spelling_slips_past(site, loop, text, root_path, prefixed, method):
    visit(loop, site[0], request_scope(text, root_path, prefixed, method))


@settings(max_examples=300)
@given(**CASES)
@example(text="/private/me", root_path="", prefixed=False, method="GET")
@example(text="/private%2Fme%0A", root_path="/root", prefixed=True, method="HEAD")
def test_no_spelling_that_a_plugin_makes_slips_past(site, loop, text, root_path, prefixed, method):
    # What HTTP does not allow is refused, and tested elsewhere.
    to = (root_path if prefixed else "") + text
    headers = [(b"x-to", to.encode("ascii", "ignore").replace(b" ", b"%20"))]
    scope = request_scope("/public/x", root_path, prefixed, method, headers=headers)
    visit(loop, site[1], scope)


@pytest.mark.parametrize("text", ["/private/", "/private/me"])
def test_the_endpoints_are_there_to_be_reached(site, loop, text):
    """What the properties above say would also be true if nothing ever ran."""
    for path, root_path, prefixed in (
        (text, "", False),
        (text, "/api", True),
        (text.replace("i", "%69"), "", False),
    ):
        visit(loop, site[0], request_scope(path, root_path, prefixed, "GET"))
        assert ran["guarded"] == 1

    headers = [(b"x-to", text.replace("a", "%61").encode())]
    visit(loop, site[1], request_scope("/public/x", "", False, "GET", headers=headers))
    assert ran["guarded"] == 1
