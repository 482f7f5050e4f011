"""What an agent may ask of a service, and the request that is sent instead: no I/O.

This module owns the grammar of what agents send to the door, which of it a service allows, and what
of a request and of its answer is passed on. It does not know how messages are framed (h11 does),
nor where a service is (`addresses`).

# Theory of operation

What is forwarded is built anew, from parts that were understood, never copied. So a part that two
readers could understand differently is refused instead of being repaired:

- The head has to fit a grammar that is stricter than h11's before h11 sees it: no folded lines, no
  line that ends without a carriage return, one Host, one length or one coding, never both.
- The target is a path, and a path is segments of RFC 3986 without `.`, `..` and empty ones. What
  encodes a slash, backslash, percent sign or control character is refused, since a server behind
  the service may decode twice. What need not be encoded is decoded before it is compared with what
  is allowed, and it is that text which is sent.
- What is read takes time that grows with its length and no faster: one process serves every worker
  of the agent, and one of them must not keep it from the others.
- Header fields are passed on from a list. It has none that carries a credential, names another
  target or method (`X-HTTP-Method-Override`, `X-Forwarded-*`, `X-Original-URL`), concerns the
  connection, or asks for a part of an answer: a key that comes in two halves would pass the mask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from gateway.sandbox.network.mask import Mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Headers = list[tuple[bytes, bytes]]

MAX_HEAD = 64 * 1024
"""Bytes of a request's head: more than common servers accept, and a bound on what one waits for."""

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))

PASSED_REQUEST_HEADERS = (
    *("accept", "accept-language", "cache-control", "content-encoding", "content-language"),
    *("content-type", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since"),
    *("idempotency-key", "last-event-id", "mcp-*", "prefer", "referer", "traceparent"),
    *("tracestate", "user-agent", "x-client-request-id", "x-request-id", "x-stainless-*"),
    # Of the vendors: which version of an interface is meant, and who asks.
    *("anthropic-beta", "anthropic-version", "openai-beta", "http-referer", "x-title"),
    *("x-github-api-version", "x-goog-api-client", "x-goog-request-params"),
)
"""What services understand besides the body, and cannot hurt. `*` stands for the rest of a name."""

NEVER_PASSED_REQUEST_HEADERS = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "host", "if-range"),
        *("keep-alive", "proxy-authorization", "proxy-connection", "range", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    )
)
"""Of the connection, or of the door's own choice: `allow_headers` cannot name them."""

MISLEADING_REQUEST_HEADERS = (
    # Another method.
    *("x-http-method*", "x-http-verb*", "x-method*", "x-verb-override"),
    # Another host or path.
    *("base-url", "destination", "forwarded", "x-backend-*", "x-base-url", "x-envoy-*"),
    *("x-forward-*", "x-forwarded*", "x-host*", "x-http-host*", "x-http-path*", "x-http-url*"),
    *("x-invoke-*", "x-middleware-*", "x-original-*", "x-override-*", "x-path*", "x-proxy-*"),
    *("x-request-uri", "x-request-url", "x-rewrite-*", "x-script-name", "x-uri", "x-url"),
    # Another file, or another proxy for the service's own requests.
    *("proxy", "x-accel-*", "x-sendfile*"),
    # Somebody else who asks.
    *("cf-connecting-ip", "client-ip", "fastly-client-ip", "true-client-ip", "via"),
    *("x-client-ip", "x-cluster-client-ip", "x-originating-*", "x-real-*", "x-remote-*"),
)
"""Fields by which servers and proxies take a request for another one than its first line and its
Host say. `allow_headers` passes none of them."""

