"""The keys that decrypt users' model keys are derived once for 65,536 users instead of 256.

A derivation takes 30 ms of processor time. With more active users than the cache has entries, each turn derives one.
"""

import functools
from typing import Any, Final

from letta_patches.known import require

ENTRIES: Final = 65_536
"""Some 400 bytes each."""
_KNOWN: Final = "edc5bf40fa3625fc"


def apply() -> None:
    """Replace the cache by a larger one. Raises UnknownCodeError."""
    from letta.helpers.crypto_utils import CryptoUtils

    derive = CryptoUtils.__dict__["_derive_key_cached"].__func__.__wrapped__
    require({derive: _KNOWN})
    cached: Any = functools.lru_cache(maxsize=ENTRIES)(derive)
    CryptoUtils._derive_key_cached = classmethod(cached)
