"""Every way to log in to a real nats-server, and what is said where it does not work."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from gateway.config import ConfigError, FleetSettings
from gateway.fleet.nats_login import check
from gateway.fleet.nats_try import try_servers
from tests.fleet.accounts import Identity, operator_mode
from tests.fleet.nats import NatsServer, needs_nats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_nats

REFUSES = re.compile(r"^(\S+) (?:may refuse|refuses) ")
"""What a server has said may be lost: see `nats_login.ended_early`."""


async def tried(url: str, **login: str) -> dict[str, Any]:
    """What is found of one server."""
    settings = FleetSettings(role="host", servers=[url], **login)  # type: ignore[arg-type]
    check(settings)
    (found,) = await try_servers(settings)
    return found


def file(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


async def test_user_and_password() -> None:
    with NatsServer('authorization { user: "h1", password: "secret" }') as nats:
        assert (await tried(nats.url, user="h1", password="secret"))["ok"]
        wrong = await tried(nats.url, user="h1", password="other")
        assert REFUSES.findall(wrong["error"]) == [nats.url], wrong
        assert "fleet.user and fleet.password" in wrong["error"]
        nobody = await tried(nats.url)
        assert REFUSES.findall(nobody["error"]) == [nats.url], nobody
        assert "a connection without credentials (fleet.credentials" in nobody["error"]


async def test_a_token() -> None:
    with NatsServer('authorization { token: "secret" }') as nats:
        assert (await tried(nats.url, token="secret"))["ok"]
        wrong = await tried(nats.url, token="other")
        assert REFUSES.findall(wrong["error"]) == [nats.url], wrong
        assert "fleet.token" in wrong["error"]


async def test_an_nkey(tmp_path: Path) -> None:
    user, stranger = Identity("user"), Identity("user")
    with NatsServer(f'authorization {{ users: [ {{ nkey: "{user.public}" }} ] }}') as nats:
        assert (await tried(nats.url, nkey=file(tmp_path / "user.nk", f"{user.seed}\n")))["ok"]
        wrong = await tried(nats.url, nkey=file(tmp_path / "other.nk", stranger.seed))
        assert REFUSES.findall(wrong["error"]) == [nats.url], wrong
        assert "fleet.nkey" in wrong["error"]


async def test_credentials_as_nsc_makes_them(tmp_path: Path) -> None:
    configuration, credentials = operator_mode()
    _, others = operator_mode()
    with NatsServer(configuration) as nats:
        found = await tried(nats.url, credentials=file(tmp_path / "user.creds", credentials))
        assert found["ok"], found
        wrong = await tried(nats.url, credentials=file(tmp_path / "other.creds", others))
        assert REFUSES.findall(wrong["error"]) == [nats.url], wrong
        assert "fleet.credentials" in wrong["error"]


@pytest.mark.parametrize(
    ("setting", "content", "message"),
    [
        ("credentials", None, "No such file"),
        ("credentials", "", "holds no credentials of a user"),
        ("credentials", operator_mode()[1].partition("****")[0], "holds no credentials of a user"),
        ("credentials", operator_mode()[1].replace("SU", "XX"), "holds no seed of an nkey"),
        ("nkey", None, "No such file"),
        ("nkey", "", "holds no seed of an nkey"),
        ("nkey", "SUAB", "holds no seed of an nkey"),
        ("nkey", b"\xff\xfe", "is no text"),
        ("ca", None, "No such file"),
        ("ca", "no certificate", "is no file in PEM"),
        ("cert", None, "No such file"),
        ("cert", "no certificate", "is no file in PEM"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_at_once(
    tmp_path: Path, setting: str, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        file(path, content)
    settings = FleetSettings(role="front", **{setting: str(path)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"fleet\.{setting}.*{message}"):
        check(settings)


class Authority:
    """A server with TLS, and the files that belong to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca = trustme.CA()
        self.ca = self.write("ca.pem", self._ca.cert_pem.bytes())
        self.certificate, self.key = self.issue("server", "127.0.0.1")

    def write(self, name: str, content: bytes) -> str:
        return file(self.folder / name, content)

    def issue(self, name: str, *names: str) -> tuple[str, str]:
        """The certificate of a server or a client, and its key."""
        made = self._ca.issue_cert(*names, common_name=name)
        chain = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        return (
            self.write(f"{name}.pem", chain),
            self.write(f"{name}.key", made.private_key_pem.bytes()),
        )

    def configuration(self, more: str = "") -> str:
        files = f'cert_file: "{self.certificate}", key_file: "{self.key}", ca_file: "{self.ca}"'
        return f"tls {{ {files}, timeout: 5 {more} }}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


