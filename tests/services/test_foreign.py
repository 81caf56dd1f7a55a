"""The foreign functions that are there, and the application's."""

from __future__ import annotations

import builtins
import inspect
import logging
import sys
import threading
import zlib
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, strategies as st

from wasm_middleware import limits
from wasm_middleware.abi.enums import Status
from wasm_middleware.abi.protobuf import decode, encode
from wasm_middleware.proxy_wasm.ports import ForeignCallRefused, deferred
from wasm_middleware.services.foreign import compress, foreign_functions, uncompress

Function = Callable[[bytes], bytes]


def function(name: str) -> Function:
    return foreign_functions({})[name]  # type: ignore[return-value]


# compress, uncompress


def test_compress_is_zlibs_format() -> None:
    assert zlib.decompress(compress(b"text " * 100)) == b"text " * 100
    assert len(compress(b"text " * 100)) < 50


@given(st.binary(max_size=1000))
def test_what_was_compressed_is_uncompressed(data: bytes) -> None:
    assert uncompress(compress(data)) == data


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (b"", "cut off"),
        (b"no zlib", "incorrect header"),
        (zlib.compress(b"text")[:-1], "cut off"),
        (zlib.compress(b"text")[:-1] + b"x", "incorrect data check"),
    ],
)
def test_what_is_not_compressed_fails(arguments: bytes, reason: str) -> None:
    with pytest.raises(ForeignCallRefused, match=reason) as caught:
        uncompress(arguments)

    assert caught.value.status == Status.SERIALIZATION_FAILURE


def test_what_follows_the_end_is_ignored() -> None:
    assert uncompress(zlib.compress(b"text") + b"more") == b"text"


def test_a_bomb_does_not_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 100_000
    monkeypatch.setattr(limits, "MAX_FOREIGN_RESULT_BYTES", size)
    assert len(uncompress(zlib.compress(bytes(size)))) == size

    with pytest.raises(ForeignCallRefused, match=f"more than {size} bytes") as caught:
        uncompress(zlib.compress(bytes(100 * size)))

    assert caught.value.status == Status.SERIALIZATION_FAILURE


# What there is


def test_envoys_functions_are_there() -> None:
    pytest.importorskip("cryptography")

    assert set(foreign_functions({})) == {"compress", "uncompress", "sign", "verify_signature"}


def test_the_applications_functions_win(caplog: pytest.LogCaptureFixture) -> None:
    def mine(arguments: bytes) -> bytes:
        return arguments

    with caplog.at_level(logging.DEBUG, "wasm_middleware"):
        functions = foreign_functions({"compress": mine, "clear_route_cache": mine, "mine": mine})

    assert functions["compress"] is functions["mine"] is functions["clear_route_cache"] is mine
    assert functions["uncompress"] is uncompress
    assert caplog.messages == [
        f"the application's foreign function {name!r} takes the built-in one's place"
        for name in ("compress", "clear_route_cache")
    ]


@pytest.mark.parametrize("name", ["sign", "verify_signature"])
def test_without_the_library_there_are_no_signatures(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = builtins.__import__

    def without(module: str, *arguments: object) -> object:
        if module.startswith("cryptography"):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)

        return found(module, *arguments)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "wasm_middleware.services.signatures", raising=False)
    monkeypatch.delattr("wasm_middleware.services.signatures", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    missing = function(name)

    for _ in range(3):
        with pytest.raises(ForeignCallRefused, match="wasm-middleware\\[crypto\\]") as caught:
            missing(b"")

        assert caught.value.status == Status.NOT_FOUND

    # Said once for all to see.
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"a plugin called {name!r}, which is not there" in warning.getMessage()
    assert "pip install 'wasm-middleware[crypto]'" in warning.getMessage()


# verify_signature, sign


class Key:
    """A key pair in each of its forms."""

    def __init__(self, private: object) -> None:
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )

        form, secret = PrivateFormat.PKCS8, NoEncryption()
        self.private = private.private_bytes(Encoding.DER, form, secret)  # type: ignore[attr-defined]
        self.private_pem = private.private_bytes(Encoding.PEM, form, secret)  # type: ignore[attr-defined]
        public = private.public_key()  # type: ignore[attr-defined]
        form = PublicFormat.SubjectPublicKeyInfo
        self.public = public.public_bytes(Encoding.DER, form)
        self.public_pem = public.public_bytes(Encoding.PEM, form)


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    asymmetric = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    return {
        "rsa": Key(asymmetric.generate_private_key(65537, 2048)),
        "ec": Key(ec.generate_private_key(ec.SECP256R1())),
        "ed25519": Key(ed25519.Ed25519PrivateKey.generate()),
    }


