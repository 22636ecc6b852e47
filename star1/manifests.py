"""Frozen manifests of test sets: which rows, and a digest of all that an answer and its verdict depend on."""

import hashlib
import json
from collections.abc import Sequence

from star1.errors import InputError
from star1.records import Row
from star1.sources import Benchmark

# In this order a row is digested; what a row does not have is null.
FIELDS = ("id", "question", "answer", "choices", "tests", "entry_point")
TERMS = ("kind", "path", "repository", "revision", "sha256", "licence", "attribution", "title", "paper", "link", "note")


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows in their order, each as a line of JSON with the values of `FIELDS`."""
    lines = (json.dumps([row.get(name) for name in FIELDS], ensure_ascii=True, separators=(",", ":")) for row in rows)
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def manifest(name: str, entry: Benchmark, rows: Sequence[Row]) -> Row:
    """The manifest of a test set as it was read.

    Raises:
        InputError: the entry's `manifest_sha256` is of other rows.
    """
    digest = rows_digest(rows)
    if entry.manifest_sha256 not in (None, digest):
        hint = "rows, their order or answers changed; if they should, put the digest found into the entry"
        raise InputError(name, f"rows with the manifest {digest}", f"manifest_sha256 {entry.manifest_sha256}", hint)
    terms = {key: found for key in TERMS if (found := getattr(entry, key)) is not None}
    return {"benchmark": name, "rows": len(rows), "sha256": digest, **terms, "ids": [row["id"] for row in rows]}
