"""Licences: what may be given on, and what a hub is told about several together."""

import pytest
import yaml

from star1 import licences
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("name", "said", "why"),
    [
        ("MIT", None, None),
        ("cc-by-nc-4.0", None, None),
        ("HEx-PHI Dataset License Agreement", None, "licence HEx-PHI Dataset License Agreement does not allow it"),
        ("CC-BY-ND-4.0", None, "licence CC-BY-ND-4.0 does not allow it"),
        ("not stated", None, "licence 'not stated' is not known to allow it"),
        ("not stated", True, None),
        ("HEx-PHI Dataset License Agreement", True, None),
        ("MIT", False, "withheld by release.redistribute"),
    ],
)
def test_texts_are_given_on_by_leave_alone(name: str, said: bool | None, why: str | None) -> None:
    assert licences.withheld(name, said) == why


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["CC0-1.0"], "cc0-1.0"),
        (["CC0-1.0", "Apache-2.0"], "apache-2.0"),
        (["MIT", "mit"], "mit"),
        (["MIT", "CC-BY-NC-4.0"], "other"),
        (["not stated"], "other"),
    ],
)
def test_one_word_for_several(names: list[str], word: str) -> None:
    assert licences.combined(names) == word


def test_licences_of_the_published_sources_are_known_and_one_forbids_it() -> None:
    sources = yaml.safe_load((ROOT / "presets/paper.yaml").read_text("utf-8"))["fetch"]["sources"]
    assert len(sources) == 18
    assert all(licences.known(entry["licence"]) for entry in sources.values())
    assert [name for name, entry in sources.items() if licences.withheld(entry["licence"], None)] == ["HExPHI"]


def test_terms_name_every_source() -> None:
    text = licences.text("STAR-1", "Apache-2.0", [("a", "MIT", "them", None), ("b", "not stated", "us", "no leave")])
    assert "| a | [MIT](https://opensource.org/license/mit) | keep the notice | given | them |" in text
    assert "| b | not stated | not known | withheld: no leave | us |" in text
