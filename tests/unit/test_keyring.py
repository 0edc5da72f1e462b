"""A stored key can be decrypted only with the current or previous SECRET_KEY, for its owner, from undamaged text."""

import pytest
from pydantic import SecretStr

from server.keyring import KeyRing, UnreadableSecretError, fingerprint

OLD, NEW = SecretStr("the secret key of last year, long enough"), SecretStr("the secret key of this year, long enough")
KEY = SecretStr("sk-a-users-key")


def test_a_sealed_key_can_be_opened_and_its_text_does_not_contain_it() -> None:
    ring = KeyRing(NEW)
    text = ring.seal("ann", KEY)
    assert text.startswith("v1:")
    assert KEY.get_secret_value() not in text
    assert ring.open("ann", text) == KEY


def test_sealing_twice_gives_different_texts() -> None:
    ring = KeyRing(NEW)
    assert ring.seal("ann", KEY) != ring.seal("ann", KEY)


def test_a_ciphertext_copied_to_another_user_cannot_be_opened() -> None:
    ring = KeyRing(NEW)
    with pytest.raises(UnreadableSecretError):
        ring.open("bob", ring.seal("ann", KEY))


def test_a_key_sealed_with_the_previous_secret_key_can_be_opened() -> None:
    text = KeyRing(OLD).seal("ann", KEY)
    assert KeyRing(NEW, previous=OLD).open("ann", text) == KEY


def test_resealing_encrypts_with_the_current_secret_key_once() -> None:
    ring = KeyRing(NEW, previous=OLD)
    moved = ring.reseal("ann", KeyRing(OLD).seal("ann", KEY))
    assert moved is not None
    assert KeyRing(NEW).open("ann", moved) == KEY
    assert ring.reseal("ann", moved) is None


def test_a_lost_secret_key_raises_unreadable_secret() -> None:
    text = KeyRing(OLD).seal("ann", KEY)
    with pytest.raises(UnreadableSecretError, match="SECRET_KEY"):
        KeyRing(NEW).open("ann", text)
    with pytest.raises(UnreadableSecretError):
        KeyRing(NEW).reseal("ann", text)


@pytest.mark.parametrize("text", ["", "sk-plain", "v1:", "v1:AAAA", "v1:not base64!", "v1:é", "v2:" + "A" * 64])
def test_damaged_or_foreign_text_is_refused(text: str) -> None:
    with pytest.raises(UnreadableSecretError):
        KeyRing(NEW).open("ann", text)


def test_a_changed_byte_is_detected() -> None:
    ring = KeyRing(NEW)
    text = ring.seal("ann", KEY)
    changed = text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
    with pytest.raises(UnreadableSecretError):
        ring.open("ann", changed)


def test_the_fingerprint_is_the_sha256_of_the_key() -> None:
    assert fingerprint(SecretStr("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
