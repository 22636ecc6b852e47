"""Table entries: mistakes are named, content is fixed or said not to be, and the paper's preset is the paper's table."""

import json
import shutil
from typing import Any

import pytest

from star1 import params, presets, sources
from star1.errors import SettingError
from star1.records import Row
from star1.sources import Benchmark, Located, Source, Top
from tests.conftest import ROOT

TERMS = {"licence": "MIT", "attribution": "someone"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def source(**fields: Any) -> Source:
    base: dict[str, Any] = {"kind": "mirror", "path": "file", "format": "jsonl", "ngram": 8, "question": "q", **TERMS}
    return Source(**base | fields)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": "red"}, "set.colour: Extra inputs"),
        ({"rows": "3"}, "set.rows: Input should be a valid integer"),
        ({"kind": "ftp"}, "set.kind"),
        ({"kind": "github", "repository": "a/b"}, "revision is required for kind github"),
        ({"kind": "hub", "revision": COMMIT}, "repository is required for kind hub"),
        ({"repository": "a/b"}, "repository is not allowed for kind mirror"),
        ({"kind": "bundled", "path": "../outside"}, "must be relative"),
        ({"path": "/etc/hosts"}, "must be relative"),
        ({"path": []}, "path is empty"),
        ({"sha256": ["a" * 64, "b" * 64]}, "2 sha256 for 1 paths"),
        ({"sha256": "abc"}, "sha256 'abc' is not 64 hexadecimal digits"),
        ({"question": None}, "question is required for format jsonl"),
        ({"ngram": 0}, "greater than or equal to 1"),
        ({"longest": 0}, "greater than or equal to 1"),
        ({"kind": "url", "path": "data/file.csv"}, "must be an address that starts with https://"),
        ({"kind": "url", "path": "file:///etc/hosts"}, "must be an address that starts with https://"),
        ({"kind": "url", "path": "https://a.b/c", "revision": COMMIT}, "revision is not allowed for kind url"),
    ],
)
def test_a_faulty_entry_names_the_field(change: Row, told: str) -> None:
    entry = source().model_dump() | change
    with pytest.raises(SettingError) as caught:
        sources.read_entry(Source, "set", json.dumps(entry))
    assert told in str(caught.value)


def test_an_entry_may_leave_out_what_has_a_default() -> None:
    text = json.dumps({"kind": "bundled", "path": "a.txt", "format": "txt", "ngram": 8, **TERMS})
    entry = sources.read_entry(Source, "set", text)
    assert (entry.question, entry.keep, entry.strip, entry.gated, entry.header, entry.rows, entry.pinned) == (
        None,
        None,
        [],
        False,
        True,
        None,
        True,
    )


HUB = {"kind": "hub", "repository": "a/b"}
URL = {"kind": "url", "path": ["https://a.b/c", "https://a.b/d"]}


@pytest.mark.parametrize(
    ("place", "fixed"),
    [
        ({**HUB, "revision": COMMIT}, True),
        ({**HUB, "revision": "main"}, False),
        ({**HUB, "revision": "v1.0"}, False),
        ({**HUB, "revision": COMMIT[:10]}, False),
        ({"kind": "github", "repository": "a/b", "revision": COMMIT}, True),
        ({"kind": "github", "repository": "a/b", "revision": "refs/heads/main"}, False),
        ({**URL, "sha256": ["a" * 64, "b" * 64]}, True),
        ({**URL, "sha256": ["a" * 64, None]}, False),
        (URL, False),
        ({"kind": "mirror"}, True),
        ({"kind": "bundled"}, True),
    ],
)
def test_what_may_change_says_so_and_nothing_else_does(place: Row, fixed: bool) -> None:
    assert source(**place, pinned=fixed).pinned is fixed
    with pytest.raises(ValueError, match="pinned"):
        source(**place, pinned=not fixed)


def test_digests_may_be_known_for_some_files_only() -> None:
    entry = source(path=["a", "b"], sha256=[None, "A" * 64])
    assert (entry.digest_of(0), entry.digest_of(1), source().digest_of(0)) == (None, "A" * 64, None)


