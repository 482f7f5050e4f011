"""Keys that change while a gateway serves."""

from __future__ import annotations

from pathlib import Path

from tests.harness import (
    reload,
    running_gateway,
)
from tests.http.keys import (
    ALICE,
    BOB,
    ONLY_MEM,
    WRONG,
    bearer,
    hash_of,
    toml,
)


async def test_a_revoked_key_ends_with_its_last_request(tmp_path: Path) -> None:
    async with running_gateway(toml=toml(ONLY_MEM), folder=tmp_path) as gateway:
        client, bodies = gateway.client, []
        asked = {"json": {"input": "x"}, "headers": {**bearer(ALICE), "prefer": "respond-async"}}
        where = (await client.post("/agent/mem/invoke", **asked)).headers["location"]  # type: ignore[arg-type]
        slowly = {"messages": [{"role": "user", "content": "slowly"}], "stream": True}
        async with client.stream(
            "POST", "/agent/mem/chat", json=slowly, headers=bearer(ALICE)
        ) as stream:
            lines = stream.aiter_lines()
            bodies.append(await anext(lines))
            only_bob = toml(
                ONLY_MEM[ONLY_MEM.index("[keys.bob]") : ONLY_MEM.index("[keys.expired]")]
            )
            await reload(gateway, tmp_path, only_bob, "keys of callers are now: bob")
            for path in ("/agents", where):
                refused = await client.get(path, headers=bearer(ALICE))
                assert refused.status_code == 401
            # What was admitted was admitted rightly, and goes on.
            bodies += [line async for line in lines if line]
        assert bodies[-1] == "data: [DONE]"
        assert '"slowly"' in bodies[-2]
        assert (await client.get("/agents", headers=bearer(BOB))).status_code == 200
        # Another key with the name reads what belongs to the name.
        back = f'[keys.alice]\nhash = "{hash_of(WRONG)}"\n'
        await reload(gateway, tmp_path, toml(back), "keys of callers are now: alice")
        assert (await client.get(where, headers=bearer(WRONG))).status_code == 200
        assert (await client.get("/agents", headers=bearer(BOB))).status_code == 401
        # And a wrong configuration changes nothing.
        wrong = toml(f'[keys.alice]\nhash = "{ALICE}"\n')
        line = await reload(gateway, tmp_path, wrong, "refused as a whole")
        assert "the key itself" in line
        assert ALICE not in line
        assert (await client.get("/agents", headers=bearer(WRONG))).status_code == 200


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"

    def put(text: str) -> None:
        made = tmp_path / "keys.new"
        made.write_text(text)
        made.chmod(0o640)
        made.rename(file)

    put(f'[keys.alice]\nhash = "{hash_of(ALICE)}"\n')
    text = toml("", more=f'keys_file = "{file}"')
    async with running_gateway(toml=text, folder=tmp_path) as gateway:

        async def status(key: str) -> int:
            return (await gateway.client.get("/agents", headers=bearer(key))).status_code

        assert (await status(ALICE), await status(BOB)) == (200, 401)
        put(f'[keys.bob]\nhash = "{hash_of(BOB)}"\n')
        await gateway.logged("keys of callers are now: bob")
        assert (await status(ALICE), await status(BOB)) == (401, 200)
        put("[keys.bob]\nhash = 'short'\n")
        await gateway.logged("keys: the last ones stay in use: .*keys.bob")
        assert await status(BOB) == 200
        put("")
        await gateway.logged("keys of callers are now: none")
        assert (await status(ALICE), await status(BOB)) == (401, 401)
        assert (await gateway.client.get("/live")).status_code == 200
