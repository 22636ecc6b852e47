"""The joins of `collect` in parts, for corpora past one machine: the same result as in one go, whatever the number of parts.

`collect_pool` runs the steps source by source. Each part then encodes its share of the kept rows, and lists, for its
block of rows, the pairs with all earlier rows: of TF-IDF vectors, of embeddings, and of embeddings with the benchmarks.
`collect` decides in the order of the rows, which takes no time once the pairs are known.
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from star1 import matches, tfidf, vectors
from star1.dedup import Collection, Ledger, Sets, Settings, Vectors, all_prompts, finish, per_source
from star1.errors import InputError
from star1.matches import Drop, Indices, Pairs
from star1.records import Row, read_json

# What numpy says of a file that is cut off, or another kind of file.
UNREADABLE = (ValueError, KeyError, EOFError, zipfile.BadZipFile)
JOINS = ("self_tfidf", "self_embedding", "test_embedding")
COLUMNS = ("left", "right", "similarity")


def pool(sets: Sets, settings: Settings) -> Row:
    """Steps one to three: the numbers of the kept rows, what was dropped, how the n-gram survivors differ, and costs."""
    prompts, tests = all_prompts(*sets)
    ledger = Ledger(settings, prompts)
    kept, _, differences = per_source(ledger, sets[0], tests)
    return {"kept": kept, "dropped": ledger.dropped, "ngram_survivors": differences, "costs": ledger.costs.steps}


def even(n: int, part: int, parts: int) -> range:
    """Part number `part` (from 0) of `n` rows, for work that grows with the rows."""
    return range(n * part // parts, n * (part + 1) // parts)


def triangular(n: int, part: int, parts: int) -> range:
    """The same for work that grows with the pairs of a row and an earlier one."""
    low, high = (round(n * math.sqrt(edge / parts)) for edge in (part, part + 1))
    return range(low, high)


def part_of_vectors(
    sets: Sets, kept: Sequence[int], part: int, parts: int, encode: Callable[[Sequence[str]], Vectors]
) -> Vectors:
    """The embeddings of one part of the kept rows and the benchmarks."""
    prompts, tests = all_prompts(*sets)
    rows = [*kept, *range(tests)]
    return encode([prompts[rows[place]].text for place in even(len(rows), part, parts)])


def part_of_pairs(sets: Sets, settings: Settings, kept: Sequence[int], encoded: Vectors, part: int, parts: int) -> Row:
    """The pairs of one block of the kept rows: columns by join.

    Args:
        sets: sources and benchmarks.
        settings: thresholds.
        kept: numbers of the rows that the first steps kept.
        encoded: embeddings of these rows and then of the benchmarks `[n, d]`.
        part: which part, from 0.
        parts: how many there are.
    """
    prompts, _ = all_prompts(*sets)
    terms = tfidf.Vocabulary().terms([prompts[number].text for number in kept])
    rows, copies = triangular(len(kept), part, parts), tfidf.copies(terms)
    found = {"self_tfidf": tfidf.pairs_within(terms, rows, settings.tfidf_threshold, skip=copies)}
    # A copy goes at the step before, so the join of embeddings is one of the others.
    own = np.flatnonzero(~copies)
    low, high = np.searchsorted(own, [rows.start, rows.stop]).tolist()
    pairs = vectors.pairs_within(encoded[own], range(low, high), settings.embedding_threshold)
    found["self_embedding"] = Pairs(own[pairs.left], own[pairs.right], pairs.similarity)
    drops = vectors.against(encoded[rows.start : rows.stop], encoded[len(kept) :], settings.embedding_threshold)
    found["test_embedding"] = Pairs(
        np.array([drop.index + rows.start for drop in drops], np.int64),
        np.array([drop.matched for drop in drops], np.int64),
        np.array([drop.similarity for drop in drops], np.float64),
    )
    return {f"{join}_{column}": getattr(found[join], column) for join in JOINS for column in COLUMNS}


def write_vectors(path: Path, encoded: Vectors) -> None:
    """Write embeddings as `.npy`, under their name only when they are whole."""
    _write(path, lambda file: np.save(file, encoded))


def write_pairs(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write the columns of `part_of_pairs` as `.npz`, under their name only when they are whole."""
    _write(path, lambda file: np.savez(file, allow_pickle=False, **columns))


