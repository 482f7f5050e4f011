"""Tokens, from what the answers of services say themselves, as their bytes pass: pure.

# Theory of operation

An answer is one JSON text, several of them (Ollama's lines, Gemini's array), or a stream of
server-sent events whose data are JSON texts. Its form needs no setting, since each names what it
counts differently:

    OpenAI, Mistral, Groq, …   usage                  prompt_tokens, completion_tokens
    Responses                  usage, response.usage  input_tokens, output_tokens
    Anthropic                  usage, message.usage   the same, and cached input beside it
    Groq's streams             x_groq.usage           as OpenAI's
    Gemini                     usageMetadata          promptTokenCount, candidatesTokenCount, …
    Ollama                     at the top             prompt_eval_count, eval_count

Streams repeat what they count, with growing numbers. So of each number the largest counts, and what
a stream that is cut had not said yet is estimated: a token for each event, and for four bytes of
what was sent. Only these places count: the same words deeper
inside, in a tool's arguments or in a document, are the model's or a caller's.

An upstream may send anything: a line of a gigabyte, brackets without end. So texts are not decoded.
`_Scanner` follows strings and brackets as they pass, and keeps only the few hundred bytes of a
`usage` object, which is decoded. Most events of a stream say nothing of tokens: an event that is
short enough to be kept whole, which nearly all are, is not scanned unless one of the words occurs
in it. Any split of the bytes gives the same result.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_EVENT = 64 * 1024
"""Bytes of an event that is kept whole. The data of a longer one are scanned as they come."""
MAX_USAGE = 16 * 1024
"""Bytes of a `usage` object. Those of today's services have a few hundred."""
MAX_STEPS = 20_000_000
"""Brackets and the like of one answer that are looked at, at half a microsecond each; between them,
bytes pass at the speed of memory. An honest answer has some ten thousand."""
_BYTES_OF_A_TOKEN = 4
"""Of English text, which is about the longest that tokens are."""
MAX_TOKENS = 10**9
"""More is no number of one answer's tokens."""

_OPENING = frozenset({b"{", b"["})
_QUOTE = ord('"')
_MAX_KEY = 32
_MAX_SCALAR = 32
_MAX_DIGITS = 12

_WORDS = re.compile(rb'usage(?:Metadata)?"\s*:\s*(?:\{|\Z)|eval_count')
"""One of them occurs in every text that says something of tokens; `"usage": null`, which many
streams repeat in each event, is none."""

_USAGE = frozenset({b"usage", b"usageMetadata"})
_WITHIN = frozenset({b"message", b"response", b"x_groq"})
"""Objects in which `usage` may stand."""
_AT_THE_TOP = frozenset({b"prompt_eval_count", b"eval_count"})

_NEXT = re.compile(rb'["{}\[\]:,]')
"""What matters in an object that may hold what is counted."""
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""What comes before a string's end, which an escaped quote is not."""
# Not possessive as a whole: before Python 3.11.5, such a group keeps the beginning of a repetition
# that does not match. So it remembers its repetitions, and may have only so many at a time.
_SKIPPED = re.compile(rb'[^"{}\[\]]*+(?:(?>"(?:[^"\\]++|\\.)*+")[^"{}\[\]]*+){0,1000}', re.DOTALL)
"""What comes before the next bracket elsewhere: whole strings, and what stands between them."""
_COUNT = re.compile(rb"\s*([0-9]{1,10})\s*")

_INPUT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count")
_INPUT_BESIDE = (
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "toolUsePromptTokenCount",
)
"""Input that the first number leaves out: cached input is within OpenAI's number and Gemini's, and
beside Anthropic's."""
_OUTPUT = ("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count")
_OUTPUT_BESIDE = ("thoughtsTokenCount",)


def tokens_in(size: int) -> int:
    """About how many tokens a text of `size` bytes has."""
    return size // _BYTES_OF_A_TOKEN


