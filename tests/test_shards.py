"""A collection in parts is the collection in one go."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from star1 import dedup, shards, tfidf
from star1.dedup import Sets, Settings, Vectors, collect
from star1.errors import InputError
from star1.ngrams import Survivor

WORDS = [f"word{number}" for number in range(30)]


def sets(seed: int) -> Sets:
    """Three sources and a benchmark of short texts over few words: near-duplicates, copies and leaks all over."""
    draw = random.Random(seed)

    def rows(n: int) -> list[dict[str, object]]:
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 5))) for _ in range(n)]
        texts[n // 2 :] = [draw.choice(texts) if draw.random() < 0.3 else text for text in texts[n // 2 :]]
        return [{"question": text, "row": number, "id": f"t{number}"} for number, text in enumerate(texts)]

    return [("one", 4, rows(60)), ("two", 4, rows(90)), ("three", 5, rows(40))], [("exam", rows(15))]


def encode(texts: Sequence[str]) -> Vectors:
    """A vector for each text, of the sums of its words' vectors: like texts have like vectors."""
    table = np.random.default_rng(0).standard_normal((len(WORDS), 24)).astype(np.float32)
    summed = np.stack([sum(table[int(word[4:])] for word in text.split()) for text in texts])
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.asarray(summed / lengths, dtype=np.float32)


def in_parts(given: Sets, settings: Settings, parts: int, folder: Path) -> dedup.Collection:
    pooled = shards.pool(given, settings)
    vectors = [folder / f"vectors-{part}.npy" for part in range(parts)]
    pairs = [folder / f"pairs-{part}.npz" for part in range(parts)]
    for part, path in enumerate(vectors):
        shards.write_vectors(path, shards.part_of_vectors(given, pooled["kept"], part, parts, encode))
    for part, path in enumerate(pairs):
        encoded = shards.read_vectors(vectors)
        shards.write_pairs(path, shards.part_of_pairs(given, settings, pooled["kept"], encoded, part, parts))
    return shards.gather(given, settings, pooled, shards.read_pairs(pairs))


@pytest.mark.parametrize("survivor", ["first", "as_published"])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_parts_change_nothing(seed: int, parts: int, survivor: Survivor, tmp_path: Path) -> None:
    given, settings = sets(seed), Settings(ngram_survivor=survivor, tfidf_threshold=0.5, embedding_threshold=0.6)
    whole, parted = collect(*given, settings, encode), in_parts(given, settings, parts, tmp_path)
    assert parted.rows == whole.rows
    assert parted.dropped == whole.dropped
    assert parted.funnel == whole.funnel
    counts = whole.funnel["reasons"]
    assert all(counts[step] for step in ("self_tfidf", "self_embedding", "test_embedding")), counts


def test_an_order_that_is_not_ascending_is_kept_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As published, rows go on in the order of a set, which decides who is the earlier one of two."""
    monkeypatch.setattr(
        dedup, "survivors", lambda n, drops, _: sorted(set(range(n)) - {d.index for d in drops}, reverse=True)
    )
    given, settings = sets(1), Settings(tfidf_threshold=0.5, embedding_threshold=0.6)
    whole, parted = collect(*given, settings, encode), in_parts(given, settings, 3, tmp_path)
    assert (parted.rows, parted.dropped) == (whole.rows, whole.dropped)
    assert len(whole.funnel["reasons"]["self_embedding"]) > 0


@pytest.mark.parametrize("cut", [shards.even, shards.triangular])
def test_parts_are_all_rows_once(cut: object) -> None:
    assert callable(cut)
    for n in (0, 1, 2, 10, 1001):
        for parts in (1, 2, 3, 16):
            assert [row for part in range(parts) for row in cut(n, part, parts)] == list(range(n))


def test_copies_are_rows_with_the_words_of_an_earlier_one() -> None:
    terms = tfidf.Vocabulary().terms(["aa bb", "bb aa", "", "bb", "!", "aa bb bb", "Aa, bb"])
    assert tfidf.copies(terms).tolist() == [False, True, False, False, False, False, True]


@pytest.mark.parametrize("content", [b"{}", b"", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00v"])
def test_files_that_are_no_parts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for read in (shards.read_pool, lambda one: shards.read_pairs([one]), lambda one: shards.read_vectors([one])):
        with pytest.raises(InputError, match="expected"):
            read(path)
