"""Services change while their agents run: keys and rules. Budgets outlive the door's process."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from gateway.sandbox.network.budget import day_of
from tests.faults.scene import send_signal, until_state
from tests.harness import RunningGateway
from tests.sandbox.doors import KEY
from tests.sandbox.test_services import ask, echo, serving

OTHER = "sk-proj-another0KEYofTheSame"


async def reload(gateway: RunningGateway, folder: Path, old: str, new: str, outcome: str) -> str:
    """Replace a part of the configuration, and wait for what comes of it."""
    path = folder / "gateway.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    gateway.log.clear()
    send_signal(gateway, signal.SIGHUP)
    return await gateway.logged(outcome)


def keys_in(folder: Path, key: str) -> Path:
    """A file with a key; the file takes the place of the last one, as tools for secrets do it."""
    path, made = folder / "key", folder / "key.new"
    made.write_text(f"{key}\n")
    return made.rename(path)


async def worker(gateway: RunningGateway) -> int:
    [one] = (await gateway.state("bot"))["workers"]
    return int(one["pid"])


async def test_a_key_that_is_replaced_in_its_file_is_used_from_then_on(tmp_path: Path) -> None:
    path = keys_in(tmp_path, KEY)
    header = f'header = {{ Authorization = "Bearer file:{path}" }}'
    async with serving(tmp_path, echo, header) as (gateway, upstream):
        await ask(gateway, "chat")
        assert f"Bearer {KEY}".encode() in upstream.seen
        pid = await worker(gateway)
        # Whose call it was: the worker had no other request.
        line = await gateway.logged("POST /chat/completions service=openai .* request=.* agent=bot")
        assert "tokens_in=3 tokens_out=4" in line
        log, _ = gateway.log[:], gateway.log.clear()
        keys_in(tmp_path, OTHER)
        await gateway.logged("services changed agent=bot")
        upstream.seen.clear()
        said = await ask(gateway, "chat")
        assert f"Bearer {OTHER}".encode() in upstream.seen
        assert OTHER not in said
        assert await worker(gateway) == pid
        # One that cannot be read leaves the last one in use.
        gateway.log.clear()
        path.write_text("")
        await gateway.logged("keys: the last ones stay in use: .*services.openai.header")
        await ask(gateway, "chat")
        state = (await gateway.client.get("/agent/bot")).text
    for shown in (*log, *gateway.log, state):
        assert KEY not in shown
        assert OTHER not in shown


async def test_other_rules_hold_at_once_and_wrong_ones_not_at_all(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o755)
    (shown / "key").write_text(OTHER)
    settings = f"""
        allow = ["POST /chat/completions"]
        [agents.bot.sandbox]
        mounts_ro = ["{shown}"]
    """
    async with serving(tmp_path, echo, settings) as (gateway, _):
        await ask(gateway, "chat")
        pid = await worker(gateway)
        changed = "reload: services changed agent=bot"
        await reload(gateway, tmp_path, "POST /chat/completions", "GET /models", changed)
        answer = await gateway.post("/agent/bot/invoke", input="chat")
        assert "services.openai.allow does not have POST /chat/completions" in answer.text
        for old, new, why in (
            ('allow = ["GET /models"]', 'allow = ["nonsense"]', "services.openai"),
            ('allow = ["nonsense"]', 'header = { X = "${UNSET_KEY}" }', "UNSET_KEY is not set"),
            ('"${UNSET_KEY}"', f'"file:{shown}/key"', f"the agent is shown {shown}"),
        ):
            line = await reload(gateway, tmp_path, old, new, "reload: refused as a whole")
            assert why in line
        answer = await gateway.post("/agent/bot/invoke", input="chat")
        assert "services.openai.allow does not have POST /chat/completions" in answer.text
        assert await worker(gateway) == pid


async def test_an_agent_that_loses_a_service_is_told_which_setting_names_it(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as (gateway, _):
        await ask(gateway, "chat")
        await reload(
            gateway,
            tmp_path,
            'services = ["openai", "strange"]',
            'services = ["strange"]',
            "reload: services changed agent=bot",
        )
        answer = await gateway.post("/agent/bot/invoke", input="chat")
        assert "this agent has no service 'openai'" in answer.text
        # An agent without services has no door: with one, its workers are other ones.
        before = await gateway.state("other")
        toml = (tmp_path / "gateway.toml").read_text()
        assert "[agents.other.sandbox]" in toml
        await reload(
            gateway,
            tmp_path,
            "[agents.other.sandbox]",
            'services = ["strange"]\n[agents.other.sandbox]',
            "reload: replaced agent=other",
        )
        now = await gateway.state("other")
        assert "strange" in now["sandbox"]["services"]
        assert {each["pid"] for each in now["workers"]}.isdisjoint(
            each["pid"] for each in before["workers"]
        )


async def test_tokens_that_were_used_stay_used_when_the_door_is_another_process(
    tmp_path: Path,
) -> None:
    day = day_of(time.time())
    try:
        await use_all_tokens_of_a_day(tmp_path)
    except Exception:
        if day_of(time.time()) == day:
            raise
        # Midnight of UTC, which gives all tokens back, was within it: it has a day for itself now.
        await use_all_tokens_of_a_day(tmp_path)


async def use_all_tokens_of_a_day(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, "tokens_per_day = 14") as (gateway, _):
        for _ in range(2):
            await ask(gateway, "chat")
        await gateway.logged("POST /chat/completions")
        answer = await gateway.post("/agent/bot/invoke", input="chat")
        assert "[services.openai] tokens_per_day" in answer.text
        state = await until_state(
            gateway, "bot", lambda state: state["services"]["openai"]["refused"] == 1
        )
        state = state["services"]["openai"]
        assert (state["tokens_today"], state["tokens_per_day"]) == (14, 14)
        assert state["requests"] == 2
        pid = await worker(gateway)
        gateway.log.clear()
        for door in doors(gateway):
            # The first one may have taken the next with it: bubblewrap and what it runs.
            with suppress(ProcessLookupError):
                os.kill(door, signal.SIGKILL)
        # The door takes the worker's port with it: another worker brings another door.
        await gateway.logged(f"worker is replaced: .* has ended agent=bot pid={pid}")
        await gateway.logged("worker started agent=bot")
        answer = await gateway.post("/agent/bot/invoke", input="chat")
        assert "[services.openai] tokens_per_day" in answer.text
        await reload(gateway, tmp_path, "tokens_per_day = 14", "tokens_per_day = 100", "done")
        await ask(gateway, "chat")
        assert (await gateway.state("bot"))["services"]["openai"]["tokens_per_day"] == 100


def doors(gateway: RunningGateway) -> list[int]:
    found = []
    for pid in gateway.processes():
        try:
            if b"network.door" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            pass
    return found