class Tokens(NamedTuple):
    """What an answer has taken."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


class UsageReader:
    """Reads one answer's body. `feed` is given its bytes, in order and split anywhere."""

    def __init__(self, content_type: str) -> None:
        """`content_type`: the header's value."""
        streams = content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._numbers: dict[str, int] = {}
        self._complete = False
        self._scanner = _Scanner(self._found)
        self._events = _Events(self._scanner) if streams else None

    @property
    def tokens(self) -> Tokens | None:
        """What the answer has said so far; None if it has said nothing of tokens."""
        if not self._numbers:
            return None
        return Tokens(
            self._sum(_INPUT, _INPUT_BESIDE),
            self._sum(_OUTPUT, _OUTPUT_BESIDE),
        )

    def charge(self, *, sent: int, received: int, whole: bool) -> int:
        """What a budget is charged: the tokens; and what is estimated of those that the answer has
        not said in the end, because it is a stream that never does or was left before it would.

        Else an agent would be free of its budget by not asking for the numbers, or by leaving as
        soon as it has what it wants. `sent` and `received` are bytes of the two bodies so far;
        `whole`: the answer has come to its end.
        """
        said = self.tokens or Tokens(0, 0)
        if self._complete or (self._events is None and (whole or not sent)):
            return said.total
        came = tokens_in(received) if self._events is None else self._events.count
        return (said.input or tokens_in(sent)) + max(said.output, came)

    def feed(self, data: bytes) -> None:
        if self._events is not None:
            self._events.feed(data)
        else:
            self._scanner.feed(data)

    def _sum(self, first: tuple[str, ...], beside: tuple[str, ...]) -> int:
        # One of the first, since a service may say the same number by two names.
        most = max((self._numbers.get(name, 0) for name in first), default=0)
        return most + sum(self._numbers.get(name, 0) for name in beside)

    def _found(self, within: bytes, said: dict[str, Any]) -> None:
        # Anthropic's first event has the input, and of the output only its beginning.
        self._complete = self._complete or within != b"message"
        for name in (*_INPUT, *_INPUT_BESIDE, *_OUTPUT, *_OUTPUT_BESIDE):
            number = said.get(name)
            if type(number) is int and 0 <= number <= MAX_TOKENS:
                self._numbers[name] = max(self._numbers.get(name, 0), number)


class _Events:
    """Splits a stream into events (HTML, 9.2.6), and has the data of those scanned that matter."""

    def __init__(self, scanner: _Scanner) -> None:
        self.count = 0
        """Events that had data."""
        self._scanner = scanner
        self._after_cr = False
        self._line = b""
        """The beginning of a line, as long as it is short."""
        self._long: bool | None = None
        """Whether a longer line is data; None if there is none."""
        self._kept = b""
        """The data of the present event that are not scanned."""
        self._scans = self._has_data = False

    def feed(self, data: bytes) -> None:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._add(piece, ends=True)
        if rest:
            self._add(rest, ends=False)

    def _add(self, piece: bytes, *, ends: bool) -> None:
        if self._long is None:
            piece = self._line + piece
            if not ends and len(piece) <= MAX_EVENT:
                self._line = piece
                return
            self._line = b""
            if not piece:
                self._end_event()
                return
            whole = ends and len(piece) <= MAX_EVENT
            self._long = piece.startswith(b"data:")
            if self._long:
                self._begin_data()
                piece = piece[5:]
        else:
            whole = False
        if self._long:
            self._add_data(piece, whole=whole)
        if ends:
            self._long = None

    def _begin_data(self) -> None:
        if self._has_data:
            self._add_data(b"\n", whole=True)
        else:
            self._has_data = True
            self.count += 1

    def _add_data(self, data: bytes, *, whole: bool) -> None:
        """Add data, or a piece of them; words are looked for in a `whole` line alone."""
        if self._scans:
            self._scanner.feed(data)
            return
        self._kept += data
        if not whole or len(self._kept) > MAX_EVENT or _WORDS.search(data):
            self._scans = True
            self._scanner.feed(self._kept)
            self._kept = b""

    def _end_event(self) -> None:
        self._scanner.begin()
        self._kept, self._scans, self._has_data = b"", False, False


