"""Protocol Buffers on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from wasm_middleware import limits
from wasm_middleware.abi import protobuf
from wasm_middleware.abi.protobuf import Message, ProtobufError, decode, encode

FIELD_NUMBERS = st.integers(1, (1 << 29) - 1)
VALUES = st.integers(0, (1 << 64) - 1) | st.binary(max_size=300) | st.text(max_size=100)


def test_the_documentations_examples() -> None:
    # "Encoding": Test1 with a = 150, Test2 with b = "testing".
    assert decode(b"\x08\x96\x01").number(1) == 150
    assert decode(b"\x12\x07testing").text(2) == "testing"
    assert encode([(1, 150), (2, "testing")]) == b"\x08\x96\x01\x12\x07testing"


def test_what_is_missing_has_its_default() -> None:
    message = decode(b"")

    assert (message.number(1), message.data(1), message.text(1)) == (0, b"", "")


def test_a_default_is_not_written() -> None:
    assert encode([(1, 0), (2, b""), (3, ""), (4, False), (5, True)]) == b"\x28\x01"


def test_a_field_of_another_type_is_missing() -> None:
    message = decode(encode([(1, 7), (2, b"x")]))

    assert (message.data(1), message.number(2)) == (b"", 0)


def test_the_last_one_counts() -> None:
    assert decode(encode([(1, 7), (2, b"x"), (1, 8), (2, b"y")])) == Message({1: 8}, {2: b"y"})


def test_unknown_fields_are_passed_over() -> None:
    fixed = b"\x19" + bytes(8) + b"\x25" + bytes(4)

    assert decode(fixed + encode([(6, "kept")])).text(6) == "kept"


def test_a_negative_number_is_the_unsigned_one_of_its_bits() -> None:
    assert decode(b"\x08" + b"\xff" * 9 + b"\x01").number(1) == (1 << 64) - 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08", "cut off"),
        (b"\x08\x80", "cut off"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "too long"),
        (b"\x0a", "cut off"),
        (b"\x0a\x05four", "field 1 is cut off"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "field 1 is cut off"),
        (b"\x09" + bytes(7), "field 1 is cut off"),
        (b"\x0d" + bytes(3), "field 1 is cut off"),
        (b"\x00\x01", "no field number 0"),
        (b"\x80\x80\x80\x80\x80\x01\x01", "no field number"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0e", "wire type 6"),
    ],
)
def test_what_is_no_message(data: bytes, reason: str) -> None:
    with pytest.raises(ProtobufError, match=reason):
        decode(data)


def test_fields_have_a_cap() -> None:
    field = b"\x08\x01"
    most = limits.MAX_PROTOBUF_FIELDS

    assert decode(field * most).number(1) == 1

    # However often a field is there: reading it is what takes time.
    with pytest.raises(ProtobufError, match=f"more than {most} fields"):
        decode(field * (most + 1))


def test_a_message_of_millions_of_fields_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    varint = protobuf._varint

    def counting(data: bytes, position: int) -> tuple[int, int]:
        read.append(position)
        return varint(data, position)

    monkeypatch.setattr(protobuf, "_varint", counting)

    with pytest.raises(ProtobufError):
        decode(b"\x08\x08" * 1_000_000)

    assert len(read) == 2 * limits.MAX_PROTOBUF_FIELDS


def test_text_is_utf8() -> None:
    message = decode(encode([(1, b"\xff")]))

    with pytest.raises(ProtobufError, match="field 1 is not UTF-8"):
        message.text(1)

    assert message.data(1) == b"\xff"


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_number_that_does_not_fit_is_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="unsigned 64-bit"):
        encode([(1, value)])


@given(st.dictionaries(FIELD_NUMBERS, VALUES, max_size=8))
def test_what_was_written_is_read(fields: dict[int, int | bytes | str]) -> None:
    message = decode(encode(fields.items()))

    for number, value in fields.items():
        if isinstance(value, int):
            assert message.number(number) == value
        elif isinstance(value, bytes):
            assert message.data(number) == value
        else:
            assert message.text(number) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    try:
        message = decode(data)
    except ProtobufError:
        return

    # Whatever was read came from the data.
    assert sum(map(len, message.octets.values())) <= len(data)
    assert all(value in data for value in message.octets.values())
    assert all(0 <= value < 1 << 64 for value in message.numbers.values())


@given(st.dictionaries(FIELD_NUMBERS, st.binary(min_size=1), min_size=1, max_size=4), st.data())
def test_a_message_that_is_cut_never_grows(fields: dict[int, bytes], data: st.DataObject) -> None:
    whole = encode(fields.items())
    end = data.draw(st.integers(0, len(whole) - 1))

    try:
        octets = decode(whole[:end]).octets
    except ProtobufError:
        return

    # It was cut between two fields.
    assert octets == dict(list(fields.items())[: len(octets)])
    assert len(octets) < len(fields)
