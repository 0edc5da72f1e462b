"""Encrypts users' model keys at rest with SECRET_KEY, and decrypts those encrypted with SECRET_KEY_PREVIOUS, too.

Pure: touches no service, no file and no environment variable."""

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
    """No key of the ring decrypts this ciphertext: SECRET_KEY was changed, or the text was moved or damaged."""


class KeyRing:
    """AES-256-GCM under a key derived from SECRET_KEY by HKDF; the text is `v1:` and base64url(nonce, ciphertext).

    Each ciphertext is bound to its owner's id: copied into another user's row, it cannot be decrypted."""

    def __init__(self, secret_key: SecretStr, previous: SecretStr | None = None) -> None:
        self._current = _cipher(secret_key)
        self._retired = () if previous is None else (_cipher(previous),)

    def seal(self, owner: str, secret: SecretStr) -> str:
        """Encrypt `secret` for `owner`. The nonce is random, so the text differs each time."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._current.encrypt(nonce, secret.get_secret_value().encode(), owner.encode())
        return VERSION + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, owner: str, text: str) -> SecretStr:
        """Decrypt a text of `seal` for `owner`, with the current or the previous key. Raises UnreadableSecretError."""
        raw = _decode(text)
        for cipher in (self._current, *self._retired):
            try:
                return SecretStr(cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], owner.encode()).decode())
            except InvalidTag:
                continue
        raise UnreadableSecretError("neither SECRET_KEY nor SECRET_KEY_PREVIOUS decrypts this secret")

    def reseal(self, owner: str, text: str) -> str | None:
        """The same secret encrypted with the current key; None if it already is. Raises UnreadableSecretError."""
        raw = _decode(text)
        try:
            self._current.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], owner.encode())
        except InvalidTag:
            return self.seal(owner, self.open(owner, text))
        return None


def fingerprint(secret: SecretStr) -> str:
    """SHA-256 hex of a key, by which LiteLLM identifies it."""
    return hashlib.sha256(secret.get_secret_value().encode()).hexdigest()


def _cipher(secret_key: SecretStr) -> AESGCM:
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return AESGCM(derive.derive(secret_key.get_secret_value().encode()))


def _decode(text: str) -> bytes:
    if not text.startswith(VERSION):
        raise UnreadableSecretError("not a ciphertext of this platform")
    try:
        raw = base64.b64decode(text.removeprefix(VERSION), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as cause:
        raise UnreadableSecretError("the ciphertext is damaged") from cause
    if len(raw) <= NONCE_BYTES:
        raise UnreadableSecretError("the ciphertext is truncated")
    return raw