def _write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        save(file)
    temporary.replace(path)


def read_vectors(paths: Sequence[Path]) -> Vectors:
    """The embeddings of all parts.

    Raises:
        InputError: a file is not what `write_vectors` wrote.
    """
    try:
        return np.concatenate([np.load(path) for path in paths])
    except UNREADABLE as error:
        raise InputError(paths[0].parent, f"embeddings not readable ({error})", "what collect_vectors writes") from None


def read_pairs(paths: Sequence[Path]) -> dict[str, Pairs]:
    """The pairs of all parts by join.

    Raises:
        InputError: a file is not what `part_of_pairs` gave.
    """
    parts: dict[str, list[Pairs]] = {join: [] for join in JOINS}
    for path in paths:
        try:
            with np.load(path) as columns:
                for join in JOINS:
                    parts[join].append(Pairs(*(columns[f"{join}_{column}"] for column in COLUMNS)))
        except UNREADABLE as error:
            raise InputError(path, f"not readable ({error})", "pairs as collect_pairs writes them") from None
    return {join: Pairs.joined(found) for join, found in parts.items()}


def gather(sets: Sets, settings: Settings, pooled: Row, pairs: dict[str, Pairs]) -> Collection:
    """Decide steps four to six from the pairs of all parts.

    Raises:
        InputError: no row is left.
    """
    prompts, tests = all_prompts(*sets)
    ledger = Ledger(settings, prompts)
    ledger.dropped, ledger.costs.steps = list(pooled["dropped"]), dict(pooled["costs"])
    numbers: list[int] = pooled["kept"]
    n, order = len(numbers), list(range(len(numbers)))
    rows = dict(zip(numbers, order, strict=True))

    def apply(step: str, drops: Sequence[Drop], others: Sequence[int]) -> None:
        kept = ledger.apply(step, [numbers[place] for place in order], others, drops)
        order[:] = [rows[number] for number in kept]

    apply("self_tfidf", matches.greedy(pairs["self_tfidf"], n), numbers)
    drops = matches.greedy(_renumbered(pairs["self_embedding"], order, n), len(order))
    apply("self_embedding", drops, [numbers[place] for place in order])
    places = _places(order, n)
    near = [drop for drop in matches.first(pairs["test_embedding"]) if places[drop.index] >= 0]
    drops = sorted(
        (Drop(int(places[drop.index]), drop.matched, drop.similarity) for drop in near), key=lambda drop: drop.index
    )
    apply("test_embedding", drops, range(tests))
    return finish(ledger, [numbers[place] for place in order], *sets, pooled["ngram_survivors"])


def _places(order: Sequence[int], n: int) -> Indices:
    """Where each of `n` rows stands in `order`, or -1."""
    places = np.full(n, -1, np.int64)
    places[np.asarray(order, np.int64)] = np.arange(len(order))
    return places


def _renumbered(pairs: Pairs, order: Sequence[int], n: int) -> Pairs:
    """The pairs of the rows in `order`, with their places there as numbers; the later of two is the left one."""
    places = _places(order, n)
    one, other = places[pairs.left], places[pairs.right]
    both: NDArray[np.bool_] = (one >= 0) & (other >= 0)
    left, right = np.maximum(one, other)[both], np.minimum(one, other)[both]
    sorting = np.lexsort((right, left))
    return Pairs(left[sorting], right[sorting], pairs.similarity[both][sorting])


def read_pool(path: Path) -> Row:
    """What `pool` gave.

    Raises:
        InputError: the file is something else.
    """
    pooled = read_json(path)
    if not isinstance(pooled, dict) or not {"kept", "dropped", "ngram_survivors", "costs"} <= {*pooled}:
        raise InputError(path, "other keys", "what collect_pool writes")
    return pooled