def sign(key: Key, text: bytes = b"text", algorithm: str = "sha256") -> bytes:
    result = decode(function("sign")(encode([(1, algorithm), (2, key.private), (3, text)])))
    assert (result.number(1), result.text(3)) == (1, "")
    return result.data(2)


def verify(
    key: Key, signature: bytes, text: bytes = b"text", algorithm: str = "sha256"
) -> tuple[int, str]:
    arguments = encode([(1, algorithm), (2, key.public), (3, signature), (4, text)])
    result = decode(function("verify_signature")(arguments))
    return result.number(1), result.text(2)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha224", "sha256", "sha384", "sha512", "SHA256"])
def test_what_was_signed_is_verified(keys: dict[str, Key], kind: str, algorithm: str) -> None:
    key = keys[kind]
    signature = sign(key, b"text", algorithm)

    assert verify(key, signature, b"text", algorithm) == (1, "")
    wrong = (0, "the signature does not match")
    assert verify(key, signature, b"tex_", algorithm) == wrong
    assert verify(key, signature[:-1], b"text", algorithm) == wrong
    assert verify(key, b"", b"text", algorithm) == wrong


def test_a_signature_is_of_one_key_and_hash(keys: dict[str, Key]) -> None:
    signature = sign(keys["rsa"])

    assert verify(keys["rsa"], signature, algorithm="sha512")[0] == 0
    assert verify(keys["ec"], signature)[0] == 0


def test_a_result_is_what_envoy_answers(keys: dict[str, Key]) -> None:
    """`VerifySignatureResult{result: true}` is one field; the error is left out."""
    key = keys["ec"]
    arguments = [(1, "sha256"), (2, key.public), (3, sign(key)), (4, b"text")]

    assert function("verify_signature")(encode(arguments)) == b"\x08\x01"


def test_keys_come_in_pem_as_well(keys: dict[str, Key]) -> None:
    key = keys["ec"]
    signed = function("sign")(encode([(1, "sha256"), (4, key.private_pem), (3, b"text")]))
    signature = decode(signed).data(2)
    arguments = encode([(1, "sha256"), (5, key.public_pem), (3, signature), (4, b"text")])

    assert function("verify_signature")(arguments) == b"\x08\x01"


def test_a_known_signature() -> None:
    """Made with OpenSSL: `openssl dgst -sha256 -sign`, with a key of the P-256 curve."""
    pytest.importorskip("cryptography")
    public = (
        "-----BEGIN PUBLIC KEY-----\n"
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEIEKC7PxEie7tfG21bSZpULRBadxB\n"
        "zO2SZWnGaO2MeXr658x4Et+++roQPdGAftPDY7bjpd8hiMpr8vAvjoaTDw==\n"
        "-----END PUBLIC KEY-----\n"
    )
    signature = bytes.fromhex(
        "30450220302d80d5145e65279498d50e1bfc385e111332f83129bb242348f92dd61ee64"
        "7022100ee127dd737ccce91e843d0fcfadf705946e5447fb8e6e41eca0f6c0182e9e918"
    )
    arguments = encode([(1, "sha256"), (5, public), (3, signature), (4, b"wasm-middleware")])

    assert function("verify_signature")(arguments) == b"\x08\x01"


@pytest.mark.parametrize("algorithm", ["", "md5", "sha3-256"])
def test_an_unknown_hash_is_an_answer(keys: dict[str, Key], algorithm: str) -> None:
    key = keys["ec"]
    signed = decode(function("sign")(encode([(1, algorithm), (2, key.private)])))

    assert (signed.number(1), signed.text(3)) == (0, f"{algorithm} is not supported")
    assert verify(key, b"", algorithm=algorithm) == (0, f"{algorithm} is not supported")


def test_a_key_that_can_not_sign_with_a_hash_is_an_answer(keys: dict[str, Key]) -> None:
    key = keys["ed25519"]
    signed = decode(function("sign")(encode([(1, "sha256"), (2, key.private)])))

    assert (signed.number(1), signed.text(3)) == (0, "a key of this type is not supported")
    assert verify(key, b"x") == (0, "a key of this type is not supported")


@pytest.mark.parametrize(
    ("name", "der", "pem"), [("sign", 2, 4), ("verify_signature", 2, 5)], ids=["sign", "verify"]
)
def test_keys_that_are_none(keys: dict[str, Key], name: str, der: int, pem: int) -> None:
    key = keys["ec"]
    good = (key.private, key.private_pem) if name == "sign" else (key.public, key.public_pem)
    bad: list[list[tuple[int, bytes | str]]] = [
        [],
        [(der, good[0]), (pem, good[1])],
        [(der, good[0][:-1])],
        [(der, b"\0" * 100)],
        [(pem, good[1][:-30])],
        [(pem, "text")],
        [(pem, b"\xff")],
        [(der, b"\0" * (limits.MAX_CRYPTO_KEY_BYTES + 1))],
        # The other half of the pair.
        [(der, key.public if name == "sign" else key.private)],
    ]

    for fields in bad:
        with pytest.raises(ValueError) as caught:
            function(name)(encode([(1, "sha256"), *fields]))

        # What is wrong with a key says nothing of the key.
        assert len(str(caught.value)) < 60


