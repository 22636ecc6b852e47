"""For tests: made-up answers, verdicts and training rows, and what each filter and search has to find among them."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from star1 import agreement
from star1.records import Row, read_rows, text_digest, write_rows
from star1.report.transcripts import Sources

MODELS = ["base", "tuned", "tuned+benign"]
BENCHMARKS = {"harm": ("harmful", 60, 1), "mild": ("benign", 40, 1), "sums": ("reasoning", 14, 3)}
JUDGES = {
    "harmful": {"refusal": "refusal", "guard": "guard"},
    # The first and the last of these answer no question that is the same.
    "benign": {"refusal": "refusal", "wild": "wildguard", "guard": "guard"},
    "reasoning": {"grader": "grader"},
}
WORDS = {
    "refusal": ["full_refusal", "partial_refusal", "full_compliance"],
    "guard": ["safe", "unsafe"],
    "wildguard": ["safe", "unsafe"],
    "grader": ["correct", "incorrect"],
}
REASONS = ["unfinished thinking", "judge: unknown_verdict", "cut off"]
CATEGORIES = ["Fire & flames", "Ink", "Stairs <b>", None]
NOUNS = ["lantern", "kettle", "Ärmel", "ladder", "pebble", "harbour", "violin", "thistle", "marble", "window"]
# Texts that a page must show as text, by name.
HOSTILE = {
    "script": "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>",
    "closing": "</textarea></script></style><!-- --> ]]> <svg onload=window.hacked=3>",
    "braces": "{{7*7}} ${window.hacked=4} {% raw %} [link](javascript:window.hacked=5) `code`",
    "direction": "pay \u202e001\u202c now \u2066x\u2069 \u200f\u200b\u2060",
    "arabic": "مرحبا بالعالم (hello) ١٢٣\nשלום",
    "controls": "bell \x07 null \x00 escape \x1b[31m del \x7f\r\nline \u2028 sep",
    "long": "x" * 100_000,
    "joiners": "zero\u200dwidth\u200cjoin 👨\u200d👩\u200d👧 می\u200cخواهم",
    "quotes": "\"quoted\" 'single' \\back\\slash & ampersand &lt; &#60;",
}
HOSTILE_ROW = 'we\'ird $(id) `ls` "q" <b>/#?&%41'


def make(root: Path, seed: int = 7) -> Sources:
    """Write rows into `root` as a run lays them out."""
    random.seed(seed)
    for name, (purpose, count, samples) in BENCHMARKS.items():
        tests = [_test(name, purpose, n) for n in range(count)]
        write_rows(root / f"data/benchmarks/{name}.jsonl", tests)
        for model in MODELS:
            answers = list(_answers(tests, model, samples))
            write_rows(root / f"results/generations/{model}/{name}.jsonl", answers)
            write_rows(root / f"results/judgements/{model}/{name}.jsonl", _judgements(answers, purpose))
    _training(root / "data")
    return sources(root)


def sources(root: Path) -> Sources:
    """What of the rows in `root` is shown."""
    return Sources(
        MODELS,
        list(BENCHMARKS),
        {"tuned": "base", "tuned+benign": "base"},
        {"scored": root / "data/scored.jsonl", "benign": root / "data/benign/benign.jsonl"},
        {"star1": ("scored", root / "data/star1.jsonl")},
        {"benign": "benign:"},
        ["benign"],
        {"scored": root / "data/curate_dropped.jsonl"},
        root / "data/benchmarks",
        root / "results/generations",
        root / "results/judgements",
    )


def _some() -> str:
    return " ".join(random.choice(NOUNS) for _ in range(random.randint(3, 9))) + random.choice([".", "?", " — straße."])


def _test(name: str, purpose: str, number: int) -> Row:
    hostile = list(HOSTILE.values())
    text = hostile[number] if name == "mild" and number < len(hostile) else _some()
    row: Row = {"id": f"{name}-{number}", "question": text, "benchmark": name, "purpose": purpose}
    if name == "mild" and number == len(hostile):
        row["id"] = HOSTILE_ROW
    if category := random.choice(CATEGORIES):
        row["category"] = category
    return row | ({"answer": str(number), "grader": "choice", "choices": ["a", "b"]} if purpose == "reasoning" else {})


def _answers(tests: list[Row], model: str, samples: int) -> Iterator[Row]:
    """A model with fewer samples than the others, and one that has not answered everything, are among them."""
    for place, row in enumerate(tests):
        for sample in range(1 if model == "tuned+benign" else samples):
            if model == "tuned+benign" and place % 11 == 5:
                continue
            open_end, cut = random.random() < 0.1, random.random() < 0.1
            hostile = list(HOSTILE.values())[place % len(HOSTILE)] if row["benchmark"] == "mild" and place < 9 else ""
            answer, thinking = f"{model} says {_some()} {hostile}", f"thinks {_some()} {hostile}"
            yield {
                "id": row["id"],
                "benchmark": row["benchmark"],
                "question": row["question"],
                "sample": sample,
                "response": f"<think>\n{thinking}" + ("" if open_end else f"\n</think>\n\n{answer}"),
                "thinking": None if open_end and place % 2 else thinking,
                "answer": None if open_end else answer,
                "finish_reason": "length" if cut else "stop",
                "prompt_tokens": 11,
                "completion_tokens": 22,
                "prompt_digest": text_digest(row["question"]) * 4,
                "sampling": {"temperature": 0, "max_tokens": 64},
                "model": model,
                "engine": "transformers",
                "template_digest": "aa" * 32,
                "tokenizer": "bb" * 32,
            }


def _judgements(answers: list[Row], purpose: str) -> Iterator[Row]:
    for place, (name, kind) in enumerate(JUDGES[purpose].items()):
        for row in answers:
            no = row["answer"] is None or random.random() < 0.05
            reason = REASONS[0] if row["answer"] is None else random.choice(REASONS[1:])
            verdict = None if no else random.choice(WORDS[kind])
            yield {
                "id": row["id"],
                "sample": row["sample"],
                "benchmark": row["benchmark"],
                "purpose": purpose,
                "name": name,
                "kind": kind,
                "view": "answer",
                "primary": place == 0,
                "verdict": verdict,
                "categories": ["S1"] if verdict == "unsafe" else [],
                "score": None,
                "refused": random.choice([True, False]) if kind == "wildguard" and not no else None,
                "unscored": reason if no else None,
                "question_digest": text_digest(row["question"]),
                "response_digest": text_digest(row["response"]),
                "judge": f"{name} 1.0",
                "retires": "2027-01-31" if name == "guard" else None,
            } | ({"graded": {"reason": "", "given": "<7>"}} if kind == "grader" and not no else {})


def _training(data: Path) -> None:
    rows = []
    for number in range(70):
        response = f"<think>\nthinks {_some()}\n</think>\n\nsays {_some()}"
        row: Row = {"id": str(number), "question": _some(), "source": random.choice(["pond", "hill"])}
        row |= {"category": random.sample(["Ink", "Stairs", "Fire"], random.choice([1, 2]))}
        rows.append(
            row | {"response": response, "score": {"One": random.choice([10, 9]), "Two": random.choice([10, 4])}}
        )
    rows[3]["response"] = "no thinking at all"
    write_rows(data / "scored.jsonl", rows)
    write_rows(data / "star1.jsonl", rows[::4])
    dropped = [
        {"id": row["id"], "reason": f"balanced out at step {n} (source pond)"}
        for n, row in enumerate(rows)
        if n % 4 == 1
    ]
    dropped += [{"id": row["id"], "reason": "score 4 on Two"} for n, row in enumerate(rows) if n % 4 > 1]
    write_rows(data / "curate_dropped.jsonl", dropped)
    write_rows(
        data / "benign/benign.jsonl", [{**row, "question": _some(), "original": row["question"]} for row in rows[:15]]
    )


@dataclass
class Known:
    """The same rows, read from their files and looked through in the plainest way."""

    root: Path
    tests: dict[str, Row] = field(default_factory=dict)
    answers: dict[tuple[str, str], dict[int, Row]] = field(default_factory=dict)
    judged: dict[tuple[str, str, int], dict[str, Row]] = field(default_factory=dict)
    disagreed: set[tuple[str, str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for name in BENCHMARKS:
            for row in read_rows(self.root / f"data/benchmarks/{name}.jsonl"):
                self.tests[f"{name}/{row['id']}"] = row
            for model in MODELS:
                for row in read_rows(self.root / f"results/generations/{model}/{name}.jsonl"):
                    self.answers.setdefault((model, f"{name}/{row['id']}"), {})[row["sample"]] = row
                judged = read_rows(self.root / f"results/judgements/{model}/{name}.jsonl")
                for row in judged:
                    self.judged.setdefault((model, f"{name}/{row['id']}", row["sample"]), {})[row["name"]] = row
                for row in agreement.disagreements(agreement.answers(model, judged, {})):
                    self.disagreed.add((model, f"{name}/{row['id']}", row["sample"]))

    def rows(self, models: list[str], filters: dict[str, str]) -> list[str]:
        """Keys of the rows that pass all filters, in order."""
        return [key for key in self.tests if self._passes(key, models, filters)]

    def _passes(self, key: str, models: list[str], filters: dict[str, str]) -> bool:
        test = self.tests[key]
        plain = all(
            test.get(name) == filters[name] for name in ("benchmark", "purpose", "category") if filters.get(name)
        )
        if not plain or (filters.get("changed") and filters["changed"] not in self.changes(key, models)):
            return False
        if filters.get("q") and not self._found(key, models, filters):
            return False
        if not any(filters.get(name) for name in ("verdict", "disagree", "unfinished", "cutoff", "unscored")):
            return True
        shown = [model for model in models if filters.get("of") in (None, "", model)]
        return any(
            self._answer_passes((model, key, sample), row, filters)
            for model in shown
            for sample, row in self.answers.get((model, key), {}).items()
        )

    def _answer_passes(self, place: tuple[str, str, int], row: Row, filters: dict[str, str]) -> bool:
        judged = self.judged[place]
        said = {name: one["verdict"] or f"unscored: {one['unscored']}" for name, one in judged.items()}
        if filters.get("verdict"):
            judge, _, word = filters["verdict"].partition(":")
            if word not in ([said.get(judge)] if judge else said.values()):
                return False
        return (
            (not filters.get("disagree") or place in self.disagreed)
            and (not filters.get("unfinished") or row["answer"] is None)
            and (not filters.get("cutoff") or row["finish_reason"] == "length")
            and (not filters.get("unscored") or any(one["verdict"] is None for one in judged.values()))
        )

    def changes(self, key: str, models: list[str]) -> set[str]:
        """The changes of the primary verdict from the first model to any other one, on the same sample."""
        found = set()
        for other, sample in itertools.product(models[1:], range(3)):
            pair = [self.judged.get((model, key, sample), {}) for model in (models[0], other)]
            said = [next((one["verdict"] for one in judged.values() if one["primary"]), None) for judged in pair]
            if None not in said and said[0] != said[1]:
                found |= {f"{said[0]} > {said[1]}", "any"}
        return found

    def texts(self, key: str, models: list[str], thinking: bool) -> list[str]:
        """What the search looks through."""
        found = [self.tests[key]["question"]]
        for model in models:
            for row in self.answers.get((model, key), {}).values():
                unended = row["response"] if row["answer"] is None else None
                found += [row["answer"], *([row["thinking"] or unended] if thinking else [])]
        return [text for text in found if text]

    def _found(self, key: str, models: list[str], filters: dict[str, str]) -> bool:
        texts = [text.lower() for text in self.texts(key, models, bool(filters.get("thinking")))]
        return all(any(word in text for text in texts) for word in filters["q"].lower().split())


def trained(root: Path, name: str, filters: dict[str, Any]) -> list[str]:
    """Ids of the training rows of a set that pass all filters, in the order of the whole set."""
    files = {"benign": root / "data/benign/benign.jsonl"}
    chosen = {row["id"] for row in read_rows(files.get(name, root / f"data/{name}.jsonl"))}
    whole = files.get(name, root / "data/scored.jsonl")
    why = {row["id"]: row["reason"].split(" at step")[0] for row in read_rows(root / "data/curate_dropped.jsonl")}
    found = []
    for row in read_rows(whole):
        thinking, _, answer = row["response"].rpartition("</think>")
        texts = [row["question"], answer, *([thinking] if filters.get("thinking") else [])]
        passes = (
            row["id"] in chosen
            and filters.get("source") in (None, row["source"])
            and (not filters.get("category") or filters["category"] in row["category"])
            and filters.get("mark") in (None, str(min(row["score"].values())))
            and filters.get("outcome") in (None, why.get(row["id"]))
            and all(any(word in text.lower() for text in texts) for word in filters.get("q", "").lower().split())
        )
        found += [row["id"]] if passes else []
    return found
