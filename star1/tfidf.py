"""Rows with like words: exact TF-IDF cosine joins over an inverted index, in memory that grows with the number of words.

A row is a vector of length 1 over its words, sorted here from the rarest word to the most frequent. The index holds of
each row only the words before the point from which the rest of the vector is shorter than the threshold: two rows with a
cosine at the threshold have one of those words in common, on both sides. A pair that meets there first at a word with
weights v and w, and whose rests behind it have lengths r and s, has a cosine of at most vw + rs; where that reaches the
threshold, the cosine itself is computed, summed in the order of word numbers, and decides.

Source: prefix filtering as in Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", WWW 2007; weights as of
scikit-learn's TfidfVectorizer with its defaults.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from star1.kernels import compiled, cores, in_threads
from star1.matches import TIE, Drop, Floats, Indices, Pairs
from star1.ngrams import Numbers
from star1.progress import track

# What scikit-learn's vectoriser takes for a word.
WORD = re.compile(r"\b\w\w+\b")
BLOCK = 4096
# Bounds are computed in another order than the cosine; they let through what is this close.
SLACK = 1e-6


class Terms(NamedTuple):
    """The words of rows, and how often each row holds them.

    Attributes:
        starts: where each row starts in the two others `[n + 1]`.
        words: word numbers, ascending within a row `[entries]`.
        counts: how often the row holds the word `[entries]`.
    """

    starts: Indices
    words: Numbers
    counts: Numbers

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, rows: Sequence[int] | Indices) -> "Terms":
        """These rows, in this order."""
        rows = np.asarray(rows, np.int64)
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        entries = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return Terms(starts, self.words[entries], self.counts[entries])

    def joined(self, other: "Terms") -> "Terms":
        """These rows and then those of `other`."""
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return Terms(starts, *(np.concatenate(pair) for pair in zip(self[1:], other[1:], strict=True)))


class Vocabulary:
    """Numbers words as they come."""

    def __init__(self) -> None:
        self.numbers: defaultdict[str, int] = defaultdict()
        self.numbers.default_factory = self.numbers.__len__

    def terms(self, texts: Sequence[str]) -> Terms:
        """The words of texts; new ones get new numbers."""
        flat, starts = array("i"), np.zeros(len(texts) + 1, np.int64)
        for row, text in enumerate(texts):
            flat.extend(map(self.numbers.__getitem__, WORD.findall(text.lower())))
            starts[row + 1] = len(flat)
        size = max(len(self.numbers), 1)
        keys = np.repeat(np.arange(len(texts)) * size, np.diff(starts)) + np.array(flat, np.int64)
        keys, counts = np.unique(keys, return_counts=True)
        starts = np.searchsorted(keys, np.arange(len(texts) + 1) * size)
        return Terms(starts, (keys % size).astype(np.int32), counts.astype(np.int32))


class Vectors(NamedTuple):
    """Rows of length 1 (or 0) over their words.

    Attributes:
        starts: where each row starts `[n + 1]`.
        words: word numbers, ascending within a row `[entries]`.
        weights: TF-IDF weights `[entries]`.
        frequency: in how many rows each word is `[words]`.
    """

    starts: Indices
    words: Numbers
    weights: Floats
    frequency: Indices


def weigh(terms: Terms) -> Vectors:
    """TF-IDF weights fitted on these rows: count x (1 + ln((1 + n) / (1 + rows with the word))), rows scaled to length 1."""
    frequency = np.bincount(terms.words, minlength=1)
    inverse = 1 + np.log((1 + len(terms)) / (1 + frequency))
    weights = terms.counts * inverse[terms.words]
    length = np.sqrt(np.bincount(_row_of(terms.starts), weights * weights, minlength=len(terms)))
    return Vectors(terms.starts, terms.words, weights / np.repeat(length, np.diff(terms.starts)), frequency)


def _row_of(starts: Indices) -> Indices:
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))


class Index:
    """Vectors, and an inverted index over the rare words of those that were added.

    Args:
        vectors: all rows there will be.
        threshold: smallest cosine that is looked for.
        threads: how many threads look at once; what is found does not depend on it.
    """

    def __init__(self, vectors: Vectors, threshold: float, threads: int | None = None) -> None:
        self.vectors, self.floor, self.threads = vectors, threshold - TIE, threads or cores()
        rank = np.empty(len(vectors.frequency), np.int64)
        rank[np.argsort(vectors.frequency, kind="stable")] = np.arange(len(rank))
        # Sorting in numpy: numba's own sort takes seconds to compile.
        order = np.lexsort((rank[vectors.words], _row_of(vectors.starts)))
        self.prefixes = _prefixes(vectors.starts, vectors.words[order], vectors.weights[order], threshold - SLACK)
        sizes = (
            np.bincount(self.prefixes[1], minlength=len(rank)) if len(self.prefixes[1]) else np.zeros(len(rank), int)
        )
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        self.postings = (
            bounds,
            bounds[:-1].copy(),
            np.empty(bounds[-1], np.int32),
            np.empty(bounds[-1]),
            np.empty(bounds[-1]),
        )
        n = len(vectors.starts) - 1
        self.scratch = [(np.full(n, -1, np.int32), np.zeros(len(rank))) for _ in range(self.threads)]

    def add(self, low: int, high: int, skip: NDArray[np.bool_] | None = None) -> None:
        """Add the rows from `low` to `high` but those to skip; rows must come in order."""
        left_out = np.full(high - low, -1, np.int64) if skip is None else skip[low:high].astype(np.int64) - 1
        _add(low, high, left_out, self.prefixes, self.postings)

    def first(self, low: int, high: int) -> tuple[Indices, Floats]:
        """For each row from `low` to `high`: the first added row that it is like, or -1, and their cosine."""
        matched, cosine = np.full(high - low, -1, np.int64), np.zeros(high - low)

        def look(thread: int, start: int, stop: int) -> None:
            into = slice(start - low, stop - low)
            places = (matched[into], cosine[into], *self.scratch[thread])
            _first(start, stop, self.floor, self.vectors[:3], self.prefixes, self.postings, *places)

        in_threads(look, low, high, self.threads)
        return matched, cosine

    def settle(self, low: int, high: int, matched: Indices, cosine: Floats) -> None:
        """Decide the unmatched rows from `low` to `high` in order among themselves: match them, or add them."""
        places = (matched, cosine, *self.scratch[0])
        _settle(low, high, self.floor, self.vectors[:3], self.prefixes, self.postings, *places)

    def all(self, low: int, high: int) -> Pairs:
        """All pairs of a row from `low` to `high` and an added row before it."""
        parts: list[Pairs] = [Pairs.none()] * self.threads

        def look(thread: int, start: int, stop: int) -> None:
            found = _all(start, stop, self.floor, self.vectors[:3], self.prefixes, self.postings, *self.scratch[thread])
            left, right, cosine = found
            order = np.lexsort((right, left))
            parts[thread] = Pairs(left[order], right[order], cosine[order])

        in_threads(look, low, high, self.threads)
        return Pairs.joined(parts)


def greedy(terms: Terms, threshold: float, threads: int | None = None) -> list[Drop]:
    """Rows with a cosine >= threshold with an earlier row that stays, matched with the first such row.

    A cosine less than 1e-9 below the threshold reaches it. A row without a word is like nothing.
    """
    index, drops = Index(weigh(terms), threshold, threads), list[Drop]()
    for low in track(range(0, len(terms), BLOCK), "self_tfidf", -(-len(terms) // BLOCK), "blocks"):
        high = min(low + BLOCK, len(terms))
        matched, cosine = index.first(low, high)
        index.settle(low, high, matched, cosine)
        drops += _drops(low, matched, cosine)
    return drops


def against(pool: Terms, terms: Terms, threshold: float, threads: int | None = None) -> list[Drop]:
    """Rows with a cosine >= threshold with a row of the pool, matched with the first such row.

    The weights are fitted on the pool and the rows. A cosine less than 1e-9 below the threshold reaches it.
    """
    index, drops = Index(weigh(pool.joined(terms)), threshold, threads), list[Drop]()
    index.add(0, len(pool))
    for low in track(range(0, len(terms), BLOCK), "pool_tfidf", -(-len(terms) // BLOCK), "blocks"):
        high = min(low + BLOCK, len(terms))
        drops += _drops(low, *index.first(len(pool) + low, len(pool) + high))
    return drops


def pairs_against(texts: Sequence[str], others: Sequence[str], threshold: float) -> Pairs:
    """All pairs of one of the texts and one of the others with a cosine >= threshold; weights are fitted on both."""
    vocabulary = Vocabulary()
    terms = vocabulary.terms(others).joined(vocabulary.terms(texts))
    index = Index(weigh(terms), threshold)
    index.add(0, len(others))
    pairs = index.all(len(others), len(terms))
    return Pairs(pairs.left - len(others), pairs.right, pairs.similarity)


def copies(terms: Terms) -> NDArray[np.bool_]:
    """Which rows have just the words of an earlier row `[n]`; rows without a word are nobody's copies.

    In a greedy choice a copy always goes, and whatever is like it is like the earlier row.
    """
    seen: set[tuple[bytes, bytes]] = set()
    found = np.zeros(len(terms), np.bool_)
    for row, (start, stop) in enumerate(pairwise(terms.starts.tolist())):
        key = terms.words[start:stop].tobytes(), terms.counts[start:stop].tobytes()
        found[row] = key in seen and stop > start
        seen.add(key)
    return found


def pairs_within(
    terms: Terms,
    rows: range,
    threshold: float,
    threads: int | None = None,
    skip: NDArray[np.bool_] | None = None,
) -> Pairs:
    """All pairs of one of `rows` and an earlier row with a cosine >= threshold, as in `greedy`: a part of a self-join.

    Args:
        terms: the words of all rows, on which the weights are fitted.
        rows: the later rows of the pairs.
        threshold: smallest cosine; one less than 1e-9 below reaches it.
        threads: how many threads look at once.
        skip: rows that are not looked for as the earlier row, such as `copies` `[n]`.
    """
    index = Index(weigh(terms), threshold, threads)
    index.add(0, rows.stop, skip)
    return index.all(rows.start, rows.stop)


def _drops(start: int, matched: Indices, cosine: Floats) -> list[Drop]:
    return [Drop(start + row, int(matched[row]), float(cosine[row])) for row in np.flatnonzero(matched >= 0).tolist()]


# --- kernels ----------------------------------------------------------------------------------------------------------
# Rows: (starts, words, weights). Prefixes: (starts, words, weights, rests), rarest word first. Postings: (where each word's
# begin, where its next goes, row, weight, rest), in the order in which rows were added, which ascends.

Rows = tuple[Indices, Numbers, Floats]
Prefixes = tuple[Indices, Numbers, Floats, Floats]
Postings = tuple[Indices, Indices, Numbers, Floats, Floats]


@compiled
def _prefixes(starts: Indices, words: Numbers, weights: Floats, least: float) -> Prefixes:
    """Of rows whose words come rarest first: the words before the rest of the row is shorter than `least`."""
    n = len(starts) - 1
    found = np.zeros(n + 1, np.int64)
    rest = np.empty_like(weights)
    kept = np.zeros(len(words), np.bool_)
    for row in range(n):
        behind = 0.0
        found[row + 1] = found[row]
        for place in range(starts[row + 1] - 1, starts[row] - 1, -1):
            # From the most frequent word: as long as what lies from here on is too short, it is left out.
            rest[place] = np.sqrt(behind)
            behind += weights[place] * weights[place]
            if np.sqrt(behind) >= least:
                kept[place] = True
                found[row + 1] += 1
    return found, words[kept], weights[kept], rest[kept]


@compiled
def _add(low: int, high: int, matched: Indices, prefixes: Prefixes, postings: Postings) -> None:
    """Add the rows that are not matched."""
    starts, words, weights, rests = prefixes
    _, ends, rows, posted, behind = postings
    for row in range(low, high):
        if matched[row - low] < 0:
            for place in range(starts[row], starts[row + 1]):
                end = ends[words[place]]
                rows[end], posted[end], behind[end] = row, weights[place], rests[place]
                ends[words[place]] = end + 1


@compiled
def _spread(row: int, vectors: Rows, dense: Floats, clear: bool) -> None:
    starts, words, weights = vectors
    for place in range(starts[row], starts[row + 1]):
        dense[words[place]] = 0.0 if clear else weights[place]


@compiled
def _cosine(row: int, vectors: Rows, dense: Floats) -> float:
    """The cosine of a row with the one that was spread out; words that the other lacks add nothing, exactly."""
    starts, words, weights = vectors
    total = 0.0
    for place in range(starts[row], starts[row + 1]):
        total += weights[place] * dense[words[place]]
    return total


@compiled
def _nearest(
    row: int,
    since: int,
    floor: float,
    vectors: Rows,
    prefixes: Prefixes,
    postings: Postings,
    seen: Numbers,
    dense: Floats,
) -> tuple[np.int64, float]:
    """The first added row, not before `since`, that a row is like, or -1."""
    starts, words, weights, rests = prefixes
    begins, ends, rows, posted, behind = postings
    best, found, spread = np.int64(-1), 0.0, False
    for place in range(starts[row], starts[row + 1]):
        word, weight, rest = words[place], weights[place], rests[place]
        for entry in range(ends[word] - 1, begins[word] - 1, -1):
            other = rows[entry]
            if other < since:
                break
            if seen[other] == row or (best >= 0 and other > best):
                continue
            seen[other] = row
            if weight * posted[entry] + rest * behind[entry] < floor - SLACK:
                continue
            if not spread:
                _spread(row, vectors, dense, False)
                spread = True
            value = _cosine(other, vectors, dense)
            if value >= floor:
                best, found = np.int64(other), value
    if spread:
        _spread(row, vectors, dense, True)
    return best, found


@compiled
def _first(
    low: int,
    high: int,
    floor: float,
    vectors: Rows,
    prefixes: Prefixes,
    postings: Postings,
    matched: Indices,
    cosine: Floats,
    seen: Numbers,
    dense: Floats,
) -> None:
    for row in range(low, high):
        best, value = _nearest(row, 0, floor, vectors, prefixes, postings, seen, dense)
        matched[row - low], cosine[row - low] = best, value


@compiled
def _settle(
    low: int,
    high: int,
    floor: float,
    vectors: Rows,
    prefixes: Prefixes,
    postings: Postings,
    matched: Indices,
    cosine: Floats,
    seen: Numbers,
    dense: Floats,
) -> None:
    for row in range(low, high):
        place = row - low
        if matched[place] < 0:
            best, value = _nearest(row, low, floor, vectors, prefixes, postings, seen, dense)
            matched[place], cosine[place] = best, value
            _add(row, row + 1, matched[place : place + 1], prefixes, postings)


@compiled
def _all(
    low: int,
    high: int,
    floor: float,
    vectors: Rows,
    prefixes: Prefixes,
    postings: Postings,
    seen: Numbers,
    dense: Floats,
) -> tuple[Indices, Indices, Floats]:
    starts, words, weights, rests = prefixes
    begins, ends, rows, posted, behind = postings
    size = 0
    left, right, cosine = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024)
    for row in range(low, high):
        _spread(row, vectors, dense, False)
        for place in range(starts[row], starts[row + 1]):
            word, weight, rest = words[place], weights[place], rests[place]
            for entry in range(begins[word], ends[word]):
                other = rows[entry]
                if other >= row:
                    break
                if seen[other] == row:
                    continue
                seen[other] = row
                if weight * posted[entry] + rest * behind[entry] < floor - SLACK:
                    continue
                value = _cosine(other, vectors, dense)
                if value >= floor:
                    if size == len(left):
                        left = np.concatenate((left, np.empty_like(left)))
                        right = np.concatenate((right, np.empty_like(right)))
                        cosine = np.concatenate((cosine, np.empty_like(cosine)))
                    left[size], right[size], cosine[size] = row, other, value
                    size += 1
        _spread(row, vectors, dense, True)
    return left[:size].copy(), right[:size].copy(), cosine[:size].copy()
