"""Deduplication and decontamination of the collected prompts, in the published six steps.

For each source in turn: `self_ngram`, `pool_ngram`, `pool_tfidf`, and what is left joins the pool (the benchmarks and
the kept rows of earlier sources). Then over all kept rows: `self_tfidf`, `self_embedding`, `test_embedding`.

Source: UCSC-VLAA/STAR-1 @ b493335, data_making/data_collection.
Differs: no dense N x N matrix is built; every dropped row says why; the survivor of `self_ngram` can be the first row.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from star1.embeddings import encode as encode_texts
from star1.errors import InputError, SettingError
from star1.progress import track
from star1.records import Row, read_rows, text_digest

Survivor: TypeAlias = Literal["first", "as_published"]
Vectors: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"
Indices: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

STEPS = ("self_ngram", "pool_ngram", "pool_tfidf", "self_tfidf", "self_embedding", "test_embedding")
TFIDF_BLOCK = 512
VECTOR_BLOCK, VECTOR_TILE = 1024, 8192
# A float32 product of two vectors of 384 numbers and length 1 is off by less than this.
FLOAT32_NOISE = 1e-5
# What scikit-learn's vectoriser takes for a word.
WORD = re.compile(r"\b\w\w+\b")


@dataclass(frozen=True)
class Settings:
    """The values of the section `collect`.

    Attributes:
        tfidf_threshold: cosine of TF-IDF vectors from which two rows are alike.
        embedding_threshold: cosine of sentence embeddings from which two rows are alike.
        pool_ngram: length of the n-grams [words] compared with the pool.
        ngram_survivor: which row survives `self_ngram`, see there.
    """

    tfidf_threshold: float = 0.6
    embedding_threshold: float = 0.7
    pool_ngram: int = 8
    ngram_survivor: Survivor = "first"


@dataclass(frozen=True)
class Drop:
    """A row that goes: its `index`, the index of the row it is `matched` with, and by what."""

    index: int
    matched: int
    similarity: float | None = None
    ngram: str | None = None


# --- n-grams --------------------------------------------------------------------------------------------------------


def word_ngrams(text: str, n: int) -> list[str]:
    """The n-grams over the words of the lower-cased text, split at white space; none if it has fewer than n words."""
    words = text.lower().split()
    return [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]


def self_ngram(texts: Sequence[str], n: int, survivor: Survivor) -> list[Drop]:
    """Rows that share an n-gram with another row of the same list.

    With `first`, a row goes if it shares an n-gram with an earlier row that stays. So the first row of every cluster
    stays, and no two rows that stay share an n-gram.

    With `as_published`, each n-gram that several rows hold keeps the one that `set.pop()` takes from the Python set of
    their indices (not in general the first), and all its other holders go, even if another n-gram keeps them. So all
    rows of a cluster can go.
    """
    return _first_ngram(texts, n) if survivor == "first" else _popped_ngram(texts, n)


def _first_ngram(texts: Sequence[str], n: int) -> list[Drop]:
    holders: dict[str, int] = {}
    drops = []
    for index, text in enumerate(texts):
        ngrams = word_ngrams(text, n)
        shared = next((ngram for ngram in ngrams if ngram in holders), None)
        if shared is None:
            holders.update(dict.fromkeys(ngrams, index))
        else:
            drops.append(Drop(index, holders[shared], ngram=shared))
    return drops


def _popped_ngram(texts: Sequence[str], n: int) -> list[Drop]:
    holders: dict[str, set[int]] = {}
    for index, text in enumerate(texts):
        for ngram in word_ngrams(text, n):
            holders.setdefault(ngram, set()).add(index)
    drops: dict[int, Drop] = {}
    for ngram, indices in holders.items():
        if len(indices) > 1:
            stays = indices.pop()
            for index in indices:
                drops.setdefault(index, Drop(index, stays, ngram=ngram))
    return sorted(drops.values(), key=lambda drop: drop.index)


def add_ngrams(holders: dict[str, int], texts: Sequence[str], n: int, start: int) -> None:
    """Note for each n-gram the first row that holds it; the rows of `texts` are numbered from `start`."""
    for index, text in enumerate(texts, start=start):
        for ngram in word_ngrams(text, n):
            holders.setdefault(ngram, index)


def pool_ngram(texts: Sequence[str], holders: dict[str, int], n: int) -> list[Drop]:
    """Rows that share an n-gram with the pool, whose n-grams are in `holders`."""
    drops = []
    for index, text in enumerate(texts):
        shared = next((ngram for ngram in word_ngrams(text, n) if ngram in holders), None)
        if shared is not None:
            drops.append(Drop(index, holders[shared], ngram=shared))
    return drops


# --- similarity -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows that are alike, sorted by `left` and then `right`, with their `similarity`."""

    left: Indices
    right: Indices
    similarity: "np.ndarray[Any, np.dtype[np.float64]]"

    def drops(self) -> list[Drop]:
        """One drop for each left row: with its first right row."""
        _, first = np.unique(self.left, return_index=True)
        return [Drop(int(self.left[i]), int(self.right[i]), float(self.similarity[i])) for i in first]


