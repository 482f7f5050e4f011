"""The services that agents may use: the TOML tables `[services.NAME]`.

This module owns names, defaults, checks, and where a key comes from: the gateway's environment or a
file. It does not know how a service is reached (`gateway.sandbox.network` does).

A key is a `Service`'s alone: settings hold where it is to be found, and neither a repr nor an error
ever shows one.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, urlsplit

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from gateway.config.hosts import is_address
from gateway.config.nearest import meant
from gateway.config.presets import GENERIC, PRESETS, Preset
from gateway.config.reading import MAX_CONFIGURATION_BYTES, read_bounded
from gateway.config.references import FILE_WORD, MAX_FILE_BYTES, VARIABLE, Referenced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SERVICE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
"""A part of a path and, in capital letters, of the name of a variable."""

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?")
_BASE = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")
_ALLOW = re.compile(r"(\*|[A-Z]+) (/[!-~]*)")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REFERENCE = re.compile(rf"(?<!\$)\$\{{([^}}]*)\}}|{FILE_WORD.pattern}")
_NEARLY = re.compile(r"(?<!\$)\$\{|(?<!\S)\$[A-Z_][A-Z0-9_]*(?!\S)|file:/")
"""What is a mistake rather than a part of a key, and would be sent to the service as it is."""
_REPLACED = re.compile(rf"\$\$(?=\{{)|{_REFERENCE.pattern}")
"""References, and what stands for the beginning of what is none (`references`)."""
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_PRIVATE = re.compile(r"(?<=//).*@|(?<=[?#]).*")
"""User and password of a URL, and its query."""
_CREDENTIAL = re.compile(r"auth|cookie|key|pass|secret|signature|token", re.IGNORECASE)
OWN_HEADERS = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "host", "if-range"),
        *("keep-alive", "proxy-authorization", "proxy-connection", "range", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    )
)
"""Fields that no setting may name: of the connection, or chosen by whoever makes the requests."""

MISLEADING_HEADERS = (
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
"""Fields by which a request is taken for another one: an agent's are passed on by no setting."""

Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]


