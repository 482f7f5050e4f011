"""The requests that wait, in their lines."""

from __future__ import annotations

from gateway.agents.waiting import ANY, Waiting
from tests.unit.pools import Request


def in_line(waiting: Waiting[Request], *homes: int) -> list[int]:
    """The numbers of the requests that are next, one after the other, taken out for it."""
    numbers = []
    while (request := waiting.first(homes)) is not None:
        waiting.remove(request)
        numbers.append(request.number)
    return numbers


def add(waiting: Waiting[Request], home: int, *numbers: int, key: str = "") -> list[Request]:
    requests = [Request(number) for number in numbers]
    for request in requests:
        waiting.add(request, key or request, home)
    return requests


def test_who_waits_for_any_worker_and_who_waits_for_one_are_served_in_one_order() -> None:
    waiting: Waiting[Request] = Waiting()
    add(waiting, ANY, 1)
    add(waiting, 7, 2)
    add(waiting, 8, 3)
    add(waiting, ANY, 4)
    add(waiting, 7, 5)
    assert [request.number for request in waiting] == [1, 2, 3, 4, 5]
    assert in_line(waiting, 7, ANY) == [1, 2, 4, 5]
    assert in_line(waiting, 7, ANY) == []
    assert [request.number for request in waiting] == [3]


def test_a_conversation_that_is_given_a_home_waits_for_it_in_its_old_place() -> None:
    waiting: Waiting[Request] = Waiting()
    add(waiting, 7, 1)
    add(waiting, ANY, 2, 3, key="talk")
    add(waiting, 7, 4)
    waiting.bind("talk", 7)
    assert waiting.first([ANY]) is None
    assert in_line(waiting, 7) == [1, 2, 3, 4]


def test_what_waited_for_a_worker_that_is_lost_waits_for_any_in_its_old_place() -> None:
    waiting: Waiting[Request] = Waiting()
    add(waiting, ANY, 1)
    add(waiting, 7, 2, key="talk")
    add(waiting, ANY, 3)
    add(waiting, 7, 4)
    waiting.release(7)
    assert waiting.conversations(7) == 0
    assert waiting.conversations(ANY) == 4
    assert in_line(waiting, ANY) == [1, 2, 3, 4]


def test_what_is_put_back_goes_before_all_others_and_before_its_own_conversation() -> None:
    waiting: Waiting[Request] = Waiting()
    first, second = Request(1), Request(2)
    add(waiting, ANY, 3)
    add(waiting, ANY, 4, key="talk")
    for request in (second, first):
        waiting.put_back(request, "talk", ANY)
    assert [request.number for request in waiting] == [1, 2, 3, 4]
    assert in_line(waiting, ANY) == [1, 2, 3, 4]


def test_a_request_that_leaves_gives_its_place_to_the_next_of_its_conversation() -> None:
    waiting: Waiting[Request] = Waiting()
    first, second = add(waiting, ANY, 1, 2, key="talk")
    add(waiting, ANY, 3)
    add(waiting, ANY, 4, key="talk")
    waiting.remove(second)
    waiting.remove(first)
    waiting.remove(first)
    assert in_line(waiting, ANY) == [3, 4]


def test_requests_that_come_and_leave_again_leave_nothing_behind() -> None:
    waiting: Waiting[Request] = Waiting()
    add(waiting, ANY, 1)
    for number in range(2, 100):
        for request in add(waiting, ANY if number % 2 else 7, number):
            waiting.remove(request)
    assert len(waiting) == 1
    assert (waiting.conversations(ANY), waiting.conversations(7)) == (1, 0)
    assert [request.number for request in waiting.clear()] == [1]
    assert (len(waiting), waiting.first([ANY, 7])) == (0, None)
