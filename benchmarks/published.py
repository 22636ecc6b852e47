"""The published way of the six steps, written out from its description: dense matrices, and a loop over accepted rows.

Only the files between the steps are left out. For comparison in benchmarks and nothing else.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

Encode: TypeAlias = Callable[[Sequence[str]], Any]


def ngrams_of(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of a text's words."""
    words = text.lower().split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def self_ngram(texts: Sequence[str], n: int) -> list[int]:
    """Rows kept: of the rows with one n-gram in common, the one that `set.pop` gives."""
    holders: dict[tuple[str, ...], set[int]] = {}
    for row, text in enumerate(texts):
        for ngram in ngrams_of(text, n):
            holders.setdefault(ngram, set()).add(row)
    removed: set[int] = set()
    for rows in holders.values():
        if len(rows) > 1:
            rows.pop()
            removed |= rows
    return list(set(range(len(texts))) - removed)


def pool_ngram(texts: Sequence[str], pool: Sequence[str], n: int) -> list[int]:
    """Rows kept: those without an n-gram of the pool."""
    known = {ngram for text in pool for ngram in ngrams_of(text, n)}
    removed = {row for row, text in enumerate(texts) if any(ngram in known for ngram in ngrams_of(text, n))}
    return list(set(range(len(texts))) - removed)


def pool_tfidf(texts: Sequence[str], pool: Sequence[str], threshold: float) -> list[int]:
    """Rows kept: those unlike every row of the pool."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    if not texts:
        return []
    matrix = TfidfVectorizer().fit_transform([*pool, *texts])
    similarity = cosine_similarity(matrix[len(pool) :], matrix[: len(pool)])
    removed = set(np.flatnonzero((similarity >= threshold).any(axis=1)).tolist())
    return list(set(range(len(texts))) - removed)


def accepted(similarity: Any, threshold: float) -> list[int]:
    """Rows kept one after the other: those unlike every row accepted before."""
    rows: list[int] = []
    for row in range(len(similarity)):
        if not rows or not (similarity[row, rows] >= threshold).any():
            rows.append(row)
    return rows


def accepted_at_once(similarity: Any, threshold: float) -> list[int]:
    """The same with a mask for the rows that were accepted, so that none is listed anew for each row."""
    stays = np.zeros(len(similarity), np.bool_)
    for row in range(len(similarity)):
        stays[row] = not (similarity[row, :row][stays[:row]] >= threshold).any()
    return [int(row) for row in np.flatnonzero(stays)]


def tfidf_matrix(texts: Sequence[str]) -> Any:
    """The cosines of all rows with all rows `[n, n]`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    return cosine_similarity(TfidfVectorizer().fit_transform(texts))


def self_tfidf(texts: Sequence[str], threshold: float) -> list[int]:
    """Rows kept: those unlike every kept row before."""
    return accepted(tfidf_matrix(texts), threshold)


def self_embedding(vectors: Any, threshold: float) -> list[int]:
    """Rows kept: those unlike every kept row before."""
    from sklearn.metrics.pairwise import cosine_similarity

    return accepted(cosine_similarity(vectors), threshold)


def test_embedding(vectors: Any, others: Any, threshold: float) -> list[int]:
    """Rows kept: those unlike every row of the others."""
    from sklearn.metrics.pairwise import cosine_similarity

    removed = set(np.flatnonzero((cosine_similarity(vectors, others) >= threshold).any(axis=1)).tolist())
    return list(set(range(len(vectors))) - removed)


def encoder() -> Encode:
    """The sentence encoder of the published code, with its library's defaults."""
    from sentence_transformers import SentenceTransformer

    from star1.minilm import folder

    model = SentenceTransformer(str(folder()), device="cpu")
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def collect(
    sources: Sequence[tuple[str, int, Sequence[str]]], tests: Sequence[str], encode: Encode
) -> list[tuple[str, str]]:
    """All six steps, which embed the kept rows twice; names and texts of what is kept, in order."""
    pool, rows = list(tests), list[tuple[str, str]]()
    for name, n, texts in sources:
        kept = [texts[row] for row in self_ngram(texts, n)]
        kept = [kept[row] for row in pool_ngram(kept, pool, 8)]
        kept = [kept[row] for row in pool_tfidf(kept, pool, 0.6)]
        pool += kept
        rows += [(name, text) for text in kept]
    rows = [rows[row] for row in self_tfidf([text for _, text in rows], 0.6)]
    rows = [rows[row] for row in self_embedding(encode([text for _, text in rows]), 0.7)]
    kept_rows = test_embedding(encode([text for _, text in rows]), encode(tests), 0.7)
    return [rows[row] for row in kept_rows]
