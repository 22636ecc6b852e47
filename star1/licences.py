"""What licences allow: whether a prompt set's text may be given on, and the one word that a hub has for several."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """One licence.

    Attributes:
        name: as it stands in params.yaml, an SPDX name where there is one.
        hub: what the Hugging Face hub calls it.
        url: its text.
        redistributable: whether text under it may be given on, its terms kept.
        terms: what has to be kept, in a few words.
    """

    name: str
    hub: str
    url: str
    redistributable: bool
    terms: str


_CC = "https://creativecommons.org"
_BY = "name the authors"
_NC = f"{_BY}; no commercial use"
TABLE = {
    one.name.casefold(): one
    for one in (
        Licence("CC0-1.0", "cc0-1.0", f"{_CC}/publicdomain/zero/1.0/", True, "none"),
        Licence("MIT", "mit", "https://opensource.org/license/mit", True, "keep the notice"),
        Licence("Apache-2.0", "apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", True, "keep the notice"),
        Licence("BSD-3-Clause", "bsd-3-clause", "https://opensource.org/license/bsd-3-clause", True, "keep the notice"),
        Licence("CC-BY-2.0", "cc-by-2.0", f"{_CC}/licenses/by/2.0/", True, _BY),
        Licence("CC-BY-3.0", "cc-by-3.0", f"{_CC}/licenses/by/3.0/", True, _BY),
        Licence("CC-BY-4.0", "cc-by-4.0", f"{_CC}/licenses/by/4.0/", True, _BY),
        Licence("CC-BY-SA-3.0", "cc-by-sa-3.0", f"{_CC}/licenses/by-sa/3.0/", True, f"{_BY}; share alike"),
        Licence("CC-BY-SA-4.0", "cc-by-sa-4.0", f"{_CC}/licenses/by-sa/4.0/", True, f"{_BY}; share alike"),
        Licence("CC-BY-NC-3.0", "cc-by-nc-3.0", f"{_CC}/licenses/by-nc/3.0/", True, _NC),
        Licence("CC-BY-NC-4.0", "cc-by-nc-4.0", f"{_CC}/licenses/by-nc/4.0/", True, _NC),
        Licence("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0", f"{_CC}/licenses/by-nc-sa/4.0/", True, f"{_NC}; share alike"),
        # What is released is adapted: questions are rewritten, answered and marked.
        Licence("CC-BY-ND-4.0", "cc-by-nd-4.0", f"{_CC}/licenses/by-nd/4.0/", False, "no adapted versions"),
        Licence("CC-BY-NC-ND-4.0", "cc-by-nc-nd-4.0", f"{_CC}/licenses/by-nc-nd/4.0/", False, "no adapted versions"),
        Licence("ODC-BY-1.0", "odc-by", "https://opendatacommons.org/licenses/by/1-0/", True, _BY),
        Licence("ODbL-1.0", "odbl", "https://opendatacommons.org/licenses/odbl/1-0/", True, f"{_BY}; share alike"),
        Licence(
            "HEx-PHI Dataset License Agreement",
            "other",
            "https://huggingface.co/datasets/LLM-Tuning-Safety/HEx-PHI",
            False,
            "each user asks the authors",
        ),
    )
}
# Asks nothing of anybody, so beside another licence it does not show.
PUBLIC_DOMAIN = "cc0-1.0"
OTHER = "other"


def known(name: str) -> Licence | None:
    """The licence of that name, however it is capitalised; None where it is not in the table."""
    return TABLE.get(name.strip().casefold())


def withheld(name: str, said: bool | None) -> str | None:
    """Why the text of rows under a licence is not given on, or None where it is.

    Args:
        name: the licence.
        said: what params.yaml says for the source; None leaves it to the table, in which silence is no leave.
    """
    if said is not None:
        return None if said else "withheld by release.redistribute"
    licence = known(name)
    if licence is None:
        return f"licence {name!r} is not known to allow it"
    return None if licence.redistributable else f"licence {licence.name} does not allow it"


def combined(names: Iterable[str]) -> str:
    """The hub's word for content under all of these licences together: the one that there is, else `other`."""
    words = {licence.hub if (licence := known(name)) else OTHER for name in names}
    words = (words - {PUBLIC_DOMAIN}) or words
    return words.pop() if len(words) == 1 else OTHER


def text(title: str, own: str, sources: Sequence[tuple[str, str, str, str | None]]) -> str:
    """LICENSE.md of a release: the terms of each part.

    Args:
        title: of the release.
        own: licence of what the pipeline added.
        sources: name, licence, attribution and why the text is withheld (None: it is not).
    """
    lines = [
        f"# Terms of {title}",
        f"Labels, reasoning, marks and their record: {_linked(own)}.",
        "Each question keeps the terms of the set that it comes from; `licence` and `attribution` stand in every row.",
        "| source | licence | to be kept | text | by |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {name} | {_linked(licence)} | {found.terms if (found := known(licence)) else 'not known'} "
            f"| {'given' if why is None else f'withheld: {why}'} | {by} |"
            for name, licence, by, why in sources
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _linked(name: str) -> str:
    licence = known(name)
    return f"[{licence.name}]({licence.url})" if licence else name
