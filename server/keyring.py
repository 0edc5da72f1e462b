"""Keeps users' model keys unreadable at rest: encrypts with SECRET_KEY, still reads what SECRET_KEY_PREVIOUS encrypted.

Pure computation: touches no service, no file and no environment variable."""

import base64
import binascii
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

VERSION = "v1:"
NONCE_BYTES = 12
_PURPOSE = b"ai-chat-platform/user-key/v1"


class UnreadableSecretError(Exception):
    """No key of the ring opens this ciphertext: SECRET_KEY was changed, or the text was moved or damaged."""


class KeyRing:
    """AES-256-GCM under a key derived from SECRET_KEY by HKDF; the text is `v1:` and base64url(nonce, ciphertext).

    Each ciphertext is bound to its owner's id: copied into another user's row, it does not open."""

    def __init__(self, secret_key: SecretStr, previous: SecretStr | None = None) -> None:
        self._current = _cipher(secret_key)
        self._retired = () if previous is None else (_cipher(previous),)

    def seal(self, owner: str, secret: SecretStr) -> str:
        """Encrypt `secret` for `owner`. The same secret gives another text each time."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._current.encrypt(nonce, secret.get_secret_value().encode(), owner.encode())
        return VERSION + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, owner: str, text: str) -> SecretStr:
        """Decrypt what `seal` made for `owner`, now or under the previous key. Raises UnreadableSecretError."""
        raw = _decode(text)
        for cipher in (self._current, *self._retired):
            try:
                return SecretStr(cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], owner.encode()).decode())
            except InvalidTag:
                continue
        raise UnreadableSecretError("neither SECRET_KEY nor SECRET_KEY_PREVIOUS opens this secret")

    def reseal(self, owner: str, text: str) -> str | None:
        """The same secret under the current key; None where it is already. Raises UnreadableSecretError."""
        raw = _decode(text)
        try:
            self._current.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], owner.encode())
        except InvalidTag:
            return self.seal(owner, self.open(owner, text))
        return None


def fingerprint(secret: SecretStr) -> str:
    """SHA-256 hex of a key: how LiteLLM itself names a key without holding it."""
    return hashlib.sha256(secret.get_secret_value().encode()).hexdigest()


def _cipher(secret_key: SecretStr) -> AESGCM:
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return AESGCM(derive.derive(secret_key.get_secret_value().encode()))


def _decode(text: str) -> bytes:
    if not text.startswith(VERSION):
        raise UnreadableSecretError("this is no ciphertext of ours")
    try:
        raw = base64.b64decode(text.removeprefix(VERSION), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise UnreadableSecretError("the ciphertext is damaged") from cause
    if len(raw) <= NONCE_BYTES:
        raise UnreadableSecretError("the ciphertext is cut short")
    return raw
