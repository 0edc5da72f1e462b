"""Signing keys of a project, and a verifier of its tokens with a clock that tests advance."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.auth.tickets import Tickets
from server.ports import Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import MemoryDatabase
from tests.fakes.store import FakeSessionStore
from tests.unit.adapters.supabase.project import Project

JWKS, USER = "/auth/v1/.well-known/jwks.json", "/auth/v1/user"
ANN = "01a209a8-402d-777c-bbf1-9331244edae0"
SECRET = "a shared secret of at least thirty-two bytes"
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Key:
    """A signing key of the project."""

    id: str
    algorithm: str = "ES256"
    private: Any = field(init=False)

    def __post_init__(self) -> None:
        if self.algorithm == "ES256":
            self.private = ec.generate_private_key(ec.SECP256R1())
        else:
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def published(self) -> dict[str, Any]:
        algorithm = ECAlgorithm if self.algorithm == "ES256" else RSAAlgorithm
        public: dict[str, Any] = json.loads(algorithm.to_jwk(self.private.public_key()))
        return public | {"kid": self.id, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}

    @property
    def pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def raw(self, claims: dict[str, Any] | str) -> str:
        """Sign claims that a library would refuse."""
        text = claims if isinstance(claims, str) else json.dumps(claims)
        return jwt.PyJWS().encode(text.encode(), self.private, self.algorithm, headers={"kid": self.id})

    def sign(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self.private, self.algorithm, headers={"kid": self.id})


FIRST, SECOND, RSA = Key("first"), Key("second"), Key("rsa", "RS256")


@dataclass
class Bench:
    """A verifier, its project, and a clock that tests advance."""

    project: Project
    client: SupabaseClient
    seconds: float = 1000.0

    def __post_init__(self) -> None:
        self.publish(FIRST)
        self.verifier = self.with_secret(None)

    def publish(self, *keys: Key) -> None:
        self.project.answers[JWKS] = (200, {"keys": [key.published for key in keys]})

    def with_secret(self, secret: str | None) -> SupabaseTokenVerifier:
        key = None if secret is None else SecretStr(secret)
        return SupabaseTokenVerifier(self.client, key, clock=lambda: self.seconds)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """A user's claims as hosted Supabase creates them; a change to None removes one."""
        claims = {
            "iss": f"{self.client.url}/auth/v1",
            "aud": "authenticated",
            "role": "authenticated",
            "sub": ANN,
            "email": "ann@example.com",
            "exp": int((NOW + timedelta(hours=1)).timestamp()),
            "iat": int(NOW.timestamp()),
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    async def refusal(self, token: str, verifier: SupabaseTokenVerifier | None = None) -> ErrorCode:
        with pytest.raises(PlatformError) as refusal:
            await (verifier or self.verifier).verify(token)
        return refusal.value.code


def ticket() -> str:
    """A ticket that Ann could get with her token, on a server whose SECRET_KEY is the project's secret."""
    ann = Principal(ANN, "ann@example.com", SecretStr("t"), NOW + timedelta(hours=1), ANN)
    return Tickets(FakeSessionStore(MemoryDatabase()), SecretStr(SECRET)).issue(ann, "chat").text
