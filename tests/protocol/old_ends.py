"""Both ends of the wire as they were before there were events (7367f1d), as far as a line decides.

Written by hand, so that a clone without history can test against them: what the old gateway wrote,
which lines it took and which it refused, and what the old SDK read and wrote. Where the history is
there, `test_old_and_new` holds these ends to the old code itself.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


class _Params(Struct):
    id: int | UnsetType = UNSET
    chunk: str | UnsetType = UNSET


class _Answer(Struct, forbid_unknown_fields=True):
    output: Raw | UnsetType = UNSET
    message: Raw | UnsetType = UNSET


class _Error(Struct):
    code: int
    message: str = ""


class _Line(Struct):
    jsonrpc: Literal["2.0"] = "2.0"
    id: int | UnsetType | None = UNSET
    method: Literal["chunk", "ready"] | UnsetType = UNSET
    params: _Params | UnsetType = UNSET
    result: _Answer | UnsetType = UNSET
    error: _Error | UnsetType = UNSET


class OldGateway:
    """Writes one request, and puts its answer together."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self.refused: list[str] = []

    def ask(self, payload: bytes) -> bytes:
        return (
            b'{"jsonrpc":"2.0","id":1,"method":"invoke","params":{"input":%b,"stream":true,'
            b'"context":{},"request_id":"r"}}\n' % payload
        )

    def hear(self, data: bytes) -> None:
        for text in data.splitlines():
            try:
                line = msgspec.json.decode(text, type=_Line)
            except msgspec.ValidationError as error:
                self.refused.append(str(error))
                self.ended = True
                continue
            if line.method == "chunk":
                assert isinstance(line.params, _Params)
                assert isinstance(line.params.chunk, str)
                self.text += line.params.chunk
            elif line.method is UNSET:
                self.ended = True


class _Request(Struct):
    class Params(Struct):
        input: Raw | UnsetType = UNSET
        messages: Raw | UnsetType = UNSET
        stream: bool = False
        context: Raw = Raw(b"{}")
        request_id: str = ""

    method: str
    id: int
    params: Params


class OldWorker:
    """Reads one request, and answers with chunks; it has nothing else to say."""

    def answer(self, line: bytes, words: list[Any]) -> bytes:
        request = msgspec.json.decode(line, type=_Request)
        assert request.params.input is not UNSET
        chunks = [
            b'{"jsonrpc":"2.0","method":"chunk","params":{"id":%d,"chunk":%b}}\n'
            % (request.id, msgspec.json.encode(word))
            for word in words
            if isinstance(word, str)
        ]
        return b"".join(chunks) + b'{"jsonrpc":"2.0","id":%d,"result":{}}\n' % request.id
