"""Sentence embeddings: each distinct text once, and never again where a cache holds its vector.

The cache is a folder of segments that are only ever added, each in one move: 16 bytes of the SHA-256 of each text and its
vector, and a checksum. So processes may share it, and an end half-way keeps what was embedded. Where two segments hold
the same text, the one written first counts: the vector of a text does not change while the cache is kept.
"""

import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from star1.kernels import cores
from star1.minilm import SIZE, Model, digest
from star1.products import Vectors
from star1.progress import Progress
from star1.records import atomic

# Texts embedded before they are written.
SEGMENT = 8192
KEY = 16
RECORD = np.dtype([("key", np.uint8, KEY), ("vector", "<f4", SIZE)])


def encode(texts: Sequence[str]) -> Vectors:
    """The vectors of texts, `[n, 384]`, float32, of length 1, without a cache."""
    return Encoder().encode(texts)


class Encoder:
    """Embeds texts.

    Attributes:
        embedded: distinct texts embedded so far.
        cached: distinct texts whose vector was in the cache.

    Args:
        cache: folder of caches, one for each model; None for none.
        threads: of the CPU; None for all cores.
    """

    def __init__(self, cache: Path | None = None, threads: int | None = None) -> None:
        self.embedded = self.cached = 0
        self._threads = threads or cores()
        self._cache = cache
        self._segments: Segments | None = None
        self._model: Model | None = None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts, `[n, 384]`, float32, of length 1, a row for each text in order.

        Raises:
            SettingError: the packages of the extra `models` are not installed.
        """
        places: dict[str, int] = {}
        rows = [places.setdefault(text, len(places)) for text in texts]
        vectors = np.empty((len(places), SIZE), np.float32)
        if places:
            self._fill(list(places), vectors)
        return vectors if len(places) == len(rows) else vectors[rows]

    def _fill(self, texts: list[str], vectors: Vectors) -> None:
        """Put the vectors of distinct texts into `vectors`."""
        if self._cache is not None and self._segments is None:
            self._segments = Segments(self._cache / digest()[:KEY])
        keys = [hashlib.sha256(text.encode()).digest()[:KEY] for text in texts]
        found = self._segments.read(keys, vectors) if self._segments else np.zeros(len(texts), np.bool_)
        missing = np.flatnonzero(~found)
        self.cached += len(texts) - len(missing)
        progress = Progress("embed", len(texts), "texts", done=len(texts) - len(missing))
        for start in range(0, len(missing), SEGMENT):
            part = missing[start : start + SEGMENT]
            self._model = self._model or Model(self._threads)
            vectors[part] = self._model.encode([texts[index] for index in part])
            if self._segments:
                self._segments.write([keys[index] for index in part], vectors[part])
            self.embedded += len(part)
            progress.add(len(part))
        progress.close()


class Segments:
    """The vectors kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, keys: Sequence[bytes], vectors: Vectors) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Put the vectors that are known into their rows; gives which these are."""
        rows = {key: row for row, key in enumerate(keys)}
        for path in sorted(self.folder.glob("*.vectors")):
            records = _records(path)
            places = [rows.pop(key.tobytes(), -1) for key in records["key"]]
            hits = np.flatnonzero(np.array(places, np.int64) >= 0)
            vectors[[places[hit] for hit in hits]] = records["vector"][hits]
        known = np.ones(len(keys), np.bool_)
        known[list(rows.values())] = False
        return known

    def write(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Add a segment: as a whole, or not at all."""
        records = np.empty(len(keys), RECORD)
        records["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
        records["vector"] = vectors
        # By the time first, so that sorted names tell which was written first.
        data = records.tobytes()
        with atomic(self.folder / f"{time.time_ns():020d}-{os.getpid()}-{os.urandom(4).hex()}.vectors") as file:
            file.write(data + _checksum(data))


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:KEY]


def _records(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    """The records of a segment; none, with a warning, if it is damaged: then it is taken away."""
    data = path.read_bytes() if path.exists() else b""
    size = len(data) - KEY
    if size > 0 and size % RECORD.itemsize == 0 and _checksum(data[:size]) == data[size:]:
        return np.frombuffer(data, RECORD, size // RECORD.itemsize)
    warnings.warn(f"{path}: damaged; expected a checksum that fits. Its texts are embedded again.", stacklevel=2)
    path.unlink(missing_ok=True)
    return np.empty(0, RECORD)
