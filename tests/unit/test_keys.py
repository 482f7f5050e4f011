"""Keys of callers: what counts as one, where they come from, and who a request is made by."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import MOST_NAMED, Call, SessionBy, session_key
from gateway.config import CallerKeys, ConfigError, KeySettings, Settings, load, read_keys
from gateway.config.keys import KEY_VARIABLE, hash_key, is_key, new_key
from gateway.errors import Forbidden, Unauthorized
from gateway.front.auth import ANONYMOUS, NOBODY, Keys, own

# Always the same: they stand in the names of tests.
KEY, OTHER, OLD = (f"agw_{hashlib.sha256(name).hexdigest()[:43]}" for name in (b"1", b"2", b"3"))
AGENTS = '[agents.a]\ncommand = "run"\n[agents.b]\ncommand = "run"\n'


def hash_of(key: str) -> str:
    return hash_key(key.encode())


def keys(**by_name: KeySettings) -> Keys:
    return Keys(CallerKeys(by_name, on=True))


ALICE = KeySettings(hash=(hash_of(OLD), hash_of(KEY)))
BOB = KeySettings(hash=hash_of(OTHER), agents=("a",))


# What a key is


def test_a_key_has_256_random_bits_and_needs_no_quotes() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    for key in made:
        prefix, _, secret = key.partition("_")
        assert (prefix, len(secret)) == ("agw", 43)
        assert is_key(key.encode())
        assert set(secret) <= {*map(chr, range(128))} - {*" \"'$`\\"}
        assert hash_of(key) == "sha256:" + hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    ("presented", "can_be"),
    [
        (b"x" * 31, False),
        (b"x" * 32, True),
        (b"x" * 512, True),
        (b"x" * 513, False),
        (b"x" * 31 + b" ", False),
        (b"x" * 31 + b"\n", False),
        (b"x" * 40 + b"\n", False),
        (b"x" * 40 + "é".encode(), False),
        (b"", False),
    ],
)
def test_what_is_too_short_or_not_visible_is_no_key(presented: bytes, can_be: bool) -> None:
    assert is_key(presented) is can_be


# Settings


@pytest.fixture(name="write")
def write_fixture(tmp_path: Path) -> Any:
    def write(text: str, name: str = "gateway.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def read(path: Path, **environ: str) -> CallerKeys:
    return read_keys(load(path), environ)


def test_a_key_has_hashes_agents_an_end_and_limits(write: Any) -> None:
    path = write(
        AGENTS
        + f"""
        [keys.alice]
        hash = ["{hash_of(OLD)}", "{hash_of(KEY)}"]
        agents = ["a"]
        expires = 2027-01-31
        limits = {{ requests_per_minute = 60 }}
        [keys.bob]
        hash = "{hash_of(OTHER)}"
        expires = 2027-01-31T12:00:00+01:00
        [keys.carol]
        hash = "{hash_of("x" * 43)}"
        expires = "2027-01-31"
        """
    )
    found = read(path)
    assert found.on
    alice, bob = found.by_name["alice"], found.by_name["bob"]
    assert alice.hashes == (hash_of(OLD), hash_of(KEY))
    assert alice.agents == ("a",)
    assert alice.expires == datetime(2027, 1, 31, tzinfo=UTC), "a day begins at midnight, UTC"
    assert alice.limits.requests_per_minute == 60
    assert found.by_name["carol"].expires == alice.expires, "in quotes, too"
    assert (bob.agents, bob.expires) == (("*",), datetime(2027, 1, 31, 11, tzinfo=UTC))


def test_without_keys_nobody_needs_one(write: Any) -> None:
    assert read(write(AGENTS)) == CallerKeys({}, on=False)
    assert not Keys().on


@pytest.mark.parametrize(
    ("hash_", "words"),
    [
        ('""', ["not `sha256:`"]),
        ("[]", ["hash is empty"]),
        ('"md5:0123456789abcdef0123456789abcdef"', ["no other hash is known"]),
        (f'"{hashlib.sha1(b"x" * 40).hexdigest()}"', ["not `sha256:`"]),
        (f'"{hashlib.sha256(b"x" * 40).hexdigest()}"', ["not `sha256:`"]),
        (f'"sha256:{hashlib.sha256(b"x" * 40).hexdigest().upper()}"', ["small letters"]),
        ('"sha256:abc"', ["64 hexadecimal digits"]),
        (f'"{hash_of("")}"', ["hash of nothing", "empty when it was made"]),
        (f'"{hash_of(chr(10))}"', ["hash of nothing"]),
        (f'"sha256:{"0" * 64}"', ["hash of nothing"]),
        (f'"{KEY}"', ["the key itself", "replace the key"]),
        (f'["{hash_of(OLD)}", "{KEY}"]', ["the key itself"]),
        ("7", ["keys.alice.hash", "str"]),
        (f'{{ key = "{KEY}" }}', ["keys.alice.hash", "***"]),
    ],
)
def test_a_hash_that_is_weak_or_none_is_refused_and_never_shown(
    write: Any, hash_: str, words: list[str]
) -> None:
    path = write(f"{AGENTS}[keys.alice]\nhash = {hash_}\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert [word for word in ("keys.alice", *words) if word not in str(caught.value)] == []
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[keys]\nalice = 'KEY'\n", ["keys.alice", "expected a table"]),
        ("[keys.'KEY/']\n", ["a key's name", "letters, digits"]),
        ("[keys.KEY]\nhash = 'HASH'\n", ["a key's name begins with agw_"]),
        ("[keys.alice]\nkey = 'KEY'\n", ["keys.alice", "unknown key `key`", "hash, agents"]),
        ("[keys.alice]\nagents = ['a']\n", ["keys.alice", "hash"]),
        ("[keys.alice]\nhash = 'HASH'\nagents = ['c']\n", ["no agent 'c'", '"*", a, b']),
        ("[keys.alice]\nhash = 'HASH'\nagents = 'a'\n", ["keys.alice.agents", "array"]),
        (
            "[keys.alice]\nhash = 'HASH'\nexpires = 2027-01-01T00:00:00\n",
            ["offset such as", "2027-01-01 00:00"],
        ),
        (
            "[keys.alice]\nhash = 'HASH'\nexpires = 'soon'\n",
            ["keys.alice.expires", "a date such as"],
        ),
        ("[keys.alice]\nhash = 'HASH'\nkeys_file = '/x'\n", ["`keys_file`", "above all tables"]),
        ("[keys.alice]\nhash = 'HASH'\nlimits = { concurrent = -1 }\n", ["limits.concurrent"]),
        ("[keys.alice]\nhash = 'HASH'\n[keys.bob]\nhash = 'HASH'\n", ["bob", "'alice'", "same"]),
        ("[agents.c]\ncommand = 'x'\nsession_by = 'key'\n", ["agents.c.session_by", "no [keys"]),
        (
            f"[agents.c]\ncommand = 'x'\nsandbox.env_allow = ['{KEY_VARIABLE}']\n",
            ["agents.c.sandbox.env_allow", KEY_VARIABLE],
        ),
    ],
)
def test_a_wrong_setting_of_a_key_is_named_and_no_key_shown(
    write: Any, toml: str, words: list[str]
) -> None:
    toml = re.sub(r"\bKEY\b", KEY, toml)
    with pytest.raises(ConfigError) as caught:
        read(write(AGENTS + toml.replace("HASH", hash_of(OTHER))))
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    assert KEY not in str(caught.value)


def test_a_file_of_keys_adds_to_those_of_the_configuration(write: Any) -> None:
    file = write(f'[keys.bob]\nhash = "{hash_of(OTHER)}"\n', "keys.toml")
    own = f'[keys.alice]\nhash = "{hash_of(KEY)}"\n'
    path = write(f'keys_file = "{file}"\n{AGENTS}{own}')
    assert set(read(path).by_name) == {"alice", "bob"}


def test_an_empty_file_of_keys_lets_nobody_in(write: Any) -> None:
    file = write("", "keys.toml")
    assert read(write(f'keys_file = "{file}"\n{AGENTS}')) == CallerKeys({}, on=True)


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("[keys.bob]\nhash = 'KEY'\n", 0o600, ["keys.toml: keys.bob", "the key itself"]),
        ("[bob]\nhash = 'KEY'\n", 0o600, ["expected tables [keys.NAME] and nothing else"]),
        ("[keys.alice]\nhash = 'HASH'\n", 0o600, ["another key with the name 'alice'"]),
        ("KEY", 0o600, ["not valid TOML"]),
        ("", 0o620, ["others may write", "chmod go-w"]),
        ("", 0o602, ["others may write"]),
        (None, 0, ["keys_file", "No such file"]),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_is_refused(
    write: Any, content: str | None, mode: int, words: list[str]
) -> None:
    text = (content or "").replace("KEY", KEY).replace("HASH", hash_of(OTHER))
    file = write(text, "keys.toml")
    file.chmod(mode)
    if content is None:
        file.unlink()
    own = f'[keys.alice]\nhash = "{hash_of(OLD)}"\n'
    path = write(f'keys_file = "{file}"\n{AGENTS}{own}')
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("path", ["keys.toml", "./keys.toml", 7, ["/keys"]])
def test_the_path_of_a_file_of_keys_is_absolute(write: Any, path: Any) -> None:
    with pytest.raises(ConfigError, match="keys_file: expected an absolute path"):
        load(write(f"keys_file = {json.dumps(path)}\n{AGENTS}"))


def test_one_key_can_come_from_the_environment(write: Any) -> None:
    found = read(write(AGENTS), **{KEY_VARIABLE: KEY})
    assert found == CallerKeys({"default": KeySettings(hash=hash_of(KEY))}, on=True)


@pytest.mark.parametrize("value", ["", " ", "hunter2", KEY + "\n", "é" * 40, "x" * 600])
def test_a_variable_that_holds_no_key_is_refused(write: Any, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{KEY_VARIABLE} is set, and is no key") as caught:
        read(write(AGENTS), **{KEY_VARIABLE: value})
    assert not value.strip() or value not in str(caught.value)


# Who makes a request


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()}


@pytest.mark.parametrize(
    "fields",
    [
        bearer(KEY),
        bearer(OLD),
        {b"authorization": f"bearer {KEY}".encode()},
        {b"authorization": f"BEARER\t {KEY}  ".encode()},
        {b"x-api-key": KEY.encode()},
        {b"x-api-key": f" {KEY}\t".encode()},
        {**bearer(KEY), b"x-api-key": KEY.encode()},
        {b"authorization": b"Basic dTpw", b"x-api-key": KEY.encode()},
        {b"authorization": b"Bearer ", b"x-api-key": KEY.encode()},
        {**bearer(KEY), b"x-api-key": b""},
    ],
)
def test_a_key_is_found_where_clients_put_it(fields: dict[bytes, bytes]) -> None:
    caller = keys(alice=ALICE, bob=BOB).identify(fields, "/agents")
    assert (caller.name, caller.settings) == ("alice", ALICE)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "a key is needed"),
        ({b"authorization": b""}, "a key is needed"),
        ({b"authorization": b"Bearer"}, "a key is needed"),
        ({b"authorization": b"Bearer \t "}, "a key is needed"),
        ({b"authorization": KEY.encode()}, "a key is needed"),
        ({b"authorization": f"Bearer{KEY}".encode()}, "a key is needed"),
        ({b"authorization": f"Basic {KEY}".encode()}, "a key is needed"),
        ({b"x-api-key": b""}, "a key is needed"),
        ({b"x-api-key": f"Bearer {KEY}".encode()}, "not known"),
        (bearer(KEY[:-1]), "not known"),
        (bearer(KEY + "x"), "not known"),
        (bearer(KEY.upper()), "not known"),
        (bearer(f"{KEY} {KEY}"), "not known"),
        ({b"authorization": f"Bearer\t{KEY}".encode()}, "a key is needed"),
        (bearer(hash_of(KEY)), "not known"),
        ({b"authorization": b"Bearer \xff\xfe" + KEY.encode()}, "not known"),
        ({b"authorization": b"Bearer " + b"x" * 1_000_000}, "not known"),
        ({**bearer(KEY), b"x-api-key": OTHER.encode()}, "two different keys"),
        ({**bearer("x"), b"x-api-key": KEY.encode()}, "two different keys"),
        ({b"authorization": f"Bearer {KEY}\nBearer {KEY}".encode()}, "sent more than once"),
        ({b"x-api-key": f"{KEY}\n{OTHER}".encode()}, "sent more than once"),
    ],
)
async def test_what_is_no_good_key_is_refused_and_never_shown(
    fields: dict[bytes, bytes], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = keys(alice=ALICE, bob=BOB)
    with pytest.raises(Unauthorized, match=words) as caught:
        known.identify(fields, "/agents")
    assert (caught.value.status, caught.value.type) == (401, "unauthorized")
    for shown in (str(caught.value), caplog.text):
        assert KEY not in shown
        assert OTHER not in shown
    assert known.identify(fields, "/live") is NOBODY, "a path that needs no key"


@given(st.binary(max_size=600), st.sampled_from([b"authorization", b"x-api-key"]))
def test_any_bytes_are_judged_without_a_defect(value: bytes, name: bytes) -> None:
    assert KNOWN.identify({name: value}, "/ready") is NOBODY


KNOWN = keys(alice=ALICE)


async def test_a_key_is_good_until_it_expires() -> None:
    now = datetime.now(UTC)
    past, later = now - timedelta(seconds=1), now + timedelta(hours=1)
    known = keys(
        late=KeySettings(hash=hash_of(OLD), expires=past),
        good=KeySettings(hash=hash_of(KEY), expires=later),
    )
    assert known.identify(bearer(KEY), "/").name == "good"
    with pytest.raises(Unauthorized, match="not known here, or is not good any more"):
        known.identify(bearer(OLD), "/")
    assert known.identify(bearer(OLD), "/live") is NOBODY


async def test_a_field_that_was_good_before_is_judged_as_the_first_time() -> None:
    known = keys(alice=ALICE, bob=BOB)
    field = b"Bearer " + KEY.encode()
    for _ in range(3):
        assert known.identify({b"authorization": field}, "/agents").name == "alice"
        for wrong in (
            {b"authorization": field, b"x-api-key": OTHER.encode()},
            {b"authorization": field + b"\n" + field},
            {b"authorization": field[:-1]},
            {b"authorization": KEY.encode()},
            {b"x-api-key": field},
        ):
            with pytest.raises(Unauthorized):
                known.identify(wrong, "/agents")
        both = {b"authorization": field, b"x-api-key": KEY.encode()}
        assert known.identify(both, "/agents").name == "alice"
    known.change(CallerKeys({"bob": BOB}, on=True))
    with pytest.raises(Unauthorized):
        known.identify({b"authorization": field}, "/agents")
    known.change(CallerKeys({"carol": ALICE}, on=True))
    assert known.identify({b"authorization": field}, "/agents").name == "carol"


async def test_a_change_counts_from_the_next_request_on() -> None:
    known = keys(alice=ALICE)
    assert not known.change(CallerKeys({"alice": ALICE}, on=True)), "nothing is different"
    assert known.change(CallerKeys({"alice": KeySettings(hash=hash_of(KEY)), "bob": BOB}, on=True))
    assert known.identify(bearer(OTHER), "/").name == "bob"
    with pytest.raises(Unauthorized):
        known.identify(bearer(OLD), "/")
    assert known.change(CallerKeys({}, on=True))
    with pytest.raises(Unauthorized):
        known.identify(bearer(KEY), "/")
    assert known.change(CallerKeys())
    assert not known.on


def test_a_caller_gets_the_same_answer_for_any_agent_that_is_not_its_own() -> None:
    bob = keys(bob=BOB).identify(bearer(OTHER), "/")
    bob.check("a")
    for agent in ("b", "no-such-agent", "x" * 10_000):
        with pytest.raises(Forbidden) as caught:
            bob.check(agent)
        assert str(caught.value) == f"the key 'bob' may not be used for the agent {agent[:80]!r}"
    ANONYMOUS.check("anything")
    assert not NOBODY.may_call("a")


async def test_many_attempts_are_few_lines_of_the_log(
    caplog: pytest.LogCaptureFixture, autojump_clock: object
) -> None:
    import trio

    caplog.set_level(logging.DEBUG, "gateway")
    known = keys(alice=ALICE)
    for _ in range(1000):
        with pytest.raises(Unauthorized):
            known.identify(bearer(OTHER), "/agents")
    await trio.sleep(60)
    with pytest.raises(Unauthorized):
        known.identify({}, "/agents")
    assert [record.getMessage() for record in caplog.records] == [
        "401 unauthorized: a request with an unknown key",
        "401 unauthorized: a request with no key (1000 times)",
    ]


# What a caller names is its own


def call(**members: Any) -> Call:
    context = {
        key: members[name]
        for key, name in (("conversation_id", "conversation"), ("user_id", "user"))
        if members.get(name) is not None
    }
    text = json.dumps({"custom": {"a": [1]}, **context}).encode()
    return Call(
        agent="a", method="invoke", payload=b"1", stream=False, context=text, request_id="r",
        **members,
    )  # fmt: skip


def test_what_a_caller_names_is_told_to_the_agent_with_its_owner() -> None:
    owned = own(call(conversation="c", user="u"), "alice")
    assert (owned.owner, owned.conversation, owned.user) == ("alice", "alice/c", "alice/u")
    assert json.loads(owned.context) == {
        "custom": {"a": [1]},
        "conversation_id": "alice/c",
        "user_id": "alice/u",
    }


def test_what_a_caller_has_not_named_stays_unnamed() -> None:
    before = call()
    owned = own(before, "alice")
    assert (owned.owner, owned.conversation, owned.user) == ("alice", None, None)
    assert owned.context == before.context


@given(
    st.text(max_size=20), st.text(max_size=20), st.sampled_from(["a", "b", "a-", "a_1"]),
    st.sampled_from(["a", "b", "a-", "a_1"]),
)  # fmt: skip
def test_the_names_of_two_keys_never_meet(one: str, two: str, key: str, other: str) -> None:
    first = own(call(conversation=one, user=one), key)
    second = own(call(conversation=two, user=two), other)
    same = (key, one) == (other, two)
    assert (first.conversation == second.conversation) is same
    assert (first.user == second.user) is same


def test_a_member_that_came_twice_is_there_once() -> None:
    twice = b'{"conversation_id":"x","conversation_id":"c","user_id":null,"\\u0075ser_id":"u"}'
    given_ = Call(
        agent="a", method="invoke", payload=b"1", stream=False, context=twice, request_id="r",
        conversation="c", user="u",
    )  # fmt: skip
    owned = own(given_, "alice")
    assert owned.context == b'{"conversation_id":"alice/c","user_id":"alice/u"}'


def test_the_context_stays_on_one_line() -> None:
    owned = own(call(conversation="a\u2028b\u0085\n"), "k")
    assert len(owned.context.decode().splitlines()) == 1
    assert json.loads(owned.context)["conversation_id"] == "k/a\u2028b\u0085\n"


@pytest.mark.parametrize(
    ("by", "key"),
    [
        ("conversation", "alice\0conversation\0alice/c"),
        ("user", "alice\0user\0alice/u"),
        ("key", "alice\0key\0alice"),
    ],
)
def test_a_session_is_by_conversation_user_or_key(by: SessionBy, key: str) -> None:
    assert session_key(own(call(conversation="c", user="u"), "alice"), by) == key
    assert session_key(call(), by) is None
    anybodys = call(conversation="c", user="u")
    without = {"conversation": "c", "user": "\0user\0u", "key": None}
    assert session_key(anybodys, by) == without[by]


def test_the_name_of_a_session_is_short_however_long_a_users_is() -> None:
    users = ["u" * 1_000_000, "u" * 1_000_001, "u" * MOST_NAMED]
    keys = {session_key(call(user=user), "user") for user in users}
    keys |= {session_key(own(call(user=user), "alice"), "user") for user in users}
    assert len(keys) == 6
    assert max(len(key) for key in keys if key) < 2 * MOST_NAMED


def test_settings_of_before_are_settings_still() -> None:
    assert Settings().keys == {}
    assert os.environ.get(KEY_VARIABLE) is None, "the tests' gateways would need a key"