class ServiceClocks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Time limits on a request to a service, in seconds."""

    connect: Seconds = 15
    """Resolving the name, connecting, and the handshake of TLS: less than clients commonly wait."""
    first: Seconds = 600
    """From the request to the beginning of the answer: a model may think for minutes."""
    idle: Seconds = 300
    """Without a byte from either side after that."""


class ServiceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One service. What a preset has, the table's own keys replace."""

    preset: str | None = None
    """What is known of a service: openai, anthropic, google, ollama, and others."""
    url: str = ""
    """`http` or `https`, a host, and a path: requests go to what is below it."""
    header: dict[str, str] = {}
    """Fields that are added to every request. A value may hold `${NAME}`, for a variable of the
    gateway's, and `file:/path`, for the content of a file."""
    env: dict[str, str] | UnsetType = UNSET
    """Variables of the workers, in which `{url}` stands for what they reach the service by."""
    allow: tuple[str, ...] = ()
    """`METHOD /path` below the URL, with `*` for any characters; none for everything."""
    allow_headers: tuple[str, ...] = ()
    """Header fields of the agent's that are passed on besides the usual ones; `x-foo-*` for all
    that begin so. Never `MISLEADING_HEADERS`."""
    ca: str | None = None
    """A file of certificates (PEM) to trust instead of the machine's, which $SSL_CERT_FILE of the
    gateway's may name, too."""
    requests_per_minute: Count = 0
    """Of each agent; 0 is no limit."""
    tokens_per_day: Count = 0
    """Of each agent, by what the answers themselves say; 0 is no limit."""
    clocks: ServiceClocks = ServiceClocks()

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            known = ", ".join(sorted(PRESETS))
            near = meant(self.preset, PRESETS)
            raise ValueError(f"preset is {self.preset!r}, expected one of {known}{near}")
        self.parts  # noqa: B018 - checks it
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in OWN_HEADERS:
                shown = name.partition(":")[0]
                raise ValueError(f"header has {shown!r}, expected the name of a field of its own")
            _check_references(f"header.{name}", value)
        for name in self.environment("x"):
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"env has {name!r}, expected letters, digits and underscores")
        for each in self.allow:
            if not _ALLOW.fullmatch(each) or "?" in each or "/../" in f"{each}/":
                raise ValueError(
                    f'allow has {each!r}, expected "METHOD /path", such as "GET /models"'
                )
        for each in self.allow_headers:
            if not _HEADER.fullmatch(each) or "*" in each[:-1] or each.lower() in OWN_HEADERS:
                raise ValueError(f'allow_headers has {each!r}, expected a name, or "x-foo-*"')
            if _is_misleading(each.lower()):
                raise ValueError(
                    f"allow_headers has {each!r}, which is never passed on: "
                    "a service could take the request for one with another host, path or method"
                )

    @property
    def defaults(self) -> Preset:
        return GENERIC if self.preset is None else PRESETS[self.preset]

    @property
    def address(self) -> str:
        """Its URL, without a slash at its end."""
        return (self.url or self.defaults.url).rstrip("/")

    @property
    def shown_address(self) -> str:
        """The URL for a message, without what may be a key, while settings are checked."""
        written = self.url.written if isinstance(self.url, Referenced) else self.address
        return private_url(written)

    @property
    def parts(self) -> SplitResult:
        """The parts of the URL. Raises ValueError."""
        if not self.address:
            why = self.defaults.why_url or "expected https://HOST/PATH"
            raise ValueError(f"url is missing: {why}")
        expected = (
            f"url is {self.shown_address!r}, expected http(s)://HOST[:PORT][/PATH] and nothing else"
        )
        try:
            parts = urlsplit(self.address)
            port = parts.port
        except ValueError:
            raise ValueError(expected) from None
        host = parts.hostname or ""
        if (
            parts.scheme not in _PORTS
            or not (_HOST.fullmatch(host) or is_address(host))
            or "@" in parts.netloc
            or port == 0
            or not _BASE.fullmatch(parts.path)
            or {".", ".."} & set(parts.path.split("/"))
            or self.address != f"{parts.scheme}://{parts.netloc}{parts.path}"
        ):
            raise ValueError(expected)
        if is_address(host) and ipaddress.ip_address(host).is_link_local:
            raise ValueError(
                f"url is {self.shown_address!r}: link-local addresses are never reached"
            )
        return parts

    @property
    def port(self) -> int:
        return self.parts.port or _PORTS[self.parts.scheme]

    def is_this_machine(self, listening: str) -> bool:
        """Whether its host is written as this machine's loopback, or as `listening`."""
        host = self.parts.hostname or ""
        if host == "localhost" or host.endswith(".localhost") or host == listening.lower():
            return True
        return is_address(host) and (
            ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
        )

    @property
    def headers(self) -> dict[str, str]:
        """The preset's and the table's own, by name as it was written."""
        own = {name.lower() for name in self.header}
        of_preset = {k: v for k, v in self.defaults.headers.items() if k.lower() not in own}
        return {**of_preset, **self.header}

    def environment(self, name: str) -> dict[str, str]:
        """The variables of workers, in which `{url}` is still to be replaced."""
        if self.env is not UNSET:
            return self.env
        if self.preset is not None:
            return dict(self.defaults.env)
        return {f"{name.upper().replace('-', '_')}_BASE_URL": "{url}"}


def private_url(url: str) -> str:
    """The URL without its user, password, query and fragment."""
    return _PRIVATE.sub("***", url)


def _is_misleading(name: str) -> bool:
    """Whether the name, or every name that begins so, is one of `MISLEADING_HEADERS`."""
    read = re.sub(r"[^a-z0-9*]", "-", name)
    return any(
        read == each or (each.endswith("*") and read.startswith(each[:-1]))
        for each in MISLEADING_HEADERS
    )


def _check_references(key: str, value: str) -> None:
    for found in _REFERENCE.finditer(value):
        if found[1] is not None and not VARIABLE.fullmatch(found[1]):
            raise ValueError(f"{key} has a reference that is not ${{NAME}}")
        if found[2] is not None and not os.path.isabs(found[2]):
            raise ValueError(f"{key} has file: without an absolute path")
    if _NEARLY.search(_REFERENCE.sub("", value)):
        raise ValueError(
            f"{key} has a $ or file: that is no reference: expected ${{NAME}} or file:/PATH"
        )