_DROPPED_RESPONSE_HEADERS = frozenset(
    (
        *(b"accept-ranges", b"alt-svc", b"clear-site-data", b"connection", b"content-location"),
        *(b"content-encoding", b"keep-alive", b"location", b"proxy-authenticate"),
        *(b"proxy-connection", b"refresh", b"set-cookie", b"set-cookie2", b"te", b"trailer"),
        *(b"strict-transport-security", b"transfer-encoding", b"upgrade"),
    )
)

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/1\.([01])" % _TOKEN)
_FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_NAME = re.compile(r"/([A-Za-z0-9_-]+)(/.*)?")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_QUERY = re.compile(r"(?:[!$-&'-;=?-Z_a-z~\[\]{}|^]|%[0-9A-Fa-f]{2})*")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_AMBIGUOUS = frozenset("/\\%")
_NO_ALPHANUMERIC = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Denied:
    """A request that is not passed on."""

    status: int
    rule: str
    """What decided: the setting that could allow it, or `http` for what no setting can."""
    why: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's target names."""

    service: str
    path: str
    """Below the service's URL, in its normal form: empty, or beginning with a slash."""
    query: str
    """Without its question mark, in its normal form."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service, as the gateway's rules describe it."""

    name: str
    scheme: str
    host: str
    """A name in lower case or an IP address, without brackets."""
    port: int
    base: str
    """The path of its URL, without a slash at its end."""
    headers: Mapping[str, str] = field(repr=False, default_factory=dict)
    mask: Mask = field(default_factory=lambda: Mask(()))
    allow: Sequence[str] = ()
    """`METHOD /path`, with `*` for any characters; none for everything below its URL."""
    allow_headers: Sequence[str] = ()
    drop_query: Sequence[str] = ()

    @property
    def authority(self) -> str:
        """Host and port for the field Host (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"
        )

    def allowed_by(self, method: str, path: str) -> str | None:
        """The pattern that allows this, `*` where everything is allowed, or None."""
        if not self.allow:
            return "*"
        said = f"{method} {path or '/'}"
        return next((each for each in self.allow if _fits(each, said)), None)


def _fits(pattern: str, said: str) -> bool:
    """Whether the pattern, in which `*` stands for any characters, fits all of it.

    Each part is looked for once, behind the one before it: a regular expression would try every
    combination, and an agent could keep this process busy for hours with one long path.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return said == pattern
    last = parts.pop()
    if not said.startswith(first):
        return False
    at, end = len(first), len(said) - len(last)
    for part in parts:
        found = said.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end and said.endswith(last)


def check_head(head: bytes) -> Denied | None:
    """Why a request's head, up to the empty line, is not to be given to h11; or None."""
    line, *lines = head.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    fields = [_FIELD.fullmatch(each) for each in lines]
    if request is None or not all(fields):
        return Denied(400, "http", "this is no request of HTTP/1.1 (RFC 9112)")
    method, target, minor = request.groups()
    if method not in METHODS:
        return Denied(405, "http", f"the method {method[:20].decode()} is not passed on")
    if not target.startswith(b"/"):
        return Denied(400, "http", "only a path is a target here: this is no proxy")
    values: dict[bytes, list[bytes]] = {}
    for name, value in (each.groups() for each in fields if each):
        values.setdefault(name.lower(), []).append(value.strip(b"\t "))
    if len(values.get(b"host", ())) != 1 and not (minor == b"0" and b"host" not in values):
        return Denied(400, "http", "one Host is expected")
    return _check_framing(values, minor) or _check_upgrade(values)


def _check_framing(values: Mapping[bytes, list[bytes]], minor: bytes) -> Denied | None:
    lengths = values.get(b"content-length", [])
    codings = values.get(b"transfer-encoding", [])
    if (lengths and codings) or len(lengths) > 1 or len(codings) > 1:
        return Denied(400, "http", "one Content-Length or one Transfer-Encoding is expected")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        return Denied(400, "http", "Content-Length is no number")
    if codings and (codings[0].lower() != b"chunked" or minor == b"0"):
        return Denied(400, "http", "no Transfer-Encoding but chunked is understood")
    return None


def _check_upgrade(values: Mapping[bytes, list[bytes]]) -> Denied | None:
    # An offer of HTTP/2 may be ignored (RFC 9110, 7.8): Java's client always makes it.
    if any(each.lower() != b"h2c" for each in values.get(b"upgrade", ())):
        return Denied(501, "http", "no other protocol is passed on (Upgrade)")
    return None


def read_target(target: bytes) -> Target | Denied:
    """The parts of a request's target, `/NAME/path?query`, which begins with a slash."""
    whole, _, query = target.decode("ascii").partition("?")
    match = _NAME.fullmatch(whole)
    if match is None:
        return Denied(404, "services", "the path has to begin with the name of a service: /NAME/…")
    name, path = match.groups()
    normal = _normal_path(path or "")
    if isinstance(normal, Denied):
        return normal
    if _STRAY_PERCENT.search(query) or not _QUERY.fullmatch(query):
        return Denied(400, "http", "the query holds characters that have to be percent-encoded")
    return Target(name, normal, _normal_query(query))


def _normal_path(path: str) -> str | Denied:
    if not path:
        return ""
    segments = path.removeprefix("/").split("/")
    normal: list[str] = []
    for number, segment in enumerate(segments):
        if not segment and number == len(segments) - 1:
            normal.append("")
            continue
        if not _SEGMENT.fullmatch(segment):
            return Denied(400, "http", "the path has an empty segment or a character of no path")
        decoded = [chr(int(each, 16)) for each in _ENCODED.findall(segment)]
        if any(each in _AMBIGUOUS or not " " <= each != "\x7f" for each in decoded):
            why = "the path encodes a slash, a backslash, a percent sign or a control character"
            return Denied(400, "http", why)
        plain = _ENCODED.sub(_decode_unreserved, segment)
        if plain.partition(";")[0] in {".", ".."}:
            return Denied(400, "http", "the path leads upwards")
        normal.append(plain)
    return "/" + "/".join(normal)


