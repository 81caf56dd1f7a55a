"""Signatures for plugins, with the library `cryptography`, which this file alone imports.

Arguments and results are the serialized messages of Envoy's `ext/verify_signature.proto` and
`ext/sign.proto`. As there, a key is DER (SubjectPublicKeyInfo, PKCS #8) or PEM and not both; RSA
signs with PKCS #1 v1.5 padding and an elliptic curve with ECDSA in DER; hash functions are SHA-1
and SHA-2. BadArgument is for messages and keys that can't be read. A signature that does not match,
or a hash function that there is not, is an answer: `result` is false and `error` says why.

A guest's key is checked before it is used, since a made-up one can keep OpenSSL busy or worse.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from wasm_middleware import limits
from wasm_middleware.abi import protobuf

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


class _Unsupported(Exception):
    """What can't be done with these arguments; it is told to the guest."""


def verify_signature(arguments: bytes) -> bytes:
    """`VerifySignatureArguments` to `VerifySignatureResult`; raises `ValueError`."""
    message = protobuf.decode(arguments)
    name, der, pem = message.text(1), message.data(2), message.text(5)
    key = _public_key(_key_bytes(der, pem), pem=bool(pem))
    signature, data = message.data(3), message.data(4)

    try:
        _verify(key, signature, data, _hash(name))
    except InvalidSignature:
        return protobuf.encode([(2, "the signature does not match")])
    except (_Unsupported, UnsupportedAlgorithm, ValueError) as error:
        return protobuf.encode([(2, str(error))])

    return protobuf.encode([(1, True)])


class Signer:
    """Signs, on any thread; keeps the keys that it has checked: 40 ms for RSA of 2,048 bits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: OrderedDict[bytes, object] = OrderedDict()

    def sign(self, arguments: bytes) -> bytes:
        """`SignArguments` to `SignResult`; raises `ValueError`."""
        message = protobuf.decode(arguments)
        name, der, pem = message.text(1), message.data(2), message.text(4)
        encoded = _key_bytes(der, pem)

        with self._lock:
            key = self._key(encoded, pem=bool(pem))

        try:
            signature = _sign(key, message.data(3), _hash(name))
        except (_Unsupported, UnsupportedAlgorithm, ValueError) as error:
            return protobuf.encode([(3, str(error))])

        return protobuf.encode([(1, True), (2, signature)])

    def _key(self, encoded: bytes, *, pem: bool) -> object:
        if encoded not in self._keys:
            self._keys[encoded] = _private_key(encoded, pem=pem)

        self._keys.move_to_end(encoded)

        if len(self._keys) > limits.MAX_CRYPTO_KEYS:
            self._keys.popitem(last=False)

        return self._keys[encoded]


def _key_bytes(der: bytes, pem: str) -> bytes:
    if bool(der) == bool(pem):
        raise ValueError("one key is needed, in DER or in PEM")

    key = der or pem.encode()

    if len(key) > limits.MAX_CRYPTO_KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes")

    return key


def _hash(name: str) -> hashes.HashAlgorithm:
    # Longer than any, and it is said back to the guest.
    name = name[: limits.MAX_NAME_IN_MESSAGE]
    found = _HASHES.get(name.lower())

    if found is None:
        raise _Unsupported(f"{name} is not supported")

    return found()


def _public_key(key: bytes, *, pem: bool) -> object:
    try:
        found = load_pem_public_key(key) if pem else load_der_public_key(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("the public key can't be read") from None

    if isinstance(found, rsa.RSAPublicKey):
        bits = found.public_numbers().e.bit_length()

        if bits > limits.MAX_RSA_EXPONENT_BITS:
            raise ValueError(f"a public key whose exponent has {bits} bits")

    return found


def _private_key(key: bytes, *, pem: bool) -> object:
    """One with a password is a `TypeError` of the library's."""
    try:
        return load_pem_private_key(key, None) if pem else load_der_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What it says may quote the key.
        raise ValueError("the private key can't be read") from None


def _verify(key: object, signature: bytes, data: bytes, algorithm: hashes.HashAlgorithm) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, data, ec.ECDSA(algorithm))
    else:
        raise _Unsupported("a key of this type is not supported")


def _sign(key: object, data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), algorithm)

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(algorithm))

    raise _Unsupported("a key of this type is not supported")
