"""User ids for workers of a root gateway: each one's own, and nobody else's."""

from __future__ import annotations

import os
import socket

import pytest

from gateway.sandbox import uids
from gateway.sandbox.uids import BLOCK_SIZE, FIRST_UID, LAST_UID, UidBlock, uids_in_use


def test_ids_are_different_and_from_the_range() -> None:
    block = UidBlock()
    taken = [block.take() for _ in range(100)]
    assert len(set(taken)) == 100
    assert FIRST_UID <= min(taken) <= max(taken) <= LAST_UID


def test_two_blocks_never_share_an_id() -> None:
    blocks = [UidBlock() for _ in range(8)]
    assert len({block.take() // BLOCK_SIZE for block in blocks}) == 8


def test_a_block_that_another_gateway_holds_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uids, "LAST_UID", FIRST_UID + 2 * BLOCK_SIZE - 1)
    first, second = UidBlock(), UidBlock()
    assert {first.take(), second.take()} == {FIRST_UID, FIRST_UID + BLOCK_SIZE}
    with pytest.raises(OSError, match="all 2 blocks of user ids are taken"):
        UidBlock()


def test_a_block_is_free_again_when_its_owner_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "LAST_UID", FIRST_UID + BLOCK_SIZE - 1)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("\0agent-gateway-uids-0")
        with pytest.raises(OSError, match="all 1 blocks"):
            UidBlock()
    assert UidBlock().take() == FIRST_UID


def test_an_id_that_a_process_still_has_is_not_taken_a_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uids, "BLOCK_SIZE", 3)
    block = UidBlock()
    first, second, third = (block.take() for _ in range(3))
    monkeypatch.setattr(uids, "uids_in_use", lambda: {first, third})
    assert [block.take(), block.take()] == [second, second]
    monkeypatch.setattr(uids, "uids_in_use", lambda: {first, second, third})
    with pytest.raises(OSError, match="every user id"):
        block.take()


def test_the_ids_in_use_are_those_of_the_processes() -> None:
    assert os.getuid() in uids_in_use()
    assert LAST_UID not in uids_in_use()
