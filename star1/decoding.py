"""What an engine is asked for and gives back: how tokens are chosen, for which prompt, and what was written."""

import dataclasses
import fnmatch
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from star1.errors import SettingError

# How often a prompt starts: once, or twice as the published code has it (`star1.chat.prompt_ids`).
Bos = Literal["one", "doubled"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 is greedy.
        top_p: share of probability that is drawn from.
        repetition_penalty: divides (multiplies, below 0) the logits of tokens seen in prompt or output; 1: none.
        max_tokens: longest output [tokens].
        samples: outputs per prompt, each with draws of its own.
        seed: of the draws.
        batch_size: prompts per forward pass of the transformers engine; it can change the last digits of the logits.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = 8000
    samples: int = 1
    seed: int = 46
    batch_size: int = 32


def sampling_from(values: Mapping[str, Any]) -> Sampling:
    """Make sampling settings from a JSON object.

    Raises:
        SettingError: an unknown name, or a value out of range.
    """
    names = [field.name for field in dataclasses.fields(Sampling)]
    if unknown := sorted(set(values) - set(names)):
        raise SettingError("sampling", f"unknown name {unknown[0]!r}", "one of " + ", ".join(names))
    made = Sampling(**values)
    if (
        min(made.max_tokens, made.batch_size, made.samples) < 1
        or made.temperature < 0
        or not 0 < made.top_p <= 1
        or made.repetition_penalty <= 0
    ):
        expected = "max_tokens, batch_size, samples >= 1, temperature >= 0, 0 < top_p <= 1, repetition_penalty > 0"
        raise SettingError("sampling", str(dict(values)), expected)
    if made.temperature == 0 and made.samples > 1:
        found = f"{made.samples} samples at temperature 0, which are all the same"
        raise SettingError("sampling", found, "one sample, or a temperature above 0")
    return made


def sampling_for(
    model: str, benchmark: str, values: Mapping[str, Any], of: Mapping[str, Mapping[str, Any]]
) -> Sampling:
    """The settings for one model on one benchmark.

    Args:
        model: its name in results.
        benchmark: the benchmark's name.
        values: the settings for all.
        of: what differs, by `benchmark`, `model` or `model/benchmark`, in which a star stands for any text; of several
            that fit, the later in this order wins, and among equals the later in the file.
    """
    merged = dict(values)
    for name in (benchmark, model, f"{model}/{benchmark}"):
        for key, other in of.items():
            if key.count("/") == name.count("/") and fnmatch.fnmatchcase(name, key):
                merged |= other
    try:
        return sampling_from(merged)
    except SettingError as error:
        raise SettingError(f"sampling of {model} on {benchmark}", error.found, error.expected) from None


@dataclasses.dataclass(frozen=True)
class Request:
    """One output to generate.

    Attributes:
        question: what the model is asked.
        ids: the rendered prompt as token ids; None where a server renders it.
        sampling: how tokens are chosen.
        sample: which of `sampling.samples` outputs this is.
    """

    question: str
    ids: list[int] | None
    sampling: Sampling
    sample: int = 0

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the prompt: of its token ids as a JSON list, or of its text where a server renders it."""
        data = self.question.encode("utf-8", "surrogatepass") if self.ids is None else orjson.dumps(self.ids)
        return hashlib.sha256(data).hexdigest()

    @property
    def seed(self) -> int:
        """Seed of this output's own draws (31 bits): the same whatever else is generated, before or beside it."""
        told = f"{self.sampling.seed}/{self.digest}/{self.sample}"
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:4]) >> 1


@dataclasses.dataclass(frozen=True)
class Output:
    """What a model wrote. `text` has the opening think tag put back where the template had written it."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclasses.dataclass(frozen=True)
class Model:
    """A model to generate with: its name in results, its checkpoint folder and tokenizer (None: behind a server)."""

    name: str
    folder: Path | None
    tokenizer: Any
    digest: str


Emit = Callable[[list[tuple[int, Output]]], None]
# Generates `requests[i]` for i in the second list; hands finished outputs on as they come, so that a kill loses little.
Engine = Callable[[Model, Sequence[Request], Sequence[int], dict[str, Any], Emit], None]


def options_from(found: Mapping[str, Any], allowed: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """An engine's options, with its defaults for what is not said.

    Raises:
        SettingError: an option that the engine does not have.
    """
    if unknown := sorted(set(found) - set(allowed)):
        names = ", ".join(sorted(allowed))
        raise SettingError(f"options of engine {engine}", f"unknown name {unknown[0]!r}", f"one of {names}")
    return {**allowed, **found}
