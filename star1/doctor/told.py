"""A report as lines for people."""

from collections.abc import Iterator

from star1.doctor.checks import Report

GB = 1e9
SHOWN = 12


def lines(report: Report, quiet: bool = False) -> Iterator[str]:
    """Findings with the reason and the command that mends each; then what is well, what was not looked at, and a sum.

    Args:
        report: what was found.
        quiet: findings alone.
    """
    for one in report.findings:
        yield f"{one.severity:<8} {one.id}: {one.where}: {one.what}"
        yield f"         why: {one.why}"
        yield f"         fix: {one.fix}"
    if quiet:
        return
    for seen in report.checked:
        yield f"ok       {seen.id}: {seen.found}"
    reasons: dict[str, list[str]] = {}
    for unknown in report.not_checked:
        reasons.setdefault(unknown.reason, []).append(unknown.id)
    for reason, ids in reasons.items():
        yield f"unknown  {', '.join(dict.fromkeys(ids)) if len(ids) <= SHOWN else f'{len(ids)} things'}: {reason}"
    if report.estimate:
        yield from _estimate(report)
    yield _sum(report)


def _estimate(report: Report) -> Iterator[str]:
    total, files = sum(one.bytes for one in report.estimate), sum(one.files for one in report.estimate)
    yield f"to be written, by estimate: {total / GB:,.2f} GB in {files:,} files"
    for one in sorted(report.estimate, key=lambda part: -part.bytes):
        yield f"  {one.bytes / GB:>10,.3f} GB  {one.name} ({one.folder})"


def _sum(report: Report) -> str:
    counts = [sum(one.severity == severity for one in report.findings) for severity in ("error", "warning", "note")]
    found = ", ".join(
        f"{count} {name}{'s' * (count != 1)}" for count, name in zip(counts, ("error", "warning", "note"), strict=True)
    )
    well = "1 thing is" if len(report.checked) == 1 else f"{len(report.checked)} things are"
    about = f"preset {report.preset}" if report.preset else "params.yaml"
    return (
        f"{about}, {' and '.join(report.profiles) or 'no profile'}: {found}; {well} well, "
        f"{len(report.not_checked)} not known ({report.seconds:.1f} s)"
    )
