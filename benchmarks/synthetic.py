"""Made-up prompts and vectors for benchmarks: seeded, in any number, with near-duplicates planted."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from star1.products import Vectors

SEED = 1
# Share of the rows made from an earlier one, and of these the share that is an exact copy.
PLANTED, COPIES = 0.25, 0.2
# Share of the vectors that lie around an earlier one, some too far to be alike.
AROUND = 0.5
WORDS, STEMS, LONGEST = 200_000, 60, 120
SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvwz" for vowel in "aeiou"]


def _words() -> list[str]:
    """Made-up words, the most frequent first: as in any language these are the short ones."""
    words = list(SYLLABLES)
    for head in words:
        if len(words) >= WORDS:
            break
        words += [head + syllable for syllable in SYLLABLES]
    return words[:WORDS]


def _original(random: np.random.Generator, count: int, sums: NDArray[np.float64]) -> list[list[int]]:
    """Rows of word numbers; four in ten begin with one of a few stems of frequent words."""
    lengths = np.clip(random.lognormal(2.5, 0.5, count), 3, LONGEST).astype(int)
    flat = np.searchsorted(sums, random.random(int(lengths.sum()))).tolist()
    stems = [np.searchsorted(sums, random.random(4) * sums[2000]).tolist() for _ in range(STEMS)]
    chosen = np.where(random.random(count) < 0.4, random.integers(0, STEMS, count), -1).tolist()
    rows, start = [], 0
    for length, stem in zip(lengths.tolist(), chosen, strict=True):
        rows.append((stems[stem] if stem >= 0 else []) + flat[start : start + length])
        start += length
    return rows


def _changed(row: list[int], kind: int, place: float, word: int) -> list[int]:
    """A near-duplicate: a word replaced, added or left out, two halves swapped, or a few words put behind."""
    at = int(place * len(row))
    if kind == 0:
        return [*row[:at], word, *row[at + 1 :]]
    if kind == 1:
        return [*row[:at], word, *row[at:]]
    if kind == 2:
        return row[:at] + row[at + 1 :] if len(row) > 3 else row
    if kind == 3:
        return row[at:] + row[:at]
    return [*row, word, word // 2, word // 3]


def prompts(count: int) -> list[str]:
    """Texts of made-up words by Zipf's law, about 14 words each; a quarter are copies or near-duplicates of earlier ones."""
    random, words = np.random.default_rng(SEED), _words()
    sums = np.cumsum(1 / np.arange(2, len(words) + 2) ** 1.05)
    sums /= sums[-1]
    rows = _original(random, count, sums)
    planted = random.random(count)
    kinds, places = random.integers(0, 5, count).tolist(), random.random(count).tolist()
    others, added = random.random(count).tolist(), np.searchsorted(sums, random.random(count)).tolist()
    for row in np.flatnonzero(planted < PLANTED).tolist():
        if row:
            source = rows[int(others[row] * row)]
            copied = planted[row] < PLANTED * COPIES
            rows[row] = source if copied else _changed(source, kinds[row], places[row], added[row])
    return [" ".join([words[number] for number in row]) for row in rows]


def vectors(count: int, size: int = 384, even: bool = False) -> Vectors:
    """Vectors of length 1, like embeddings of real prompts in two ways: spread and near-duplicates.

    Four fifths of their squared length lie along a third of the axes (of the real ones: 83 %), and at a threshold of 0.7
    three in ten go (of the real ones: a third). If `even`, all axes count alike: no part of a vector tells much of the whole.
    """
    random = np.random.default_rng(SEED)
    spread = np.exp(-np.arange(size) / (size / 4.5)).astype(np.float32) if not even else np.ones(size, np.float32)
    found: Vectors = random.standard_normal((count, size)).astype(np.float32) * np.sqrt(spread)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    turned, _ = np.linalg.qr(random.standard_normal((size, size)))
    for row in np.flatnonzero(random.random(count) < AROUND).tolist():
        if row:  # cosines from about 0.5 to 1
            found[row] = found[int(random.random() * row)] + random.random() * 1.6 * found[row]
            found[row] /= np.linalg.norm(found[row])
    return found @ turned.astype(np.float32)


def sets(count: int) -> tuple[list[tuple[str, int, list[str]]], list[tuple[str, list[str]]]]:
    """Eighteen sources of growing size and a test set: name, n-gram length and texts; name and texts."""
    texts = prompts(count + max(count // 250, 8))
    sizes = np.linspace(1, 18, 18)
    edges = (np.concatenate([[0], np.cumsum(sizes)]) / sizes.sum() * count).astype(int).tolist()
    sources = [(f"set{number}", 8 - number // 6, texts[edges[number] : edges[number + 1]]) for number in range(18)]
    return sources, [("tests", texts[count:])]


def mean_words(texts: Sequence[str]) -> float:
    """How many words a text has on average."""
    return sum(len(text.split()) for text in texts) / max(len(texts), 1)
