"""The names of NATS subjects; README.md has the table. Pure."""

from __future__ import annotations

import secrets
from hashlib import sha256

from msgspec import Struct

from gateway.config.fleet import NAME

__all__ = ["NAME", "Peer", "Subjects"]


class Peer(Struct, frozen=True, order=True):
    """One process of a fleet, from its start to its end."""

    name: str
    nonce: str

    @classmethod
    def new(cls, name: str) -> Peer:
        """The process that has this name from now on."""
        return cls(name, secrets.token_hex(8))

    @classmethod
    def parse(cls, text: str) -> Peer | None:
        """What `str` made of one; None: this is none."""
        name, _, nonce = text.partition(".")
        return cls(name, nonce) if NAME.match(name) and NAME.match(nonce) else None

    def __str__(self) -> str:
        return f"{self.name}.{self.nonce}"


def digest_of(session: str) -> bytes:
    """What stands for a session (`gateway.call.session_key`) between processes: 16 bytes."""
    return sha256(session.encode("utf-8", "surrogatepass")).digest()[:16]


class Subjects(Struct, frozen=True):
    """The subjects below one prefix. Each method gives a subject, or a pattern of subjects."""

    prefix: str = "gw"

    def up(self, host: Peer, front: Peer) -> str:
        return f"{self.prefix}.up.{host}.{front}"

    def ups(self, host: Peer) -> str:
        """Of every front."""
        return f"{self.prefix}.up.{host}.>"

    def down(self, front: Peer, host: Peer) -> str:
        return f"{self.prefix}.dn.{front}.{host}"

    def downs(self, front: Peer) -> str:
        """Of every host."""
        return f"{self.prefix}.dn.{front}.>"

    def undelivered(self, of: Peer, to: Peer) -> str:
        """Where NATS tells `of` that `to` does not listen: for a message of a pipe, its epoch and
        its number follow as two more tokens."""
        return f"{self.prefix}.nr.{of}.p.{to}"

    def all_undelivered(self, of: Peer) -> str:
        """To any."""
        return f"{self.prefix}.nr.{of}.p.>"

    def asked(self, of: Peer, token: str) -> str:
        """Where NATS tells `of` that a claim of it reached nobody. No host may publish here, for
        whoever hears the claim could say the same; `token` cannot be guessed by others."""
        return f"{self.prefix}.nr.{of}.q.{token}"

    def all_asked(self, of: Peer) -> str:
        """Every claim."""
        return self.asked(of, ">")

    def answer(self, of: Peer, token: str) -> str:
        """Where those who hear a claim of `of` answer it."""
        return f"{self.prefix}.nr.{of}.c.{token}"

    def answers(self, of: Peer) -> str:
        """To every claim."""
        return self.answer(of, ">")

    def answer_to(self, of: Peer, asked: str) -> str | None:
        """Where to answer what has this subject for a reply; None: it is no claim of `of`."""
        rest = asked.removeprefix(self.asked(of, ""))
        return None if rest == asked else self.answer(of, rest)

    def beat(self, host: Peer) -> str:
        return f"{self.prefix}.hb.{host}"

    def beats(self) -> str:
        return f"{self.prefix}.hb.>"

    def conversation(self, agent: str, digest: bytes) -> str:
        """`digest` is of `digest_of`."""
        return f"{self.prefix}.c.{agent}.{digest.hex()}"

    def owned(self, agent: str, host: Peer) -> str:
        return f"{self.prefix}.own.{agent}.{host}"

    def all_owned(self, agent: str = "*") -> str:
        """Of every host."""
        return f"{self.prefix}.own.{agent}.>"

    def peer_at_end(self, subject: str) -> Peer | None:
        """The process whose id a subject ends with; None: it is not one of these subjects."""
        tokens = subject.split(".")
        return Peer(tokens[-2], tokens[-1]) if len(tokens) >= 4 else None
