"""What a check says: something is wrong, something was seen to be well, or something cannot be known from here."""

from dataclasses import dataclass
from typing import Literal

from star1.doctor.ids import IDS, Severity
from star1.errors import Star1Error

Level = Literal["error", "warning", "note", "ok", "unknown"]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        id: of the kind of finding, one of `star1.doctor.ids.IDS`.
        severity: error (a run would end, or spoil something), warning (it may), note (good to know).
        what: was found.
        why: it matters.
        fix: the command that mends it, to be copied.
        where: file, program, variable or endpoint that it is about.
    """

    id: str
    severity: Severity
    what: str
    why: str
    fix: str
    where: str


@dataclass(frozen=True)
class Seen:
    """Something that was looked at and is well."""

    id: str
    found: str


@dataclass(frozen=True)
class Unknown:
    """Something that could not be looked at, and the reason."""

    id: str
    reason: str


Outcome = Finding | Seen | Unknown


def finding(kind: str, where: object, what: str, fix: str, severity: Severity | None = None) -> Finding:
    """A finding of a kind; unless given, as severe as its kind is at most."""
    known = IDS[kind]
    if severity is not None and severity not in known.severities:
        raise ValueError(f"{kind} is never a {severity}")
    return Finding(kind, severity or known.severities[0], what, known.why, fix, str(where))


def of_error(kind: str, where: object, error: Star1Error, fix: str, severity: Severity | None = None) -> Finding:
    """A finding that tells of an error which a stage would end with."""
    return finding(kind, where, f"{error.where}: {error.found}; expected {error.expected}", fix, severity)
