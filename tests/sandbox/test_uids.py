"""User ids for workers of a root gateway: each one's own, and nobody else's."""

from __future__ import annotations

import os
import socket

import pytest

from gateway.sandbox.limits import uids
from gateway.sandbox.limits.uids import (
    BLOCK_SIZE,
    FIRST_UID,
    LAST_UID,
    UidBlock,
    free_range,
    uids_in_use,
)

EVERYBODY = range(FIRST_UID, LAST_UID + 1)
# A claim holds for the whole machine. Above what the kernel has as ids, and where no other run of
# these tests looks: claims of gateways that run meanwhile are not in the way.
OURS = (os.getpid() + 1) << 32
TWO_BLOCKS = range(OURS, OURS + 2 * BLOCK_SIZE)


def test_ids_are_different_and_from_the_range() -> None:
    block = UidBlock(EVERYBODY)
    taken = [block.take() for _ in range(100)]
    assert len(set(taken)) == 100
    assert all(uid in EVERYBODY for uid in taken)


def test_two_blocks_never_share_an_id() -> None:
    blocks = [UidBlock(EVERYBODY) for _ in range(8)]
    assert len({block.take() // BLOCK_SIZE for block in blocks}) == 8


def test_a_block_that_another_gateway_holds_is_passed_over() -> None:
    first, second = UidBlock(TWO_BLOCKS), UidBlock(TWO_BLOCKS)
    assert {first.take(), second.take()} == {OURS, OURS + BLOCK_SIZE}
    with pytest.raises(OSError, match="all 2 blocks of user ids are taken"):
        UidBlock(TWO_BLOCKS)


def test_a_block_is_free_again_when_its_owner_is_gone() -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0agent-gateway-uids-{OURS}")
        kept = UidBlock(TWO_BLOCKS)
        assert kept.take() == OURS + BLOCK_SIZE
    assert UidBlock(TWO_BLOCKS).take() == OURS


def test_an_id_that_a_process_still_has_is_not_taken_a_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uids, "BLOCK_SIZE", 3)
    block = UidBlock(EVERYBODY)
    first, second, third = (block.take() for _ in range(3))
    monkeypatch.setattr(uids, "uids_in_use", lambda: {first, third})
    assert [block.take(), block.take()] == [second, second]
    monkeypatch.setattr(uids, "uids_in_use", lambda: {first, second, third})
    with pytest.raises(OSError, match="every user id"):
        block.take()


def test_the_ids_in_use_are_those_of_the_processes() -> None:
    assert os.getuid() in uids_in_use()
    assert LAST_UID not in uids_in_use()


@pytest.mark.parametrize(
    ("uid_map", "gid_map", "ids"),
    [
        ("0 0 4294967295", "0 0 4294967295", EVERYBODY),  # the machine itself
        ("0 100000 65536", "0 100000 65536", range(16384, 65534)),  # a rootless container
        ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", range(16384, 65534)),
        ("0 100000 65536", "0 100000 20000", range(16384, 20000)),
        ("0 1000 1", "0 1000 1", None),  # unshare --map-root-user
        ("0 100000 65536", "0 1000 1", None),
        ("", "", None),
    ],
)
def test_ids_are_taken_from_those_that_the_namespace_maps(
    uid_map: str, gid_map: str, ids: range | None
) -> None:
    assert free_range(uid_map, gid_map) == ids


def test_where_there_are_few_ids_the_blocks_are_small() -> None:
    few = range(OURS + 16384, OURS + 65534)
    blocks = [UidBlock(few) for _ in range(40)]
    taken = [block.take() for block in blocks]
    assert len(set(taken)) == 40
    assert all(uid in few for uid in taken)
