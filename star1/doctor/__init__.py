"""`star1 doctor`: what a run would stumble over, seen before anything is paid for or queued; docs/doctor.md has the table."""

from star1.doctor.about import About
from star1.doctor.checks import CHECKS, OF_ENDPOINTS, Check, Report, examine
from star1.doctor.findings import Finding, Seen, Unknown, finding
from star1.doctor.told import lines

__all__ = [
    "CHECKS",
    "OF_ENDPOINTS",
    "About",
    "Check",
    "Finding",
    "Report",
    "Seen",
    "Unknown",
    "examine",
    "finding",
    "lines",
]
