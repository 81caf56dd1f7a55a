from __future__ import annotations

import functools
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Mount, Route, Router

from wasm_middleware.asgi.decorators import (
    Marker,
    below,
    marker_of,
    together,
    wasm_exempt,
    wasm_plugins,
)

AUTH = Marker(("auth",))
LIMIT = Marker(("limit",))
EXEMPT = Marker(exempt=True)


def endpoint_function():
    async def endpoint(request):
        raise AssertionError

    return endpoint


def test_the_very_same_object_comes_back():
    for target in (
        endpoint_function(),
        lambda request: None,
        type("Endpoint", (HTTPEndpoint,), {}),
        functools.partial(endpoint_function()),
        Route("/", endpoint_function()),
        Mount("/", routes=[]),
        Router(),
    ):
        assert wasm_plugins("auth")(target) is target
        assert marker_of(target) == AUTH


def test_exempt_is_written_without_parentheses():
    @wasm_exempt
    def endpoint(request): ...

    assert marker_of(endpoint) == EXEMPT

    with pytest.raises(TypeError, match="without parentheses"):
        wasm_exempt()


def test_an_object_without_a_decorator_has_no_marker():
    for target in (endpoint_function(), HTTPEndpoint, Route("/", HTTPEndpoint), 5, None, Mock()):
        assert marker_of(target) is None


def test_stacked_decorators_add_up_from_the_outermost():
    @wasm_plugins("first", "second")
    @wasm_plugins("third")
    def endpoint(request): ...

    assert marker_of(endpoint) == Marker(("first", "second", "third"))


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ((), TypeError, "needs the name of a plugin"),
        ((5,), TypeError, "names of plugins, not 5"),
        ((["auth"],), TypeError, r"names of plugins, not \['auth'\]"),
        (("",), ValueError, "empty name"),
        (("auth", "auth"), ValueError, "'auth' twice"),
    ],
)
def test_wrong_names_are_refused(names, error, text):
    with pytest.raises(error, match=text):
        wasm_plugins(*names)


def test_plugins_without_parentheses_are_refused_with_the_right_way_to_write_it():
    with pytest.raises(TypeError, match=r'write @wasm_plugins\("auth"'):

        @wasm_plugins
        def endpoint(request): ...


def test_a_plugin_named_by_two_stacked_decorators_is_refused():
    with pytest.raises(ValueError, match="'auth' is named twice"):
        wasm_plugins("auth")(wasm_plugins("auth")(endpoint_function()))


def test_exempt_and_plugins_on_one_endpoint_are_refused_in_either_order():
    with pytest.raises(ValueError, match="exclude each other"):
        wasm_exempt(wasm_plugins("auth")(endpoint_function()))

    with pytest.raises(ValueError, match="exclude each other"):
        wasm_plugins("auth")(wasm_exempt(endpoint_function()))


def test_exempting_twice_is_the_same_as_once():
    assert marker_of(wasm_exempt(wasm_exempt(endpoint_function()))) == EXEMPT


@pytest.mark.parametrize("target", [5, "auth", None, [], object()])
def test_what_is_no_endpoint_is_refused(target):
    with pytest.raises(TypeError, match="is no endpoint"):
        wasm_plugins("auth")(target)


def test_what_takes_no_attributes_is_refused():
    class Handlers:
        async def get(self, request): ...

    for target in (len, Handlers().get, str):
        with pytest.raises(TypeError, match="can't be marked"):
            wasm_plugins("auth")(target)


def test_a_marker_is_seen_through_a_partial_a_bound_method_and_a_wrapper():
    @wasm_plugins("auth")
    async def endpoint(request): ...

    class Handlers:
        @wasm_plugins("auth")
        async def get(self, request): ...

    @functools.wraps(endpoint)
    async def wrapper(request): ...

    @functools.wraps(endpoint, updated=())
    async def wrapper_with_nothing_copied(request): ...

    assert marker_of(functools.partial(functools.partial(endpoint, 1), 2)) == AUTH
    assert marker_of(Handlers().get) == AUTH
    assert marker_of(wrapper) == AUTH
    assert marker_of(wrapper_with_nothing_copied) == AUTH