@pytest.mark.parametrize("name", ["sign", "verify_signature"])
def test_what_is_no_message_is_refused(keys: dict[str, Key], name: str) -> None:
    with pytest.raises(ValueError, match="cut off"):
        function(name)(b"\x0a\x05ab")


@pytest.mark.parametrize("name", ["sign", "verify_signature"])
def test_a_message_of_many_fields_is_refused(keys: dict[str, Key], name: str) -> None:
    with pytest.raises(ValueError, match="more than 256 fields"):
        function(name)(b"\x08\x08" * 1000)


def test_a_long_name_of_a_hash_is_cut_in_the_answer(keys: dict[str, Key]) -> None:
    name = "x" * 10_000

    assert verify(keys["ec"], b"", algorithm=name) == (0, f"{name[:200]} is not supported")


def test_a_key_whose_exponent_takes_long_is_refused() -> None:
    asymmetric = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    modulus = (1 << 3071) | 1
    results = []

    for bits in (64, 65):
        exponent = (1 << bits) - 1
        key = asymmetric.RSAPublicNumbers(exponent, modulus).public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        arguments = encode([(1, "sha256"), (2, der), (3, b"x" * 384), (4, b"text")])

        try:
            results.append(decode(function("verify_signature")(arguments)).text(2))
        except ValueError as error:
            results.append(str(error))

    assert results == ["the signature does not match", "a public key whose exponent has 65 bits"]


@pytest.mark.anyio
@pytest.mark.parametrize(("size", "thread"), [(100, False), (100_000, True)])
async def test_where_calls_may_wait_much_is_hashed_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, size: int, thread: bool
) -> None:
    signatures = pytest.importorskip("wasm_middleware.services.signatures")
    threads = []

    def verify_signature(_arguments: bytes) -> bytes:
        threads.append(threading.current_thread())
        return b"verified"

    monkeypatch.setattr(signatures, "verify_signature", verify_signature)
    result = foreign_functions({}, may_wait=True)["verify_signature"](bytes(size))

    assert (await result if inspect.isawaitable(result) else result) == b"verified"
    assert (threads != [threading.current_thread()]) is thread


# Deferred functions


@pytest.mark.anyio
async def test_a_deferred_function_that_takes_too_long_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_DEFERRED_TIME", 0.001)
    ended = []

    async def forever(_arguments: bytes) -> bytes:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    found = foreign_functions({"forever": deferred(forever)})["forever"]
    assert isinstance(found, deferred)

    with anyio.fail_after(10), pytest.raises(ForeignCallRefused, match="longer than 1ms") as caught:
        await found(b"")  # type: ignore[misc]

    assert caught.value.status == Status.INTERNAL_FAILURE
    assert ended == [True]


@pytest.mark.anyio
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_deferred_function_that_ends_in_time_is_as_it_was(asynchronous: bool) -> None:
    async def reverse_later(arguments: bytes) -> bytes:
        await anyio.lowlevel.checkpoint()
        return arguments[::-1]

    given = deferred(reverse_later if asynchronous else lambda arguments: arguments[::-1])
    found = foreign_functions({"reverse": given})["reverse"]
    assert isinstance(found, deferred)

    assert await found(b"abc") == b"cba"  # type: ignore[misc]


def test_a_key_with_a_password_is_refused() -> None:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    from cryptography.hazmat.primitives import serialization as forms

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        forms.Encoding.PEM,
        forms.PrivateFormat.PKCS8,
        forms.BestAvailableEncryption(b"secret"),
    )

    with pytest.raises(ValueError, match="the private key can't be read"):
        function("sign")(encode([(1, "sha256"), (4, pem)]))


def test_a_key_is_checked_once(keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch) -> None:
    from wasm_middleware.services import signatures

    loaded = []
    load = signatures.load_der_private_key

    def counting(key: bytes, password: None) -> object:
        loaded.append(key)
        return load(key, password)

    monkeypatch.setattr(signatures, "load_der_private_key", counting)
    monkeypatch.setattr(limits, "MAX_CRYPTO_KEYS", 1)
    signer = signatures.Signer()
    one = encode([(1, "sha256"), (2, keys["ec"].private)])
    other = encode([(1, "sha256"), (2, keys["rsa"].private)])

    for arguments in (one, one, other, other, one):
        assert decode(signer.sign(arguments)).number(1) == 1

    # And no more keys are kept than allowed.
    assert loaded == [keys["ec"].private, keys["rsa"].private, keys["ec"].private]
