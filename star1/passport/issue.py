"""Issue the passport that an address asks for."""

from collections.abc import Callable
from pathlib import Path

from star1.passport import origins, results
from star1.passport.address import Address, resolve
from star1.passport.desk import Desk, Page
from star1.records import Row


def _row(desk: Desk, address: Address) -> Row:
    from star1.passport import rows  # brings the code of the stages along, which takes a while to load

    made_of = {"row": rows.training_row, "benign": rows.benign_row}
    return made_of[address.kind](desk, address.name)


ISSUERS: dict[str, tuple[str, Callable[[Desk, Address], Row]]] = {
    "row": ("training row", _row),
    "fetched": ("fetched prompt", lambda desk, address: origins.fetched_row(desk, address.name)),
    "benign": ("benign look-alike", _row),
    "published": ("released row", lambda desk, address: origins.published_row(desk, address.name)),
    "test": ("row of a benchmark", results.test),
    "answer": ("judged answer", results.answer),
    "model": ("checkpoint", lambda desk, address: results.checkpoint(desk, address.name)),
}


def passport(desk: Desk, text: str) -> Row:
    """The passport of what `text` names; each value called `passport` in it is an address that can be asked for.

    Raises:
        InputError: nothing or several things are called so.
    """
    desk.page = Page()
    address = resolve(text, desk.places)
    kind, issue = ISSUERS.get(address.kind, ("cell of a table", results.cell))
    told = issue(desk, address)
    page = desk.page
    head = {"address": str(address), "kind": kind}
    return head | {"problems": page.problems, "missing": page.missing} | told | {"code": desk.books.commit}


def issue(text: str, root: Path = Path(), *, replies: bool = False, everything: bool = False) -> Row:
    """The passport of what `text` names, in one go."""
    return passport(Desk(root, replies=replies, everything=everything), text)
