"""The gate of an endpoint in made-up time: hours of pauses and rates pass in no time."""

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from star1.gate import Gate, Ticket


class Skipping(selectors.DefaultSelector):
    """Where an event loop would sleep, the clock goes on instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Sleep by the clock alone."""
        if timeout is None:
            raise RuntimeError("nothing is left that could go on")
        # Real time goes on by itself: a clock that stood still would never end a wait shorter than its last digit.
        self.now += timeout + 1e-9
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    """An event loop in made-up time."""

    def __init__(self) -> None:
        self.skipping = Skipping()
        super().__init__(self.skipping)

    def time(self) -> float:
        """The made-up time [s]."""
        return self.skipping.now


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in made-up time."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def now() -> float:
    """The made-up time [s]."""
    return asyncio.get_running_loop().time()


@settings(max_examples=60)
@given(
    st.integers(1, 12),
    st.one_of(st.none(), st.floats(1, 5000)),
    st.one_of(st.none(), st.floats(100, 50_000)),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 6000), st.floats(0, 30)), min_size=1, max_size=60),
)
def test_slots_and_rates_are_kept(
    slots: int, requests: float | None, tokens: float | None, asked: list[tuple[int, int, float]]
) -> None:
    """Whatever is asked, foreseen and used: never more at a time, in a minute, or of tokens reserved in a minute."""
    left: list[tuple[float, int]] = []
    flying = most = 0

    async def ask(gate: Gate, foreseen: int, used: int, takes_s: float) -> None:
        nonlocal flying, most
        ticket = await gate.enter(foreseen)
        left.append((now(), foreseen))
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(takes_s)
        flying -= 1
        gate.leave(ticket, max(used, foreseen))
        gate.answered(ticket)

    async def main() -> None:
        gate = Gate(slots, requests, tokens)
        await asyncio.gather(*(ask(gate, *one) for one in asked))

    play(main)
    assert len(left) == len(asked)
    assert most <= slots
    for start, _ in left:
        minute = [units for time, units in left if start <= time < start + 59.99]
        assert requests is None or len(minute) <= requests + 1
        assert tokens is None or sum(minute[:-1]) <= tokens * 1.001


def test_what_was_used_beyond_the_estimate_is_waited_for() -> None:
    """600 tokens a minute, 10 foreseen and 300 used: the next but one leaves half a minute later."""
    times = []

    async def main() -> None:
        gate = Gate(1, tokens_per_minute=600)
        for _ in range(3):
            ticket = await gate.enter(10)
            times.append(now())
            await asyncio.sleep(0.5)
            gate.leave(ticket, 300)

    play(main)
    assert times == pytest.approx([0, 30, 60], abs=1e-6)


def test_one_episode_halves_once_and_answers_bring_slots_back() -> None:
    """Sixteen refusals of requests that left together halve once; a round of answers allows one more."""

    async def main() -> None:
        gate = Gate(16)
        tickets = [await gate.enter() for _ in range(16)]
        for ticket in tickets:
            gate.refused(ticket, None)
            gate.leave(ticket)
        assert (gate.limit, gate.refusals) == (8, 1)
        gate.answered(Ticket(0, 0))  # it left before the cut, and says nothing about what is too much now
        assert gate.limit == 8
        for _ in range(8):
            gate.answered(Ticket(1, 0))
        assert gate.limit == pytest.approx(9)
        for _ in range(1000):
            gate.answered(Ticket(1, 0))
        assert gate.limit == 16
        for episode in range(1, 20):
            gate.strained(Ticket(episode, 0))
        assert gate.limit == 1

    play(main)


def test_a_pause_is_one_for_all_and_never_shorter_than_asked() -> None:
    """Nothing leaves before the longest Retry-After is over; refusals in a row wait longer than they were told to."""

    async def main() -> None:
        gate = Gate(8)
        tickets = [await gate.enter() for _ in range(8)]
        for wait, ticket in zip([5, 20, None, 1, 3, None, 2, 7], tickets, strict=True):
            gate.refused(ticket, wait)
            gate.leave(ticket)
        times = []

        async def next_one() -> Ticket:
            ticket = await gate.enter()
            times.append(now())
            return ticket

        found = await asyncio.gather(*(next_one() for _ in range(4)))
        assert 20 <= min(times) <= max(times) <= 21
        assert max(times) - min(times) < 1e-6
        pauses = []
        for _ in range(6):
            pauses.append(gate.refused(Ticket(gate.episode, 0), 1))
            await asyncio.sleep(pauses[-1])
        assert pauses[-1] >= 16
        gate.answered(found[0])
        assert gate.refusals == 0

    play(main)


def test_a_waiting_request_that_is_given_up_leaves_the_way_free() -> None:
    """Its turn goes to the next one."""

    async def main() -> None:
        gate = Gate(1)
        first = await gate.enter()
        given_up, waiting = (asyncio.create_task(gate.enter()) for _ in range(2))
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.sleep(1)
        gate.leave(first)
        assert (await waiting).episode == 0
        assert gate.in_flight == 1

    play(main)


@pytest.mark.parametrize("capacity", [3, 10, 40])
def test_slots_settle_near_what_the_endpoint_bears(capacity: int) -> None:
    """A server that refuses beyond a number at a time: most requests are answered, and it is kept busy."""
    random.seed(1)
    refused = flying = done = 0

    async def work(gate: Gate) -> None:
        nonlocal refused, flying, done
        while now() < 2000:
            ticket = await gate.enter()
            if flying >= capacity:
                refused += 1
                gate.refused(ticket, None)
                gate.leave(ticket)
                continue
            flying += 1
            await asyncio.sleep(random.uniform(0.5, 1.5))
            flying -= 1
            done += 1
            gate.leave(ticket)
            gate.answered(ticket)

    async def main() -> None:
        gate = Gate(64)
        await asyncio.gather(*(work(gate) for _ in range(64)))

    play(main)
    assert refused < 0.2 * done
    assert done > 0.5 * 2000 * capacity
