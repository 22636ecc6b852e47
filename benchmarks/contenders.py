"""The jobs that are compared, and one job measured in a process of its own: `python -m benchmarks.contenders JOB IN OUT`."""

import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks import published
from star1 import dedup, ngrams, tfidf, vectors
from star1.embeddings import Encoder
from star1.matches import Drop
from star1.products import Vectors

Job: TypeAlias = Callable[[Any], Any]

TFIDF, EMBEDDING = 0.6, 0.7
# Rows on which each job is tried before the clock starts: that loads libraries and compiled kernels.
TRIED = 64


def kept(n: int, drops: Sequence[Drop]) -> list[int]:
    """The rows that stay."""
    gone = {drop.index for drop in drops}
    return [row for row in range(n) if row not in gone]


def chosen(indices: Any, bounds: Any) -> list[int]:
    """The greedy choice among neighbours: those of a row are `indices[bounds[row]:bounds[row + 1]]`."""
    stays = np.ones(len(bounds) - 1, np.bool_)
    for row in range(len(stays)):
        near = indices[bounds[row] : bounds[row + 1]]
        stays[row] = not stays[near[near < row]].any()
    return [int(row) for row in np.flatnonzero(stays)]


# --- ours -------------------------------------------------------------------------------------------------------------


def our_ngram(texts: Sequence[str]) -> list[int]:
    """Rows kept by 5-grams."""
    return kept(len(texts), ngrams.self_ngram(ngrams.split(texts), range(len(texts)), 5, "first"))


def our_tfidf(texts: Sequence[str]) -> list[int]:
    """Rows kept by TF-IDF."""
    return kept(len(texts), tfidf.greedy(tfidf.Vocabulary().terms(texts), TFIDF))


def our_vectors(found: Vectors) -> list[int]:
    """Rows kept by embeddings."""
    return kept(len(found), vectors.greedy(found, EMBEDDING))


def our_joins(texts: Sequence[str]) -> list[int]:
    """Both joins over all rows."""
    return [*our_ngram(texts), *our_tfidf(texts)]


def our_text_steps(sets: Any) -> list[int]:
    """Steps one to four of a collection, with reasons and records of what is dropped."""
    sources, benchmarks = rows_of(sets)
    prompts, tests = dedup.all_prompts(sources, benchmarks)
    ledger = dedup.Ledger(dedup.Settings(), prompts)
    rows, terms, _ = dedup.per_source(ledger, sources, tests)
    return ledger.apply("self_tfidf", rows, rows, tfidf.greedy(terms.take(rows), TFIDF))


def our_collect(sets: Any) -> list[tuple[str, str]]:
    """All steps."""
    sources, benchmarks = rows_of(sets)
    result = dedup.collect(sources, benchmarks, dedup.Settings(ngram_survivor="as_published"), Encoder().encode)
    return [(row["source"], row["question"]) for row in result.rows]


def our_encode(data: Any) -> Any:
    """Vectors of texts, kept in a cache."""
    return Encoder(Path(data["cache"]) if data["cache"] else None).encode(data["texts"])


def our_encode_again(data: Any) -> Any:
    """The same when all are in the cache."""
    encoder = Encoder(Path(data["cache"]) if data["cache"] else None)
    found = encoder.encode(data["texts"])
    if data["cache"] and encoder.embedded:
        raise AssertionError(f"{encoder.embedded} texts embedded again; expected 0")
    return found


def rows_of(sets: Any) -> dedup.Sets:
    """Sources and benchmarks as rows."""
    sources = [(name, n, [{"question": text} for text in texts]) for name, n, texts in sets["sources"]]
    tests = [
        (name, [{"question": text, "id": str(row)} for row, text in enumerate(texts)]) for name, texts in sets["tests"]
    ]
    return sources, tests


# --- the published way and libraries ----------------------------------------------------------------------------------


def published_collect(sets: Any) -> list[tuple[str, str]]:
    """All steps."""
    tests = [text for _, texts in sets["tests"] for text in texts]
    return published.collect(sets["sources"], tests, published.encoder())


def masked_tfidf(texts: Sequence[str]) -> list[int]:
    """The published matrix with the best loop over it."""
    return published.accepted_at_once(published.tfidf_matrix(texts), TFIDF)


def masked_vectors(found: Any) -> list[int]:
    """The published matrix with the best loop over it."""
    from sklearn.metrics.pairwise import cosine_similarity

    return published.accepted_at_once(cosine_similarity(found), EMBEDDING)