# Gives the pairs among the rows with these indices and the rows with those.
Alike: TypeAlias = Callable[[Indices, Indices], Pairs]


def _sorted_pairs(left: Indices, right: Indices, similarity: Any) -> Pairs:
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], similarity[order])


def _against(alike: Alike, n: int, n_others: int, block: int, step: str) -> list[Drop]:
    """Rows that are alike to any of the other rows."""
    others = np.arange(n_others)
    starts = range(0, n, block) if n_others else range(0)
    blocks = (np.arange(start, min(start + block, n)) for start in starts)
    return [drop for rows in track(blocks, step, len(starts), "blocks") for drop in alike(rows, others).drops()]


def _greedy(alike: Alike, n: int, block: int, step: str) -> list[Drop]:
    """Rows that are alike to an earlier row that stays, decided in order; matched with the first such row."""
    kept = np.arange(0)
    drops: list[Drop] = []
    for start in track(range(0, n, block), step, -(-n // block), "blocks"):
        rows = np.arange(start, min(start + block, n))
        earlier = alike(rows, kept).drops() if len(kept) else []
        rows = np.setdiff1d(rows, [drop.index for drop in earlier])
        inside = _greedy_inside(alike(rows, rows)) if len(rows) else []
        kept = np.concatenate([kept, np.setdiff1d(rows, [drop.index for drop in inside])])
        drops += sorted(earlier + inside, key=lambda drop: drop.index)
    return drops


def _greedy_inside(pairs: Pairs) -> list[Drop]:
    """The same within one block, from all its pairs."""
    drops: dict[int, Drop] = {}
    for i in np.flatnonzero(pairs.right < pairs.left):
        left, right = int(pairs.left[i]), int(pairs.right[i])
        # Pairs come in the order of their later row, so whether the earlier one stays is known by then.
        if left not in drops and right not in drops:
            drops[left] = Drop(left, right, float(pairs.similarity[i]))
    return list(drops.values())


def _tfidf(texts: Sequence[str]) -> Any:
    """TF-IDF matrix `[n, words]` (scipy CSR, float64, rows of length 1 or 0); None if no text has a word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(WORD.search(text.lower()) for text in texts):
        return None
    return TfidfVectorizer().fit_transform(texts).tocsr()


def _alike_tfidf(matrix: Any, others: Any, threshold: float) -> Alike:
    def alike(rows: Indices, columns: Indices) -> Pairs:
        # scipy adds the products of a pair in the order of the words, so a cosine does not depend on the block.
        product = (matrix[rows] @ others[columns].T).tocoo()
        hit = product.data >= threshold
        return _sorted_pairs(rows[product.row[hit]], columns[product.col[hit]], product.data[hit])

    return alike


def pool_tfidf(texts: Sequence[str], pool: Sequence[str], threshold: float) -> list[Drop]:
    """Rows with a TF-IDF cosine >= threshold with a pool row; the vocabulary and weights are of pool and rows."""
    matrix = _tfidf([*pool, *texts]) if texts else None
    if matrix is None:
        return []
    alike = _alike_tfidf(matrix[len(pool) :], matrix[: len(pool)], threshold)
    return _against(alike, len(texts), len(pool), TFIDF_BLOCK, "pool_tfidf")


def self_tfidf(texts: Sequence[str], threshold: float) -> list[Drop]:
    """Rows with a TF-IDF cosine >= threshold with an earlier row that stays."""
    matrix = _tfidf(texts) if texts else None
    return [] if matrix is None else _greedy(_alike_tfidf(matrix, matrix, threshold), len(texts), TFIDF_BLOCK, STEPS[3])


def _alike_vectors(vectors: Vectors, others: Vectors, threshold: float) -> Alike:
    def tile(rows: Indices, columns: Indices) -> tuple[Indices, Indices, Any]:
        left, right = np.nonzero(vectors[rows] @ others[columns].T >= threshold - FLOAT32_NOISE)
        left, right = rows[left], columns[right]
        # The float32 product depends on how it is split into blocks; the decision must not.
        exact = np.einsum("ij,ij->i", vectors[left].astype(np.float64), others[right].astype(np.float64))
        hit = exact >= threshold
        return left[hit], right[hit], exact[hit]

    def alike(rows: Indices, columns: Indices) -> Pairs:
        tiles = [tile(rows, columns[start : start + VECTOR_TILE]) for start in range(0, len(columns), VECTOR_TILE)]
        return _sorted_pairs(*(np.concatenate(parts) for parts in zip(*tiles, strict=True)))

    return alike


def self_embedding(vectors: Vectors, threshold: float) -> list[Drop]:
    """Rows whose vector has a cosine >= threshold with that of an earlier row that stays.

    The cosine that decides is the float64 dot product of the float32 vectors `[n, d]`, which must have length 1.
    """
    return _greedy(_alike_vectors(vectors, vectors, threshold), len(vectors), VECTOR_BLOCK, "self_embedding")


def decontaminate(vectors: Vectors, tests: Vectors, threshold: float) -> list[Drop]:
    """Rows whose vector has a cosine >= threshold, as in `self_embedding`, with that of a benchmark row."""
    alike = _alike_vectors(vectors, tests, threshold)
    return _against(alike, len(vectors), len(tests), VECTOR_BLOCK, "test_embedding")


# --- input -----------------------------------------------------------------------------------------------------------


def read_named(pairs: Sequence[str], required: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Read files of rows given as `NAME=PATH`, in order.

    Raises:
        SettingError: a pair has no name, or a name comes twice.
        InputError: a file is not as it should be.
    """
    named: list[tuple[str, list[Row]]] = []
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path) or name in dict(named):
            raise SettingError(pair, "no name, or a name given before", "NAME=PATH with another name each")
        named.append((name, read_rows(path, required)))
    return named


def read_numbers(text: str, names: Sequence[str]) -> dict[str, int]:
    """Read a JSON object that gives each of `names` a number of at least 1.

    Raises:
        SettingError: it is not such an object, or the names are others.
    """
    try:
        numbers = TypeAdapter(dict[str, Annotated[int, Field(strict=True, ge=1)]]).validate_json(text)
    except ValidationError as error:
        raise SettingError("ngrams", error.errors()[0]["msg"], 'n-gram lengths, {"name": n}') from None
    if other := sorted(set(numbers) ^ set(names)):
        raise SettingError("ngrams", f"{other[0]!r} without its counterpart", "a length for each source and no other")
    return numbers


# --- collection -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A prompt on its way through the steps: a row of a source or, if `id` is set, of a benchmark."""

    text: str
    name: str
    row: int
    id: str | None = None

    def label(self) -> str:
        """Where it is from, in words."""
        return f"{'source' if self.id is None else 'benchmark'} {self.name}"

    def reference(self) -> Row:
        """The prompt as a dropped row points to it: without its text."""
        place = {"source": self.name} if self.id is None else {"benchmark": self.name, "id": self.id}
        return place | {"row": self.row, "question_digest": text_digest(self.text)}


@dataclass
class Collection:
    """What `collect` gives: kept rows `{"id", "question", "source"}`, dropped rows with reasons, and the funnel."""

    rows: list[Row]
    dropped: list[Row] = field(default_factory=list)
    funnel: Row = field(default_factory=dict)


def survivors(n: int, drops: Sequence[Drop], survivor: Survivor) -> list[int]:
    """Indices of the rows that stay, in the order in which they go on.

    As published, that is the order of a Python set, which is not ascending where most rows go.
    """
    removed = {drop.index for drop in drops}
    if survivor == "as_published":
        return list(set(range(n)) - removed)
    return [index for index in range(n) if index not in removed]


def collect(
    sources: Sequence[tuple[str, int, Sequence[Row]]],
    benchmarks: Sequence[tuple[str, Sequence[Row]]],
    settings: Settings,
    encode: Callable[[Sequence[str]], Vectors] = encode_texts,
) -> Collection:
    """Run the six steps.

    Args:
        sources: name, n-gram length and rows of each source; earlier sources win over later ones.
        benchmarks: name and rows of each test set to keep out.
        settings: thresholds and rules.
        encode: gives the embeddings `[n, d]` of texts, float32, of length 1.

    Raises:
        InputError: no row is left.
    """
    run = _Run(settings)
    tests = [
        Prompt(row["question"], name, row.get("row", position), row["id"])
        for name, rows in benchmarks
        for position, row in enumerate(rows)
    ]
    kept = _per_source(run, sources, tests)
    kept = run.apply("self_tfidf", kept, kept, self_tfidf(_texts(kept), settings.tfidf_threshold))
    vectors = encode([*_texts(kept), *_texts(tests)])
    own, others = vectors[: len(kept)], vectors[len(kept) :]
    drops = self_embedding(own, settings.embedding_threshold)
    own = own[survivors(len(kept), drops, settings.ngram_survivor)]
    kept = run.apply("self_embedding", kept, kept, drops)
    kept = run.apply("test_embedding", kept, tests, decontaminate(own, others, settings.embedding_threshold))
    if not kept:
        raise InputError("collect", "no row is left", "at least one", "look at the reasons of the dropped rows")
    rows = [{"id": str(index), "question": prompt.text, "source": prompt.name} for index, prompt in enumerate(kept)]
    sizes = {name: len(rows) for name, _, rows in sources}
    return Collection(rows, run.dropped, _funnel(sizes, {name: len(rows) for name, rows in benchmarks}, run.dropped))


def _per_source(run: "_Run", sources: Sequence[tuple[str, int, Sequence[Row]]], tests: list[Prompt]) -> list[Prompt]:
    """Steps one to three; gives the kept rows of all sources."""
    settings, pool, holders = run.settings, list(tests), dict[str, int]()
    add_ngrams(holders, _texts(tests), settings.pool_ngram, 0)
    for name, n, rows in sources:
        kept = [Prompt(row["question"], name, row.get("row", position)) for position, row in enumerate(rows)]
        kept = run.apply("self_ngram", kept, kept, self_ngram(_texts(kept), n, settings.ngram_survivor))
        kept = run.apply("pool_ngram", kept, pool, pool_ngram(_texts(kept), holders, settings.pool_ngram))
        drops = pool_tfidf(_texts(kept), _texts(pool), settings.tfidf_threshold)
        kept = run.apply("pool_tfidf", kept, pool, drops)
        add_ngrams(holders, _texts(kept), settings.pool_ngram, len(pool))
        pool += kept
    return pool[len(tests) :]


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


class _Run:
    """Carries out the drops of each step and keeps account of them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dropped: list[Row] = []

    def apply(self, step: str, prompts: list[Prompt], others: list[Prompt], drops: list[Drop]) -> list[Prompt]:
        """Take the dropped rows out of `prompts`; `others` are the rows that they are matched with."""
        for drop in drops:
            matched = others[drop.matched]
            row: Row = prompts[drop.index].reference() | {"step": step, "reason": self.reason(step, drop, matched)}
            row["matched"] = matched.reference()
            if drop.similarity is not None:
                # Further digits differ between machines.
                row["similarity"] = round(drop.similarity, 4)
            if drop.ngram is not None:
                row["ngram"] = drop.ngram
            self.dropped.append(row)
        return [prompts[index] for index in survivors(len(prompts), drops, self.settings.ngram_survivor)]

    def reason(self, step: str, drop: Drop, matched: Prompt) -> str:
        """Why a row goes, in words that many rows share."""
        if drop.ngram is not None:
            return f"word {len(drop.ngram.split())}-gram in common with {matched.label()}"
        tfidf = step.endswith("_tfidf")
        threshold = self.settings.tfidf_threshold if tfidf else self.settings.embedding_threshold
        return f"{'TF-IDF' if tfidf else 'embedding'} cosine >= {threshold:g} with {matched.label()}"


def _funnel(sources: dict[str, int], benchmarks: dict[str, int], dropped: Sequence[Row]) -> Row:
    """Rows left after each step, for each source and in all, and how often each reason was given."""
    lost = Counter((row["source"], row["step"]) for row in dropped)
    table = {}
    for name, rows in sources.items():
        table[name] = {"rows": rows}
        for step in STEPS:
            rows -= lost[name, step]
            table[name][step] = rows
    total = {key: sum(line[key] for line in table.values()) for key in ("rows", *STEPS)}
    reasons: dict[str, Row] = {step: {} for step in STEPS}
    for (step, reason), count in sorted(Counter((row["step"], row["reason"]) for row in dropped).items()):
        reasons[step][reason] = count
    return {"sources": table, "total": total, "benchmarks": benchmarks, "reasons": reasons}
