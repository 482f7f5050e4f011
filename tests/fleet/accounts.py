"""Operators, accounts and users of NATS, as nsc makes them: nkeys, and the JWTs that they sign.

https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt
"""

from __future__ import annotations

import base64
import json
import secrets
from hashlib import sha256
from typing import Any

import nkeys

_PREFIXES = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}


class Identity:
    """A key pair of one of these kinds."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seed: str = nkeys.encode_seed(secrets.token_bytes(32), _PREFIXES[kind]).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def certify(self, other: Identity, **claims: Any) -> str:
        """A JWT in which this one says what another is."""
        body = {
            "iat": 1700000000,
            "iss": self.public,
            "name": other.kind,
            "sub": other.public,
            "nats": {**claims, "type": other.kind, "version": 2},
        }
        body["jti"] = base64.b32encode(sha256(json.dumps(body).encode()).digest()).decode()
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        said = ".".join(_part(json.dumps(part).encode()) for part in (head, body))
        return f"{said}.{_part(self._pair.sign(said.encode()))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def operator_mode() -> tuple[str, str]:
    """The configuration of a server in operator mode with one account, and the credentials file of
    a user of it."""
    operator, account, user = Identity("operator"), Identity("account"), Identity("user")
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    of_account = operator.certify(account, limits={**limits, "wildcards": True})
    of_user = account.certify(user, subs=-1, data=-1, payload=-1, pub={}, sub={})
    configuration = (
        f"operator: {operator.certify(operator)}\n"
        f"resolver: MEMORY\nresolver_preload: {{ {account.public}: {of_account} }}\n"
    )
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n\n"
        "*************************************************************\n"
    )
    return configuration, credentials
