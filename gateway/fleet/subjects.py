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

    def __str__(self) -> str:
        return f"{self.name}.{self.nonce}"


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
        """Where NATS tells `of` that `to` does not listen."""
        return f"{self.prefix}.nr.{of}.p.{to}"

    def answer(self, of: Peer, token: str) -> str:
        """Where a question about a conversation is answered to `of`; `token` cannot be guessed."""
        return f"{self.prefix}.nr.{of}.c.{token}"

    def answers(self, of: Peer) -> str:
        """Everything that `of` is answered."""
        return f"{self.prefix}.nr.{of}.>"

    def beat(self, host: Peer) -> str:
        return f"{self.prefix}.hb.{host}"

    def beats(self) -> str:
        return f"{self.prefix}.hb.>"

    def conversation(self, agent: str, conversation: str) -> str:
        digest = sha256(conversation.encode()).hexdigest()[:32]
        return f"{self.prefix}.c.{agent}.{digest}"

    def owned(self, host: Peer) -> str:
        return f"{self.prefix}.own.{host}"

    def all_owned(self) -> str:
        return f"{self.prefix}.own.>"

    def peer_at_end(self, subject: str) -> Peer | None:
        """The process whose id a subject ends with; None: it is not one of these subjects."""
        tokens = subject.split(".")
        return Peer(tokens[-2], tokens[-1]) if len(tokens) >= 4 else None