def test_a_row_has_one_category() -> None:
    fields: dict[str, Any] = {
        "kind": "mirror",
        "path": "f",
        "format": "jsonl",
        "question": "q",
        "purpose": "harmful",
        **TERMS,
    }
    with pytest.raises(ValueError, match="give one of the two"):
        Benchmark(**fields, category="kind", top=Top(scores="s", each=1))


# --- the paper's preset -----------------------------------------------------------------------------------------------

# Facts of the published code: names in processing order, words of the n-grams, rows where the table gives them exactly.
PUBLISHED = [
    ("GPTFuzz", 8, 100),
    ("SimpleSafetyTests", 8, 100),
    ("MaliciousInstruct", 8, 100),
    ("QHarm", 8, 100),
    ("TDCRedTeaming", 8, 100),
    ("MaliciousInstructions", 8, 100),
    ("HarmfulQ", 8, 200),
    ("HExPHI", 8, 300),
    ("HarmBench", 8, 300),
    ("AttaQ", 7, 1402),
    ("HarmfulQA", 7, 1960),
    ("SafetyInstructions", 7, None),
    ("UltraSafety", 7, None),
    ("ALERT", 7, None),
    ("SaladBench", 8, 21318),
    ("PKUSafeRLHF", 6, None),
    ("BeaverTails", 5, None),
    ("wildjailbreak", 5, None),
]
POOL = {"strongreject": 313, "jbb": 100, "sgbench": 1442, "wildjailbreak": 250, "xstest": 250}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> params.Params:
    """The params file with the paper's preset, checked as a whole."""
    folder = tmp_path_factory.mktemp("paper")
    for name in ("presets", "bundled", "policies"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "params.yaml", folder)
    presets.apply("paper", [], folder / "params.yaml")
    return params.Params.model_validate(params.load(folder / "params.yaml", folder))


def test_the_papers_sets_in_their_order(paper: params.Params) -> None:
    table = paper.fetch.sources
    assert [(name, table[name].ngram, table[name].rows) for name in paper.collect.sources] == PUBLISHED
    dropped = [name for name, action in paper.collect.benchmarks.items() if action == "drop"]
    assert {name: paper.fetch.benchmarks[name].rows for name in dropped} == POOL


def entries(paper: params.Params) -> dict[str, Located]:
    """The entries of the preset, without those of the default."""
    tables: dict[str, Any] = {"sources": paper.fetch.sources, "benchmarks": paper.fetch.benchmarks}
    return {
        f"{table}.{name}": entry
        for table, found in tables.items()
        for name, entry in found.items()
        if entry.kind != "bundled"
    }


def test_the_papers_sets_are_fixed_but_for_five(paper: params.Params) -> None:
    found = entries(paper)
    assert len(found) == 36
    assert {name for name, entry in found.items() if not entry.pinned} == {
        "sources.AttaQ",
        "sources.UltraSafety",
        "sources.ALERT",
        "benchmarks.sgbench",
        "benchmarks.wildchat",
    }
    assert {name for name, entry in found.items() if entry.gated} == {
        "sources.HExPHI",
        "sources.wildjailbreak",
        "benchmarks.wildjailbreak",
        "benchmarks.wildjailbreak_benign",
        "benchmarks.wildchat",
        "benchmarks.gpqa",
    }


def test_data_md_lists_every_set_of_the_paper_with_its_licence(paper: params.Params) -> None:
    text = (ROOT / "docs" / "data.md").read_text()
    for key, entry in entries(paper).items():
        name = key.partition(".")[2]
        line = next((line for line in text.splitlines() if line.startswith(f"| {name} |")), "")
        assert entry.licence in line, key
        assert str(entry.repository) in line, key
        assert ("gated" in line) == entry.gated, key
        assert ("not pinned" in line) == (not entry.pinned), key


def test_every_rule_about_malformed_rows_is_in_data_md() -> None:
    from star1.reading import REASONS

    text = (ROOT / "docs" / "data.md").read_text()
    assert [reason for reason in (*REASONS, "duplicates", "filtered") if f"`{reason}`" not in text] == []