def _decode_unreserved(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return char if char in _UNRESERVED else found[0].upper()


def _normal_query(query: str) -> str:
    normal = _ENCODED.sub(_decode_unreserved, query)
    return re.sub(r"[\[\]{}|^]", lambda found: f"%{ord(found[0]):02X}", normal)


def build_target(service: Service, target: Target) -> bytes:
    """The target of the request that is sent."""
    query = target.query
    if service.drop_query and query:
        kept = [
            each for each in query.split("&") if each.partition("=")[0] not in service.drop_query
        ]
        query = "&".join(kept)
    path = (service.base + target.path) or "/"
    return f"{path}?{query}".encode() if query else path.encode()


def build_headers(
    service: Service, headers: Iterable[tuple[bytes, bytes]], framing: Headers
) -> Headers:
    """The fields of the request that is sent. `headers` are the agent's, with names in lower case;
    `framing` says how long the body is."""
    own = {_as_servers_read(name.lower()) for name in service.headers}
    sent: Headers = [(b"host", service.authority.encode()), (b"accept-encoding", b"identity")]
    for name, value in headers:
        text = name.decode("ascii")
        if _as_servers_read(text) not in own and _may_pass(text, service.allow_headers):
            sent.append((name, value))
    sent += [(name.encode(), value.encode()) for name, value in service.headers.items()]
    return sent + framing


def _may_pass(name: str, allow_headers: Sequence[str]) -> bool:
    read = _as_servers_read(name)
    if read in NEVER_PASSED_REQUEST_HEADERS or _is_one_of(read, MISLEADING_REQUEST_HEADERS):
        return False
    return _is_one_of(name, PASSED_REQUEST_HEADERS) or _is_one_of(name, allow_headers)


def _is_one_of(name: str, names: Iterable[str]) -> bool:
    return any(
        name == each or (each.endswith("*") and name.startswith(each[:-1])) for each in names
    )


def _as_servers_read(name: str) -> str:
    """A name that no other has in what CGI (RFC 3875, 4.1.18) and its descendants make of it:
    there, `X_Host` and `X.Host` may be `X-Host`."""
    return _NO_ALPHANUMERIC.sub("-", name)


def build_response_headers(
    service: Service, path: str, headers: Iterable[tuple[bytes, bytes]]
) -> Headers:
    """The fields of an answer that are passed on, without the keys. `path` is the request's, as it
    was sent."""
    passed: Headers = []
    headers = list(headers)
    # What h11 went by counts: a length beside a coding is ignored (RFC 9112, 6.3).
    framed = any(name == b"transfer-encoding" for name, _ in headers)
    for name, value in headers:
        if framed and name == b"content-length":
            continue
        if name == b"location":
            if (own := _own_location(service, path, value)) is not None:
                passed.append((name, service.mask.hide(own)))
        elif name not in _DROPPED_RESPONSE_HEADERS and not service.mask.is_in_name(name):
            passed.append((name, service.mask.hide(value)))
    return passed


def why_unreadable(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Why an answer cannot be searched for keys, or None."""
    codings = [value for name, value in headers if name == b"content-encoding"]
    if any(each.strip().lower() not in {b"", b"identity"} for each in codings):
        return "it has answered with a compressed body, though it was asked not to"
    return None


def _own_location(service: Service, path: str, value: bytes) -> bytes | None:
    """Where a redirect leads, as the agent has to ask for it here; None if it leads elsewhere."""
    own = f"{service.scheme}://{service.authority}"
    try:
        there = urlsplit(urljoin(own + path, value.decode("ascii")))
        port = there.port or {"http": 80, "https": 443}.get(there.scheme)
        if (there.scheme, there.hostname, port) != (service.scheme, service.host, service.port):
            return None
    except ValueError:
        return None
    if there.path != service.base and not there.path.startswith(f"{service.base}/"):
        return None
    query = f"?{there.query}" if there.query else ""
    target = read_target(f"/{service.name}{there.path[len(service.base) :]}{query}".encode())
    if isinstance(target, Denied) or "@" in there.netloc:
        return None
    query = f"?{target.query}" if target.query else ""
    return f"/{service.name}{target.path}{query}".encode()
