"""The header-map wire format.

- Any bytes are pairs or `MalformedPairs`.
- What was decoded is encoded to the very same bytes, so that there are no two readings of a map;
  the three ways to say "no pairs" apart.
- `encoded_size` is the truth, and no more comes out than `limits` allows.
- Any pairs, taken from the bytes as lines with a tab, survive the way there and back, and none of
  their encoding can be left out, nor anything put behind it.
"""

from __future__ import annotations

from wasm_middleware import limits
from wasm_middleware.abi.pairs import MalformedPairs, Pair, decode, encode, encoded_size

_NOTHING = (b"", b"\0", b"\0\0\0\0")


def fuzz(data: bytes) -> None:
    """Check the properties for `data` as a map, and for `data` as the text of one."""
    pairs = _decoded(data)

    if pairs is not None:
        assert len(pairs) <= limits.MAX_PAIRS
        assert (encode(pairs) == data) if pairs else data in _NOTHING
        assert encoded_size(pairs) == (len(data) if pairs else 0)

    _there_and_back([_pair(line) for line in data.split(b"\n")[: limits.MAX_PAIRS]])


def _pair(line: bytes) -> Pair:
    name, _, value = line.partition(b"\t")
    return name, value


def _decoded(data: bytes) -> list[Pair] | None:
    try:
        return decode(data)
    except MalformedPairs:
        return None


def _there_and_back(pairs: list[Pair]) -> None:
    encoded = encode(pairs)
    assert len(encoded) == encoded_size(pairs)

    if len(encoded) > limits.MAX_PAIRS_BYTES:
        assert _decoded(encoded) is None
        return

    assert _decoded(encoded) == pairs
    assert _decoded(encoded[:-1]) is None
    assert _decoded(encoded + b"\0") is None
