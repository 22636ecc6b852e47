"""What the requests of a stage's present rows cost and took, whenever they were made: read off the store as it answers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from star1.prices import Price


class Actuals:
    """Counts each request once, however often its reply is looked up.

    Attributes:
        replies: requests that have one.
        prompt_tokens: of those whose server told [tokens].
        reply_tokens: the same for what was answered.
        uncounted: replies whose server did not tell.
        seconds: that all of them took together [s].
    """

    def __init__(self) -> None:
        self.replies = self.prompt_tokens = self.reply_tokens = self.uncounted = 0
        self.seconds = 0.0
        # Requests that were looked up, and whether they had a reply.
        self._wanted: dict[str, bool] = {}
        self._failures: dict[str, list[str]] = {}

    def want(self, key: str) -> None:
        """A request was looked up."""
        self._wanted.setdefault(key, False)

    def answer(self, key: str, tokens: tuple[int, int] | None, seconds: object) -> None:
        """A request has a reply.

        Args:
            key: the request.
            tokens: of its prompt and reply, where the server told.
            seconds: what it took, where that was kept.
        """
        if self._wanted.get(key):
            return
        self._wanted[key] = True
        self.replies += 1
        self.uncounted += tokens is None
        prompt, reply = tokens or (0, 0)
        self.prompt_tokens, self.reply_tokens = self.prompt_tokens + prompt, self.reply_tokens + reply
        self.seconds += seconds if isinstance(seconds, int | float) else 0.0

    def fail(self, key: str, reason: object) -> None:
        """An attempt got no reply."""
        self._failures.setdefault(key, []).append(str(reason))

    def forget_failures(self) -> None:
        """The attempts are going to be told anew."""
        self._failures.clear()

    @property
    def failures(self) -> Counter[str]:
        """Attempts without a reply, by reason, for the requests that were looked up."""
        return Counter(reason for key, reasons in self._failures.items() if key in self._wanted for reason in reasons)

    def figures(self, price: Price | None) -> Mapping[str, Any]:
        """All of it by name; the cost is None where there is no price [USD]."""
        failures = self.failures
        return {
            "replies": self.replies,
            "prompt_tokens": self.prompt_tokens,
            "reply_tokens": self.reply_tokens,
            "replies_without_count": self.uncounted,
            "usd": round(price.cost(self.prompt_tokens, self.reply_tokens), 6) if price else None,
            "mean_seconds": round(self.seconds / self.replies, 3) if self.replies else None,
            "failed_attempts": failures.total(),
            "failed_by_reason": dict(sorted(failures.items())),
        }
