"""Embeddings without a model: words are hashed into a vector, so that texts with common words are close. Pure
computation."""

import base64
import hashlib
import math
import struct
from typing import Literal

from pydantic import BaseModel, Field

from server.stack.demo_model.recall import keywords

DIMENSIONS = 1536


Item = str | list[int]
"""One input: text, or token ids, which are hashed like words."""


class EmbeddingRequest(BaseModel):
    """An OpenAI embeddings request."""

    model: str
    input: str | list[int] | list[Item]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int = Field(default=DIMENSIONS, ge=1, le=DIMENSIONS)

    @property
    def texts(self) -> list[str]:
        """The inputs, each as one text."""
        if isinstance(self.input, str):
            return [self.input]
        tokens = [str(item) for item in self.input if isinstance(item, int)]
        if tokens:
            return [" ".join(tokens)]
        return [
            item if isinstance(item, str) else " ".join(map(str, item))
            for item in self.input
            if not isinstance(item, int)
        ]


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A unit vector in which each word of the text moves one coordinate; equal texts give equal vectors."""
    vector = [0.0] * dimensions
    for word in keywords(text) or [text]:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "big") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def encoded(vector: list[float], encoding: Literal["float", "base64"]) -> list[float] | str:
    """The vector as JSON numbers, or as base64 of little-endian 32-bit floats."""
    return vector if encoding == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
