"""What the console is to its gateway: there or not, and in nobody's way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.harness import running_gateway
from tests.http.console_follower import API, AS_ADA, KEYS, OPEN, following, invoke
from tests.http.raw import connected

# When it is there


STRANGERS = "host = '0.0.0.0'\nlame_duck = 0\nallow_anonymous = true"


@pytest.mark.parametrize("server", ["console = false", STRANGERS])
async def test_it_is_not_there_where_it_is_off_or_strangers_would_see_it(
    tmp_path: Path, server: str
) -> None:
    toml = OPEN.replace("[server]", f"[server]\n{server}")
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        for path in ("/console", "/console/page/main.js", f"{API}/hello"):
            response = await gateway.client.get(f"http://127.0.0.1:{gateway.port}{path}")
            assert response.status_code == 404


def test_what_is_off_is_not_imported(tmp_path: Path) -> None:
    program = (
        "import sys, trio\n"
        "from gateway.composition.observers import make_console\n"
        "from gateway.config import CallerKeys, ServerSettings, Settings\n"
        "told = []\n"
        "settings = Settings(server=ServerSettings(console=False))\n"
        "assert make_console(told, None, settings, CallerKeys(), ['127.0.0.1']) is None\n"
        "print(told, [name for name in sys.modules if 'front.console' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["[]", "[]"]


async def test_a_reload_that_takes_the_keys_away_closes_it_to_strangers(tmp_path: Path) -> None:
    toml = KEYS.replace("[server]", "[server]\nhost = '0.0.0.0'\nlame_duck = 0")
    async with running_gateway(toml=toml, folder=tmp_path) as gateway:
        url = f"http://127.0.0.1:{gateway.port}{API}/"
        assert (await gateway.client.get(f"{url}hello", headers=AS_ADA)).status_code == 200
        async with following(gateway.client, headers=AS_ADA) as page:
            await page.until(lambda: page.agents)
            without = OPEN.replace("[server]", f"[server]\n{STRANGERS}")
            (tmp_path / "gateway.toml").write_text(without)
            gateway.process.send_signal(signal.SIGHUP)
            with pytest.raises(EOFError):
                await page.until(lambda: False)
        assert (await gateway.client.get(f"{url}hello")).status_code == 404


# The end, and readers that do not read


async def test_an_open_console_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with (
        running_gateway(toml=OPEN, folder=tmp_path) as gateway,
        following(gateway.client) as page,
    ):
        await page.until(lambda: page.agents)
        gateway.process.send_signal(signal.SIGTERM)
        with pytest.raises(EOFError):
            await page.until(lambda: False)
        with trio.fail_after(20):
            await gateway.process.wait()


async def test_whoever_reads_nothing_makes_nobody_wait(tmp_path: Path) -> None:
    async with (
        running_gateway(toml=OPEN, folder=tmp_path) as gateway,
        connected(gateway.port) as deaf,
        following(gateway.client, "?topics=requests,log") as page,
    ):
        await deaf.request(f"{API}/live", method="GET")
        await page.step()
        for number in range(40):
            script = [["log", "x" * 4000], ["answer", 1]]
            await invoke(gateway.client, script, f"deaf-{number}")
        await page.until(lambda: page.request("deaf-39", "completed"))