async def test_tls_with_an_authority_of_its_own(authority: Authority, tmp_path: Path) -> None:
    with NatsServer(authority.configuration()) as nats:
        found = await tried(nats.tls_url, ca=authority.ca)
        assert found["ok"], found
        assert found["encrypted"]
        # The server wants TLS, whatever the URL says.
        assert (await tried(nats.url, ca=authority.ca))["encrypted"]
        strange = await tried(nats.tls_url)
        assert "has a certificate that is not trusted (fleet.ca)" in strange["error"]
        other = file(tmp_path / "other.pem", trustme.CA().cert_pem.bytes())
        wrong = await tried(nats.tls_url, ca=other)
        assert "has a certificate that is not trusted (fleet.ca)" in wrong["error"]


async def test_a_certificate_of_another_name_is_not_trusted(authority: Authority) -> None:
    with NatsServer(authority.configuration()) as nats:
        found = await tried(f"tls://localhost:{nats.port}", ca=authority.ca)
        assert "has a certificate that is not trusted" in found["error"]
        assert "localhost" in found["error"]


async def test_a_client_certificate(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("h1", "h1.example")
    own = Authority(tmp_path)  # whom the server does not know
    with NatsServer(authority.configuration(", verify: true")) as nats:
        found = await tried(nats.tls_url, ca=authority.ca, cert=certificate, key=key)
        assert found["ok"], found
        without = await tried(nats.tls_url, ca=authority.ca)
        assert not without["ok"]
        assert "fleet.cert" in without["error"]
        strange = await tried(nats.tls_url, ca=authority.ca, cert=own.certificate, key=own.key)
        assert not strange["ok"]
        assert "fleet.cert" in strange["error"]


async def test_a_server_without_tls_gets_no_password_where_tls_was_asked_for() -> None:
    """Whoever is in between may say that the server wants no TLS, and no login either."""
    for hello in ("", ', "auth_required": true'):
        with pretender('"version": "2.10.0", "headers": true' + hello) as (port, said):
            for login in ({"user": "h1", "password": "secret"}, {"token": "secret"}):
                found = await tried(f"tls://127.0.0.1:{port}", **login)
                assert "offers no TLS" in found["error"]
        assert all(b"secret" not in each for each in said)
        assert len(said) == 2


async def test_a_server_that_is_too_old_is_said_to_be() -> None:
    with pretender('"version": "2.1.9"') as (port, _):
        found = await tried(f"nats://127.0.0.1:{port}")
    assert found["error"].endswith("is nats-server 2.1, expected 2.9 or newer")


async def test_a_server_whose_messages_are_too_small_is_said_to_be() -> None:
    with NatsServer("max_payload: 65536") as nats:
        found = await tried(nats.url)
    assert "takes messages of 65536 bytes, expected at least 1048576" in found["error"]


async def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        found = await tried(f"nats://127.0.0.1:{taken.getsockname()[1]}")
    assert "cannot be reached (fleet.servers): " in found["error"]
    found = await tried("nats://no-such-host.invalid:4222")
    assert "cannot be reached (fleet.servers): " in found["error"]


async def test_what_is_no_nats_at_all_is_said() -> None:
    with pretender(None) as (port, _):
        found = await tried(f"nats://127.0.0.1:{port}")
    assert not found["ok"]
    assert "INFO" in found["error"]


@contextmanager
def pretender(information: str | None) -> Iterator[tuple[int, list[bytes]]]:
    """Says that it is a NATS server, and answers every line with PONG. Its port, and all that each
    connection has said to it."""
    said: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                hello = "SSH-2.0-OpenSSH_9.2" if information is None else f"INFO {{{information}}}"
                connection.sendall(f"{hello}\r\n".encode())
                got = b""
                while data := connection.recv(4096):
                    got += data
                    if b"PING\r\n" in data:
                        connection.sendall(b"PONG\r\n")
                said.append(got)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], said
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
