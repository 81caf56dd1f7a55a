"""The header map against a model of it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.proxy_wasm.headers import HeaderMap, InvalidHeader, canonical_name

NAMES = [b"a", b"b", b"set-cookie", b":path", b":authority", b"host", b"A", b"Set-Cookie", b"HOST"]
PAIRS = st.tuples(st.sampled_from(NAMES), st.sampled_from([b"", b"1", b"\xff"]))
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "replace"]), PAIRS),
        st.tuples(st.just("remove"), PAIRS),
        st.tuples(st.just("assign"), st.lists(PAIRS, max_size=3, unique_by=lambda pair: pair[0])),
    ),
    max_size=8,
)


def canonical(name: bytes) -> bytes:
    return {b"host": b":authority"}.get(name.lower(), name.lower())


class Model:
    """Values by name, in order; of a pseudo-header there is one."""

    def __init__(self) -> None:
        self.values: dict[bytes, list[bytes]] = {}

    def add(self, name: bytes, value: bytes) -> None:
        values = self.values.setdefault(canonical(name), [])

        if values and canonical(name)[:1] == b":":
            values[0] += b"," + value
        else:
            values.append(value)

    def replace(self, name: bytes, value: bytes) -> None:
        self.values[canonical(name)] = [value]

    def remove(self, name: bytes, _value: bytes) -> None:
        self.values.pop(canonical(name), None)

    def assign(self, pairs: list[tuple[bytes, bytes]]) -> None:
        given = {canonical(name) for name, _ in pairs}
        kept = {
            name: values
            for name, values in self.values.items()
            if name[:1] == b":" and name not in given
        }
        self.values = kept

        for name, value in pairs:
            values = self.values.setdefault(canonical(name), [])

            if not values or canonical(name)[:1] != b":":
                values.append(value)


@given(ACTIONS)
def test_a_map_behaves_like_the_model(actions: list[tuple[str, object]]) -> None:
    headers, model = HeaderMap([]), Model()

    for action, given_ in actions:
        if action == "assign":
            headers.assign(given_)  # type: ignore[arg-type]
            model.assign(given_)  # type: ignore[arg-type]
        elif action == "remove":
            headers.remove(given_[0])  # type: ignore[index]
            model.remove(*given_)  # type: ignore[misc]
        else:
            getattr(headers, action)(*given_)  # type: ignore[misc]
            getattr(model, action)(*given_)  # type: ignore[misc]

        for name in NAMES:
            values = [value for found, value in headers.pairs if found == canonical(name)]
            assert values == model.values.get(canonical(name), [])
            assert headers.get(name) == (values[0] if values else None)

        pseudo = [name[:1] == b":" for name, _ in headers.pairs]
        assert pseudo == sorted(pseudo, reverse=True), "pseudo-headers do not stand first"


@given(st.binary(max_size=6))
def test_a_name_is_a_lower_case_token_or_refused(name: bytes) -> None:
    try:
        canonical_ = canonical_name(name)
    except InvalidHeader:
        return

    assert canonical_ == canonical_.lower()
    assert canonical_
    assert not set(canonical_) & set(b' \t\r\n\0"(),/;<=>?@[\\]{}')
    assert all(32 < byte < 127 for byte in canonical_)


@given(st.binary(max_size=6))
def test_no_value_breaks_out_of_its_line(value: bytes) -> None:
    headers = HeaderMap([])
    # RFC 9110, 5.5; servers refuse the whole response for one.
    controls = {*range(32), 127} - {ord("\t")}

    try:
        headers.add(b"a", value)
    except InvalidHeader:
        assert set(value) & controls
        assert not headers.changed
    else:
        assert headers.pairs == [(b"a", value)]
        assert not set(value) & controls


def test_reading_changes_nothing() -> None:
    headers = HeaderMap([(b"a", b"1")])
    headers.get(b"a")

    assert not headers.changed


@pytest.mark.parametrize("name", [b":path", b":method", b":scheme", b":authority", b":status"])
def test_the_pseudo_headers_of_http_are_names(name: bytes) -> None:
    assert canonical_name(name) == name
