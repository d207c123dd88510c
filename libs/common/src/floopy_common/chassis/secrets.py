"""Secrets: everything that is derived from FLOOPY_SECRET_KEY, and the format of API keys."""

import hashlib
import hmac
import json
import re
import secrets
import string
import zlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr
from typing_extensions import override

from floopy_common.domain.errors import Invalid, WrongKey

KEY_VERSION = 1
"""Stored with everything a derived key made; a new way to derive keys gets a new number."""

_MIN_SECRET = 32
_NONCE_BYTES = 12

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY_PREFIX = "flp_"
_KEY_BYTES = 32
_BODY_DIGITS = 43
"""Base62 digits that 256 bits need."""
_CHECK_DIGITS = 6
"""Base62 digits that a CRC-32 needs."""
_KEY_FORMAT = re.compile(rf"flp_[0-9A-Za-z]{{{_BODY_DIGITS}}}_[0-9A-Za-z]{{{_CHECK_DIGITS}}}", re.ASCII)


@dataclass(frozen=True)
class SealContext:
    """What a provider key belongs to: it opens for nothing else."""

    org_id: str
    account_id: str
    base_url: str | None


@dataclass(frozen=True)
class Sealed:
    """An encrypted secret, as it may be stored."""

    key_version: int
    nonce: bytes
    ciphertext: bytes


class Keyring:
    """The keys derived from one secret; Invalid when that is too short to be one."""

    def __init__(self, secret_key: SecretStr) -> None:
        secret = secret_key.get_secret_value().encode()
        if len(secret) < _MIN_SECRET:
            raise Invalid(f"FLOOPY_SECRET_KEY needs at least {_MIN_SECRET} characters")
        self._wrapping = AESGCM(_derive(secret, "provider-keys"))
        self._pepper = _derive(secret, "api-keys")
        self._end_users = _derive(secret, "end-users")

    @override
    def __repr__(self) -> str:
        return "Keyring(**********)"

    def seal(self, secret: SecretStr, context: SealContext) -> Sealed:
        """Encrypt `secret`, bound to `context`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        plaintext = secret.get_secret_value().encode()
        ciphertext = self._wrapping.encrypt(nonce, plaintext, _bound_to(context, KEY_VERSION))
        return Sealed(KEY_VERSION, nonce, ciphertext)

    def unseal(self, sealed: Sealed, context: SealContext) -> SecretStr:
        """The secret; WrongKey when it was sealed with another key or for another context."""
        if sealed.key_version != KEY_VERSION:
            raise WrongKey(f"{context.account_id} was sealed with key version {sealed.key_version}")
        try:
            plaintext = self._wrapping.decrypt(
                sealed.nonce, sealed.ciphertext, _bound_to(context, sealed.key_version)
            )
        except InvalidTag:
            raise WrongKey(f"the key of {context.account_id} does not open with this secret") from None
        return SecretStr(plaintext.decode())

    def digest(self, api_key: str) -> bytes:
        """What is stored of an API key, and what it is found by (32 bytes)."""
        return hmac.digest(self._pepper, api_key.encode(), "sha256")

    def end_user_salt(self, org_id: str) -> bytes:
        """What an organisation's end users are hashed with before a provider is told them (32 bytes)."""
        return hmac.digest(self._end_users, org_id.encode(), "sha256")


def new_api_key() -> SecretStr:
    """256 random bits behind a prefix that secret scanners know, with a checksum."""
    number = int.from_bytes(secrets.token_bytes(_KEY_BYTES), "big")
    return SecretStr(_with_checksum(_KEY_PREFIX + _base62(number, _BODY_DIGITS)))


def is_api_key(text: str) -> bool:
    """Whether `text` has the form and the checksum of an API key: tells typos without a look-up."""
    if _KEY_FORMAT.fullmatch(text) is None:
        return False
    return hmac.compare_digest(_with_checksum(text[: -_CHECK_DIGITS - 1]), text)


def _with_checksum(stem: str) -> str:
    return f"{stem}_{_base62(zlib.crc32(stem.encode()), _CHECK_DIGITS)}"


def _base62(number: int, digits: int) -> str:
    encoded = ""
    for _ in range(digits):
        number, digit = divmod(number, len(_BASE62))
        encoded = _BASE62[digit] + encoded
    return encoded


def _derive(secret: bytes, purpose: str) -> bytes:
    info = f"floopy/{purpose}/v{KEY_VERSION}".encode()
    return HKDF(algorithm=SHA256(), length=hashlib.sha256().digest_size, salt=None, info=info).derive(secret)


def _bound_to(context: SealContext, key_version: int) -> bytes:
    """A JSON list, so that no two contexts run into the same bytes."""
    return json.dumps([key_version, context.org_id, context.account_id, context.base_url]).encode()