def sparse_dot_topn_tfidf(texts: Sequence[str]) -> list[int]:
    """scikit-learn's matrix, all products above the threshold, greedy choice."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sparse_dot_topn import sp_matmul_topn

    matrix = TfidfVectorizer().fit_transform(texts).tocsr()
    near = sp_matmul_topn(matrix, matrix.T.tocsr(), top_n=len(texts), threshold=TFIDF, sort=False)
    return chosen(near.indices, near.indptr)


def scipy_tfidf(texts: Sequence[str]) -> list[int]:
    """scikit-learn's matrix, sparse products of 1,000 rows at a time, greedy choice."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    matrix = TfidfVectorizer().fit_transform(texts).tocsr()
    indices, bounds = [np.zeros(0, np.int64)], [0]
    for start in range(0, len(texts), 1000):
        near = (matrix[start : start + 1000] @ matrix.T).tocsr()
        hits = near.data >= TFIDF
        left = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))[hits]
        indices.append(near.indices[hits])
        bounds += (bounds[-1] + np.cumsum(np.bincount(left, minlength=near.shape[0]))).tolist()
    return chosen(np.concatenate(indices), bounds)


def faiss_vectors(found: Any) -> list[int]:
    """An exact index, all pairs above the threshold, greedy choice."""
    import faiss

    index = faiss.IndexFlatIP(found.shape[1])
    index.add(found)
    bounds, _, indices = index.range_search(found, EMBEDDING)
    return chosen(indices, bounds.astype(np.int64))


def semhash_vectors(found: Any, backend: str = "usearch") -> list[int]:
    """SemHash on the given vectors, with its default index, which is approximate."""
    from semhash import SemHash

    names: Any = [str(row) for row in range(len(found))]
    model: Any = None
    hashed = SemHash.from_embeddings(found, names, model, ann_backend=backend)
    return sorted(int(name) for name in hashed.self_deduplicate(EMBEDDING).selected)


JOBS: dict[str, Job] = {
    "ngram": our_ngram,
    "tfidf": our_tfidf,
    "vectors": our_vectors,
    "joins": our_joins,
    "text steps": our_text_steps,
    "collect": our_collect,
    "encode": our_encode,
    "encode again": our_encode_again,
    "published tfidf": lambda texts: published.self_tfidf(texts, TFIDF),
    "masked tfidf": masked_tfidf,
    "published vectors": lambda found: published.self_embedding(found, EMBEDDING),
    "masked vectors": masked_vectors,
    "published encode": lambda data: published.encoder()(data["texts"]),
    "published collect": published_collect,
    "sparse_dot_topn": sparse_dot_topn_tfidf,
    "scipy": scipy_tfidf,
    "faiss": faiss_vectors,
    "semhash": semhash_vectors,
    "semhash exact": lambda found: semhash_vectors(found, "basic"),
}


# --- one job, measured ------------------------------------------------------------------------------------------------


def few(data: Any) -> Any:
    """A few rows of the input of any job."""
    if not isinstance(data, dict):
        return data[:TRIED]
    if "texts" in data:
        return {"texts": data["texts"][:TRIED], "cache": None}
    return {
        "sources": [(name, n, texts[:TRIED]) for name, n, texts in data["sources"][:2]],
        "tests": [(name, texts[:TRIED]) for name, texts in data["tests"]],
    }


def memory(field: str) -> float:
    """Memory of this process [MB]: `VmHWM` at most so far, `VmRSS` now. Unlike `ru_maxrss`, nothing of its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def cpu() -> float:
    """CPU-seconds of this process, its threads and its children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def read(path: Path) -> Any:
    """An array, or what JSON gives."""
    return np.load(path) if path.suffix == ".npy" else json.loads(path.read_text())


def main(name: str, source: str, target: str) -> None:
    """Run a job on an input file; write its result and its figures."""
    job, path = JOBS[name], Path(target)
    job(few(read(Path(source).with_suffix(f".few{Path(source).suffix}"))))
    tried, high, base = cpu(), memory("VmHWM"), memory("VmRSS")
    with contextlib.suppress(OSError):  # what the trial took at most is not the job's
        Path("/proc/self/clear_refs").write_text("5")
    data = read(Path(source))
    start = cpu()
    result = job(data)
    spent, most = cpu() - start, memory("VmHWM")
    figures: dict[str, Any] = {"cpu": spent, "tried": tried, "over": most - base, "peak": max(most, high)}
    if isinstance(result, np.ndarray):
        np.save(path.with_suffix(".npy"), result)
    else:
        figures["result"] = result
    path.write_text(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
