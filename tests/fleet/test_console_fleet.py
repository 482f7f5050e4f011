"""The console of a front: the hosts of its fleet, and to whom they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from gateway.config.keys import hash_key
from tests.fleet.fleets import a_fleet
from tests.fleet.nats import needs_nats
from tests.http.conftest import SCRIPTED
from tests.http.console_follower import ADA, API, AS_ADA, AS_BOB, BOB, following, invoke

pytestmark = needs_nats

AGENTS = {"scripted": [*SCRIPTED, "invoke", "chat"], "other": SCRIPTED}


def tables(**agents: list[str]) -> str:
    """The tables of these agents in TOML."""
    return "".join(
        f"[agents.{name}]\ncommand = {json.dumps(command)}\n" for name, command in agents.items()
    )


async def test_hosts_are_told_with_their_load_and_are_seen_to_drain_crash_and_come_back(
    tmp_path: Path,
) -> None:
    async with a_fleet(tmp_path, AGENTS) as fleet:
        client, one = fleet.front.client, fleet.hosts["one"]
        assert (await client.get(f"{API}/hello")).json()["fleet"] is True
        async with following(client, "?topics=hosts") as page:
            # A request goes to no host whose workers start while another one has a free worker.
            await page.until(
                lambda: (
                    sorted(page.by_host) == ["one", "two"]
                    and all(
                        each["agents"]["scripted"][0] == "ready" for each in page.hosts.values()
                    )
                )
            )
            assert page.connected is True
            host = page.by_host["one"]
            assert (host["state"], host["heard"]) == ("beating", None)
            assert host["version"]
            assert host["id"].startswith("one.")
            assert set(host["agents"]) == {"scripted", "other"}
            async with trio.open_nursery() as nursery:
                for number in range(2):
                    nursery.start_soon(invoke, client, [["say", "a"], ["hold"]], f"held-{number}")
                await page.until(
                    lambda: all(
                        host["agents"]["scripted"][2:] == [1, 0, 1]
                        for host in page.by_host.values()
                    )
                )
                # It drains for as long as its request runs.
                nursery.start_soon(one.end)
                await page.until(lambda: page.by_host["one"]["state"] == "draining")
                assert page.by_host["two"]["state"] == "beating"
                nursery.cancel_scope.cancel()
            await one.end()
            await page.until(lambda: "one" not in page.by_host)
            await one.start()
            await page.until(lambda: page.by_host.get("one", {}).get("state") == "beating")
            assert page.by_host["one"]["id"] != host["id"]
            await one.kill()
            await page.until(lambda: page.by_host["one"]["state"] == "away")
            assert page.by_host["one"]["heard"] is not None
            await one.start()
            await page.until(lambda: page.by_host["one"]["state"] == "beating")
            assert len(page.hosts) == 2  # the one that was killed has been replaced


async def test_a_key_sees_its_agents_and_the_hosts_that_have_them(tmp_path: Path) -> None:
    keys = f"""
        [keys.ada]
        hash = "{hash_key(ADA.encode())}"
        [keys.bob]
        hash = "{hash_key(BOB.encode())}"
        agents = ["scripted"]
    """
    lonely = tables(lonely=SCRIPTED)
    async with a_fleet(
        tmp_path,
        {},
        toml_of=lambda name: {
            "front": keys + tables(**AGENTS) + lonely,
            "one": tables(**AGENTS),
            "two": lonely,
        }[name],
    ) as fleet:
        client = fleet.front.client
        async with (
            following(client, "?topics=hosts", AS_ADA) as ada,
            following(client, "?topics=hosts", AS_BOB) as bob,
        ):
            await ada.until(lambda: set(ada.by_host) == {"one", "two"})
            assert set(ada.by_host["one"]["agents"]) == {"scripted", "other"}
            await bob.until(lambda: bob.hosts)
            assert set(bob.by_host) == {"one"}
            assert set(bob.by_host["one"]["agents"]) == {"scripted"}
        async with following(client, "?topics=hosts&agent=lonely", AS_ADA) as ada:
            await ada.until(lambda: ada.hosts)
            assert set(ada.by_host) == {"two"}
        refused = await client.get(f"{API}/live?topics=hosts&agent=lonely", headers=AS_BOB)
        assert refused.status_code == 403


async def test_a_front_without_nats_says_so_and_that_its_hosts_are_silent(tmp_path: Path) -> None:
    async with (
        a_fleet(tmp_path, AGENTS, hosts=("one",)) as fleet,
        following(fleet.front.client, "?topics=hosts") as page,
    ):
        await page.until(lambda: page.connected and page.by_host)
        fleet.nats.kill()
        await page.until(lambda: page.connected is False)
        await page.until(lambda: page.by_host["one"]["state"] == "silent")
        fleet.nats.start()
        await page.until(lambda: page.connected)
        await page.until(lambda: page.by_host["one"]["state"] == "beating")
