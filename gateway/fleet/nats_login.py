"""How a process logs in to NATS, and what went wrong there, in words that name the setting.

Files are read again for each connection, so that new credentials need no restart.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any

import nkeys
from nats.aio.client import RawCredentials

from gateway.config import ConfigError
from gateway.config.reading import read_bounded
from gateway.config.references import MAX_FILE_BYTES
from gateway.observe.harmless import shortened

if TYPE_CHECKING:
    from gateway.config import FleetSettings

LEAST_VERSION = (2, 9)
"""Of nats-server: the oldest that is tested."""

LEAST_PAYLOAD = 1024 * 1024
"""NATS's own default of `max_payload`."""

ENDED = "has ended the connection"

_MARK = r"-{3,}(?:BEGIN|END) %s-{3,}"
_JWT = "NATS USER JWT"
_SEED = "USER NKEY SEED"


class LoginError(Exception):
    """A connection to NATS cannot be made, or has ended; the message says why, and names the
    setting that may be wrong."""


def options(settings: FleetSettings, server: str) -> dict[str, Any]:
    """What `nats.aio.client.Client.connect` is to be given. Reads files. Raises LoginError."""
    found: dict[str, Any] = {}
    if settings.credentials:
        found["user_credentials"] = RawCredentials(_credentials(settings.credentials))
    elif settings.nkey:
        found["nkeys_seed_str"] = _seed("nkey", _text("nkey", settings.nkey).strip())
    elif settings.user:
        found |= {"user": settings.user, "password": settings.password}
    elif settings.token:
        found["token"] = settings.token
    if needs_tls(settings, server):
        found["tls"] = _tls(settings)
    return found


def needs_tls(settings: FleetSettings, server: str) -> bool:
    return settings.needs_tls or server.startswith("tls:")


def check(settings: FleetSettings) -> None:
    """Raises ConfigError for files that cannot be used as they are."""
    try:
        for server in settings.servers:
            options(settings, server)
    except LoginError as error:
        raise ConfigError(str(error)) from None


def _text(name: str, path: str) -> str:
    try:
        return read_bounded(path, MAX_FILE_BYTES).decode("ascii")
    except OSError as error:
        raise LoginError(f"fleet.{name}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LoginError(f"fleet.{name}: {path} is no text") from None


def _credentials(path: str) -> str:
    """The two parts of a file of credentials, each on the one line that nats-py reads."""
    text = _text("credentials", path)
    jwt, seed = (_part(text, kind) for kind in (_JWT, _SEED))
    if jwt is None or seed is None:
        raise LoginError(
            f"fleet.credentials: {path} holds no credentials of a user, expected a file that nsc "
            "has made, with a JWT and a seed"
        )
    _seed("credentials", seed)
    return "".join(
        f"-----BEGIN {kind}-----\n{value}\n------END {kind}------\n"
        for kind, value in ((_JWT, jwt), (_SEED, seed))
    )


def _part(text: str, kind: str) -> str | None:
    mark = _MARK % kind
    found = re.search(rf"{mark}\s+(\S+)\s+{mark}", text)
    return found[1] if found else None


def _seed(name: str, seed: str) -> str:
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception:  # noqa: BLE001 - of the library's, and several of Python's own
        raise LoginError(
            f"fleet.{name}: holds no seed of an nkey, expected one that begins with SU"
        ) from None
    return seed


def _tls(settings: FleetSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise LoginError(f"fleet.ca: {settings.ca}: {_reason(error)}") from None
    if settings.cert:
        try:
            # Without a password, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(settings.cert, settings.key or None, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            files = f"{settings.cert} {settings.key}".strip()
            raise LoginError(f"fleet.cert, fleet.key: {files}: {_reason(error)}") from None
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"is no file in PEM that can be used ({error.reason or error})"
    return error.strerror or str(error)


def check_server(version: tuple[int, int], max_payload: int) -> None:
    """Raises LoginError for a server that cannot carry a fleet."""
    if version < LEAST_VERSION:
        found, least = (".".join(map(str, each)) for each in (version, LEAST_VERSION))
        raise LoginError(f"is nats-server {found}, expected {least} or newer")
    if max_payload < LEAST_PAYLOAD:
        raise LoginError(
            f"takes messages of {max_payload} bytes, expected at least {LEAST_PAYLOAD} "
            "(max_payload in its configuration)"
        )


def problem(error: BaseException | None, settings: FleetSettings) -> str:
    """What went wrong, as it goes on after the URL of a server."""
    match error:
        case LoginError():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not trusted (fleet.ca): {error.verify_message}"
        case ssl.SSLError():
            why = error.reason or error
            return f"does not agree on TLS (fleet.ca, fleet.cert, fleet.key): {why}"
        case ConnectionRefusedError():
            why = "connection refused"
        case OSError() if not isinstance(error, ConnectionError):
            why = error.strerror or str(error) or "no answer in time"
        case _:
            return _said(error, settings)
    return f"cannot be reached (fleet.servers): {why}"


def _said(error: BaseException | None, settings: FleetSettings) -> str:
    """What a server has said before it ended the connection, if anything."""
    text = str(error or "").removeprefix("nats: ")
    if isinstance(error, ConnectionError) or "unexpected EOF" in text or not text:
        return ENDED
    if "authoriz" in text.lower() or "authenticat" in text.lower():
        return f"refuses {_login(settings)}: {shortened(text, 300)}"
    return shortened(text, 300)


def ended_early(settings: FleetSettings, server: str) -> str:
    """What may be wrong where a server has ended the connection during the login: its reason can be
    lost, as the kernel drops it when more is sent to it meanwhile."""
    certificate = ""
    if needs_tls(settings, server):
        certificate = " or fleet.cert" if settings.cert else " or ask for fleet.cert"
    return f"may refuse {_login(settings)}{certificate}: {ENDED}"


def _login(settings: FleetSettings) -> str:
    """What a server was shown."""
    for name in ("credentials", "nkey", "token"):
        if getattr(settings, name):
            return f"fleet.{name}"
    if settings.user:
        return "fleet.user and fleet.password"
    return "a connection without credentials (fleet.credentials, nkey, user or token)"
