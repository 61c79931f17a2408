"""The cryptography that the protocol is made of, from the package ``cryptography``; every failure a SiloBenchError.

Signatures: Ed25519 (RFC 8032). Key agreement: X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869). Sealed shares:
ChaCha20-Poly1305 (RFC 8439). Masks: AES-256 in counter mode (NIST SP 800-38A).
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bench.core.errors import SiloBenchError, raising

KEY = 32
SIGNATURE = 64
TAG = 16
#: a key that seals one message needs no nonce that varies
_NONCE = bytes(12)
_LABEL = b"silobench secagg 1"


def context(*parts: bytes | str | int) -> bytes:
    """``parts`` as one byte string that no other parts give: a label, then each part after its length."""
    found = _LABEL
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        raw = raw.to_bytes(8, "little", signed=True) if isinstance(raw, int) else raw
        found += len(raw).to_bytes(4, "little") + raw
    return found


def signing_public(secret: bytes) -> bytes:
    """The Ed25519 public key of a secret key (32 bytes)."""
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def sign(secret: bytes, statement: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(secret).sign(statement)


def verify(public: bytes, statement: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is one of ``statement`` under the key ``public``; False also for a key that is none."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def agreement_public(secret: bytes) -> bytes:
    """The X25519 public key of a secret key (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: bytes, public: bytes, salt: bytes, info: bytes) -> bytes:
    """The key (32 bytes) that the owners of ``secret`` and of the secret key of ``public`` both get, for the use that
    ``info`` names. Raises SiloBenchError for a public key of small order, with which anybody gets it."""
    with raising(SiloBenchError, "a public key can't be used for key agreement", ValueError):
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(algorithm=SHA256(), length=KEY, salt=salt, info=info).derive(shared)


def seal(key: bytes, plain: bytes, about: bytes) -> bytes:
    """Encrypt and authenticate ``plain``, and authenticate ``about``. ``key`` must seal nothing else."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, about)


def unseal(key: bytes, sealed: bytes, about: bytes) -> bytes | None:
    """The inverse of ``seal``; None where anything was changed."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, about)
    except (InvalidTag, ValueError):
        return None


def all_distinct(values: Iterable[bytes]) -> bool:
    listed = list(values)
    return len(set(listed)) == len(listed)
