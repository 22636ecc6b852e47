"""When a request may leave for an endpoint: slots that adapt, rates that are kept, and one pause for all."""

import asyncio
import contextlib
import random
from dataclasses import dataclass

MINUTE_S = 60.0


@dataclass(frozen=True)
class Ticket:
    """Leave for one request; `leave` takes it back.

    Attributes:
        episode: how often the endpoint had been found too busy before the request left.
        tokens: what was reserved for it [tokens].
    """

    episode: int
    tokens: int


class Rate:
    """So many units a minute, evenly spread: providers also count by the second, so nothing is saved up.

    In any minute there are at most `per_minute` units and those of one request.
    """

    def __init__(self, per_minute: float | None) -> None:
        self.second = MINUTE_S / per_minute if per_minute else 0.0
        self.free_at = 0.0

    def take(self, now: float, units: float) -> None:
        """Book `units` from `now` on."""
        self.free_at = max(self.free_at, now) + units * self.second

    def correct(self, units: float) -> None:
        """Book units that were not foreseen, or give back (negative) what was not used."""
        self.free_at += units * self.second


class Gate:
    """The way to one endpoint, first come, first served. Time is the running event loop's.

    A busy endpoint halves the number of requests in flight, once for all that left before it said so; each full round
    of answers allows one more, up to `slots`.

    Args:
        slots: requests in flight, at most and at the start.
        requests_per_minute: the endpoint's limit, or None.
        tokens_per_minute: the endpoint's limit for prompts and replies together, or None.
        pause_s: first pause after a refusal that does not say how long to wait, doubled from one to the next [s].
        longest_pause_s: where the doubling ends [s].
    """

    def __init__(
        self,
        slots: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        pause_s: float = 1.0,
        longest_pause_s: float = 120.0,
    ) -> None:
        self.slots, self.limit = slots, float(slots)
        self.in_flight = self.waiting = self.episode = self.refusals = 0
        self.pause_s, self.longest_pause_s = pause_s, longest_pause_s
        self._requests, self._tokens = Rate(requests_per_minute), Rate(tokens_per_minute)
        self._open_at = 0.0
        self._shut = False
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def load(self) -> tuple[bool, float]:
        """How long the way is, to be compared: whether there is a pause, and requests in flight and waiting per slot."""
        return self._open_at > _now(), (self.in_flight + self.waiting) / self.limit

    async def enter(self, tokens: int = 0) -> Ticket:
        """Wait until one more request may leave; `tokens` is what it will use by estimate."""
        self.waiting += 1
        try:
            async with self._turn:
                while not self._shut:
                    self._changed.clear()
                    if self.in_flight >= int(self.limit):
                        await self._changed.wait()
                    elif (wait := self._wait()) > 0:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._changed.wait(), wait)
                    else:
                        break
                return self._leave_for(tokens)
        finally:
            self.waiting -= 1

    def shut(self) -> None:
        """Let nobody wait any more; who comes through is to see that nothing leaves."""
        self._shut = True
        self._changed.set()

    def leave(self, ticket: Ticket, tokens: int | None = None) -> None:
        """A request has come back; `tokens` is what it used, where that is known."""
        self.in_flight -= 1
        if tokens is not None:
            self._tokens.correct(tokens - ticket.tokens)
        self._changed.set()

    def answered(self, ticket: Ticket) -> None:
        """The endpoint gave a reply: a full round of them since it was last too busy makes room for one more."""
        self.refusals = 0
        if ticket.episode == self.episode:
            self.limit = min(float(self.slots), self.limit + 1 / int(self.limit))
            self._changed.set()

    def refused(self, ticket: Ticket, wait_s: float | None) -> float:
        """A rate limit: fewer at a time, and a pause for all. Gives the pause from now [s]."""
        if self.strained(ticket):
            self.refusals += 1
            doubled = min(self.pause_s * 2 ** (self.refusals - 1), self.longest_pause_s)
            # An endpoint that says "one second" again and again does not mean it.
            self.hold(doubled * random.uniform(0.5, 1.0) if wait_s is None or self.refusals > 1 else 0.0)
        if wait_s is not None:
            self.hold(wait_s + random.uniform(0.5, 1.0) * self.pause_s)
        return max(0.0, self._open_at - _now())

    def strained(self, ticket: Ticket) -> bool:
        """The endpoint is too busy: half as many at a time. Gives whether that is news."""
        if ticket.episode < self.episode:
            return False
        self.episode += 1
        self.limit = max(1.0, self.limit / 2)
        return True

    def hold(self, seconds: float) -> None:
        """Let nothing leave for so long; a longer pause stays as it is."""
        self._open_at = max(self._open_at, _now() + seconds)

    def _wait(self) -> float:
        return max(self._open_at, self._requests.free_at, self._tokens.free_at) - _now()

    def _leave_for(self, tokens: int) -> Ticket:
        now = _now()
        self._requests.take(now, 1)
        self._tokens.take(now, tokens)
        self.in_flight += 1
        return Ticket(self.episode, tokens)


def _now() -> float:
    return asyncio.get_running_loop().time()