def test_a_wrapper_with_plugins_of_its_own_leaves_the_wrapped_endpoint_as_it_is():
    endpoint = wasm_plugins("auth")(endpoint_function())
    wrapper = wasm_plugins("limit")(functools.wraps(endpoint)(endpoint_function()))

    assert marker_of(wrapper) == Marker(("limit", "auth"))
    assert marker_of(endpoint) == AUTH


def test_a_partial_may_have_plugins_of_its_own():
    endpoint = wasm_plugins("auth")(endpoint_function())

    assert marker_of(wasm_plugins("limit")(functools.partial(endpoint))) == Marker(
        ("limit", "auth")
    )
    assert marker_of(endpoint) == AUTH


def test_a_static_method_and_a_class_method_are_marked_through_their_descriptors():
    class Handlers:
        @wasm_plugins("auth")
        @staticmethod
        async def get(request): ...

        @wasm_plugins("auth")
        @classmethod
        async def post(cls, request): ...

    assert marker_of(Handlers.get) == AUTH
    assert marker_of(Handlers.post) == AUTH


def test_an_object_has_the_marker_of_its_call_method_and_of_its_class():
    class Called:
        @wasm_plugins("auth")
        async def __call__(self, request): ...

    @wasm_plugins("auth")
    class Decorated:
        async def __call__(self, request): ...

    assert marker_of(Called()) == AUTH
    assert marker_of(Decorated()) == AUTH


def test_wrappers_that_lead_back_to_themselves_are_read_once():
    first, second = endpoint_function(), endpoint_function()
    first.__wrapped__, second.__wrapped__ = second, wasm_plugins("auth")(first)

    assert marker_of(second) == AUTH


def test_a_subclass_inherits_adds_to_and_ends_what_its_base_asks_for():
    @wasm_plugins("auth")
    class Base(HTTPEndpoint): ...

    class Plain(Base): ...

    @wasm_plugins("limit")
    class More(Base): ...

    @wasm_exempt
    class Public(Base): ...

    @wasm_plugins("limit")
    class Private(Public): ...

    assert marker_of(Plain) == AUTH
    assert marker_of(More) == Marker(("auth", "limit"))
    assert marker_of(Public) == EXEMPT
    assert marker_of(Private) == LIMIT
    assert marker_of(Base) == AUTH


def test_together_plugins_win_over_an_exemption():
    assert together(AUTH, LIMIT) == Marker(("auth", "limit"))
    assert together(EXEMPT, AUTH) == AUTH
    assert together(AUTH, EXEMPT) == AUTH
    assert together(EXEMPT, EXEMPT) == EXEMPT
    assert together(None, AUTH) == together(AUTH, None) == AUTH
    assert together(None, None) is None


def test_below_the_nearest_decides_and_plugins_add_up():
    assert below(AUTH, LIMIT) == Marker(("auth", "limit"))
    assert below(AUTH, Marker(("limit", "auth"))) == Marker(("auth", "limit"))
    assert below(AUTH, EXEMPT) == EXEMPT
    assert below(EXEMPT, AUTH) == AUTH
    assert below(None, EXEMPT) == below(EXEMPT, None) == EXEMPT
    assert below(None, None) is None


def router_of_fastapi():
    return SimpleNamespace(include_router=lambda: None, matches=lambda scope: None)


def test_a_router_that_its_framework_is_going_to_forget_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi.routing", ModuleType("fastapi.routing"))

    with pytest.raises(TypeError, match=r"upgrade to FastAPI 0\.137\.2"):
        wasm_plugins("auth")(router_of_fastapi())

    application = router_of_fastapi()
    application.openapi = dict
    assert marker_of(wasm_plugins("auth")(application)) == AUTH


def test_a_router_that_its_framework_remembers_is_marked(monkeypatch):
    remembers = ModuleType("fastapi.routing")
    remembers.iter_route_contexts = lambda routes: routes
    monkeypatch.setitem(sys.modules, "fastapi.routing", remembers)

    assert marker_of(wasm_plugins("auth")(router_of_fastapi())) == AUTH
