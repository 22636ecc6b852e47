"""What replies cost, and how much may be spent."""

from pydantic import BaseModel, ConfigDict, Field

MILLION = 1_000_000
# Usual length of a reply [tokens], where the store has none to go by; `llm.reply_tokens` in params.yaml replaces them.
# Source: mean response of the published STAR-1 (1,840 characters) for reasoning; for the others the form that is asked for.
REPLY_TOKENS = {"categorize": 15, "reason": 460, "score": 50, "judge": 10}
REPLY_TOKENS |= {f"benign_{name}": REPLY_TOKENS[name] for name in ("reason", "score")} | {"benign_rewrite": 30}


class Price(BaseModel):
    """What an endpoint charges [USD per million tokens].

    Attributes:
        input: for what is sent.
        output: for what is answered, thinking included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def cost(self, prompt_tokens: float, reply_tokens: float) -> float:
        """What so many tokens cost [USD]."""
        return (prompt_tokens * self.input + reply_tokens * self.output) / MILLION


class Budget:
    """What may be spent at one endpoint: requests in flight count by estimate until their cost is known.

    Args:
        price: None where nothing is charged.
        limit: most that may be spent, or None [USD].
        spent: what was spent before [USD].

    Attributes:
        open: requests that something is set aside for.
    """

    def __init__(self, price: Price | None, limit: float | None, spent: float = 0.0) -> None:
        self.price, self.limit, self.spent, self.reserved, self.open = price, limit, spent, 0.0, 0

    def reserve(self, prompt_tokens: float, reply_tokens: float, sure: bool = True) -> float | None:
        """Set aside what a request will cost by estimate, and give that; None where it is too much [USD].

        Where the reply's length is not sure, since none has come yet, one request may go as long as its prompt can be paid.
        """
        cost = self.price.cost(prompt_tokens, reply_tokens) if self.price else 0.0
        least = self.price.cost(prompt_tokens, 0) if self.price and not sure and not self.open else cost
        known = self.spent + self.reserved
        if self.limit is not None and (known >= self.limit or known + least > self.limit):
            return None
        self.reserved, self.open = self.reserved + cost, self.open + 1
        return cost

    def owe(self, prompt_tokens: float, reply_tokens: float) -> float:
        """Set aside what will be charged for a request in any case, and give that [USD]."""
        cost = self.price.cost(prompt_tokens, reply_tokens) if self.price else 0.0
        self.reserved, self.open = self.reserved + cost, self.open + 1
        return cost

    def settle(self, reserved: float, tokens: tuple[int, int] | None, answered: bool) -> None:
        """Put in place of what was set aside what a request did cost; an answer without a count costs the estimate."""
        self.open -= 1
        self.reserved = self.reserved - reserved if self.open else 0.0
        if answered and self.price:
            self.spent += reserved if tokens is None else self.price.cost(*tokens)