class _Scanner:
    """Finds what is counted in JSON texts, one after the other, without decoding them."""

    def __init__(self, found: Callable[[bytes, dict[str, Any]], None]) -> None:
        """`found` is told of numbers, and of the object within which they stood, if any."""
        self._found = found
        self._steps = 0
        self.begin()

    def begin(self) -> None:
        """Forget what has come of a text: another one begins."""
        self._level = 0
        """0 between texts, 1 in an object at the top, 2 within one of its objects, `_within`."""
        self._within = b""
        self._skipped = 0
        """How deep the present place is in an object or array that does not matter."""
        self._captured: bytearray | None = None
        """What has come of an object that is counted; it is skipped meanwhile."""
        self._in_string = self._escaped = False
        self._text = b""
        """The beginning of the present or last string."""
        self._key: bytes | None = None
        """Whose value comes next."""
        self._scalar = b""
        """The beginning of what stands there."""

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data) and self._steps < MAX_STEPS:
            step = self._string if self._in_string else self._skip if self._skipped else self._look
            captures = self._captured is not None
            then = step(data, at)
            if captures:
                self._capture(data[at:then])
            at = then

    def _string(self, data: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        match = _STRING.match(data, at)
        assert match is not None
        then = match.end()
        if len(self._text) <= _MAX_KEY:
            self._text += data[at : min(then, at + _MAX_KEY + 1)]
        if then == len(data):
            return then
        if data[then] == _QUOTE:
            self._in_string = False
        else:
            self._escaped = True  # a backslash at the end of what has come
            self._text += b"\\"
        return then + 1

    def _skip(self, data: bytes, at: int) -> int:
        match = _SKIPPED.match(data, at)
        assert match is not None
        then = match.end()
        if then == len(data):
            return then
        if data[then] == _QUOTE:  # of a string that has not ended yet
            self._in_string, self._text = True, b""
        else:
            self._steps += 1
            self._skipped += 1 if data[then] in b"{[" else -1
        return then + 1

    def _look(self, data: bytes, at: int) -> int:
        match = _NEXT.search(data, at)
        then = len(data) if match is None else match.start()
        char = b"" if match is None else match[0]
        if self._key is not None and len(self._scalar) <= _MAX_SCALAR:
            self._scalar += data[at : min(then, at + _MAX_SCALAR + 1)]
        self._steps += len(char)
        if char == b'"':
            self._in_string, self._text = True, b""
        elif char == b":":
            self._key, self._scalar = self._text, b""
        elif char in _OPENING:
            self._open(char)
        elif char:
            self._end_value()
            if char == b"}" and self._level:
                self._level -= 1
                self._within = b""
        return then + len(char)

    def _open(self, char: bytes) -> None:
        key, self._key = self._key, None
        if self._level == 0:
            # An array of texts is looked through like the texts.
            self._level = 1 if char == b"{" else 0
        elif char == b"{" and key in _USAGE:
            self._skipped, self._captured = 1, bytearray(b"{")
        elif char == b"{" and key in _WITHIN and self._level == 1:
            self._level, self._within = 2, key or b""
        else:
            self._skipped = 1

    def _end_value(self) -> None:
        key, self._key = self._key, None
        if key in _AT_THE_TOP and self._level == 1 and (count := _COUNT.fullmatch(self._scalar)):
            self._found(b"", {key.decode(): int(count[1])})

    def _capture(self, data: bytes) -> None:
        assert self._captured is not None
        self._captured += data
        if len(self._captured) > MAX_USAGE:
            self._captured = None
        elif not self._skipped:
            captured, self._captured = bytes(self._captured), None
            said = _decode(captured)
            if said is not None:
                self._found(self._within, said)


def _decode(text: bytes) -> dict[str, Any] | None:
    """A JSON object, in which a number too long for a count is None."""
    try:
        said = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _MAX_DIGITS else None