@dataclass(frozen=True, slots=True)
class Service:
    """One service with its keys, for one agent."""

    name: str
    settings: ServiceSettings
    env: Mapping[str, str]
    """Variables of the workers; `{url}` is still to be replaced."""
    header: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    """What of these headers must never come back."""
    ca: str | None = field(repr=False, default=None)

    def rules(self) -> dict[str, Any]:
        """All of it as plain values, for the process that makes the requests."""
        settings, parts = self.settings, self.settings.parts
        return {
            "scheme": parts.scheme,
            "host": parts.hostname,
            "port": settings.port,
            "base": parts.path,
            "headers": dict(self.header),
            "secrets": list(self.secrets),
            "allow": list(settings.allow),
            "allow_headers": [each.lower() for each in settings.allow_headers],
            "drop_query": list(settings.defaults.drop_query),
            "errors": settings.defaults.errors,
            "requests_per_minute": settings.requests_per_minute,
            "tokens_per_day": settings.tokens_per_day,
            "clocks": structs.asdict(settings.clocks),
            "ca": self.ca,
        }

    def describe(self) -> dict[str, Any]:
        """What may be shown to anybody who may see the agent's status."""
        settings = self.settings
        return {
            "url": settings.address,
            "allow": list(settings.allow) or ["*"],
            "header": sorted(self.header),
            "requests_per_minute": settings.requests_per_minute or None,
            "tokens_per_day": settings.tokens_per_day or None,
        }


def read_service(name: str, settings: ServiceSettings, environ: Mapping[str, str]) -> Service:
    """The service with its keys. Reads files. Raises ValueError, which names what is missing and
    shows no key."""
    values: dict[str, str] = {}
    secrets: list[str] = []
    for header, template in settings.headers.items():
        where = f"services.{name}.header.{header}"
        found = [_look_up(where, each, environ) for each in _REFERENCE.finditer(template)]
        keys = iter(found)
        value = _REPLACED.sub(
            lambda part, keys=keys: "$" if part[0] == "$$" else next(keys),  # type: ignore[misc]
            template,
        )
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{where}: the value is empty, or has characters of no header field")
        values[header] = value
        secrets += found
        if not found and _CREDENTIAL.search(header):
            secrets += value.split()
        secrets += _decoded(value)
    authorities = settings.ca or environ.get("SSL_CERT_FILE")
    ca = None
    if authorities and settings.parts.scheme == "https":
        ca = _certificates(f"services.{name}.ca", authorities)
    env = settings.environment(name)
    return Service(name, settings, env, values, tuple(dict.fromkeys(secrets)), ca)


def key_files(settings: ServiceSettings) -> Iterator[str]:
    """The files that hold the service's keys."""
    for template in settings.headers.values():
        for found in _REFERENCE.finditer(template):
            if found[2] is not None:
                yield found[2]


def key_variables(settings: ServiceSettings) -> Iterator[str]:
    """The gateway's variables that hold the service's keys."""
    for template in settings.headers.values():
        for found in _REFERENCE.finditer(template):
            if found[1] is not None:
                yield found[1]


def _look_up(where: str, reference: re.Match[str], environ: Mapping[str, str]) -> str:
    name, path = reference.groups()
    if path is not None:
        return _read(where, path, limit=MAX_FILE_BYTES).strip()
    value = environ.get(name, "").strip()
    if not value:
        raise ValueError(f"{where}: {name} is not set in the gateway's environment")
    return value


def _decoded(value: str) -> Iterator[str]:
    """What a value of the scheme Basic (RFC 7617) holds: the user with the password, and that."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            whole = base64.b64decode(encoded, validate=True).decode()
            yield whole
            yield whole.partition(":")[2]


def _certificates(where: str, path: str) -> str:
    try:
        text = read_bounded(path, MAX_CONFIGURATION_BYTES).decode("latin-1")
    except OSError as error:
        raise ValueError(f"{where}: {path}: {error.strerror}") from None
    found = "\n".join(_CERTIFICATE.findall(text))
    try:
        ssl.create_default_context(cadata=found or "none")
    except ssl.SSLError:
        raise ValueError(f"{where}: {path} holds no certificates (PEM)") from None
    return found


def _read(where: str, path: str, *, limit: int) -> str:
    try:
        text = read_bounded(path, limit).decode("ascii")
    except OSError as error:
        raise ValueError(f"{where}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{where}: {path} is no text in ASCII") from None
    if not text.strip():
        raise ValueError(f"{where}: {path} is empty")
    return text


def check_together(names: Iterable[str], services: Mapping[str, ServiceSettings]) -> None:
    """Check that an agent's services can be told apart. Raises ValueError."""
    owners: dict[str, str] = {}
    for name in names:
        if name not in services:
            known = ", ".join(sorted(services)) or "none: there is no [services.NAME]"
            near = meant(name, services)
            raise ValueError(f"services has {name!r}, expected one of {known}{near}")
        for variable in services[name].environment(name):
            other = owners.setdefault(variable, name)
            if other != name:
                raise ValueError(
                    f"services: {other!r} and {name!r} both set {variable}: "
                    f"give one of them another by [services.{name}] env = {{ … }}"
                )
