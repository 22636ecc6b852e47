"""All checks as a table, done side by side and each with a limit of time, and the report of what they found."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

from star1.doctor import (
    containers,
    disk,
    endpoints,
    folders,
    machine,
    network,
    prefetch,
    project,
    sizes,
    slurm,
    spending,
    tools,
)
from star1.doctor.about import About
from star1.doctor.findings import Finding, Outcome, Seen, Unknown
from star1.doctor.ids import IDS, SEVERITIES
from star1.doctor.secrets import strike
from star1.errors import Star1Error

T = TypeVar("T")
VERSION = 1
LIMIT_S, ESTIMATE_S = 60.0, 10.0
STATUS = {"error": 2, "warning": 1, "note": 0}


@dataclass(frozen=True)
class Check:
    """A check, and the kinds of findings that it can have."""

    do: Callable[[About], Iterable[Outcome]]
    ids: tuple[str, ...]


CHECKS = (
    Check(project.dvc_yaml, ("plan", "dvc-yaml")),
    Check(tools.programs, ("tool-missing", "tool-fails", "tool-version")),
    Check(spending.check, ("endpoint-limit",)),
    Check(project.git, ("git",)),
    Check(project.locks, ("engine-lock",)),
    Check(project.remote, ("dvc-remote",)),
    Check(project.cache, ("dvc-cache",)),
    Check(tools.python, ("python",)),
    Check(tools.packages, ("package", "lock")),
    Check(tools.engine, ("engine", "gpu-torch")),
    Check(
        containers.check,
        (
            "apptainer",
            "apptainer-version",
            "apptainer-fails",
            "apptainer-slow",
            "user-namespaces",
            "image-missing",
            "image-damaged",
            "image-variant",
        ),
    ),
    Check(containers.sandboxed, ("sandbox",)),
    Check(machine.graphics, ("gpu-driver", "gpu-count", "gpu-unasked")),
    Check(machine.training_memory, ("gpu-memory",)),
    Check(machine.memory_of_machine, ("memory",)),
    Check(
        slurm.check,
        (
            "slurm",
            "slurm-down",
            "slurm-partition",
            "slurm-nodes",
            "slurm-gpus",
            "slurm-memory",
            "slurm-time",
            "slurm-accounting",
            "slurm-stale",
        ),
    ),
    Check(disk.check, ("disk", "inodes", "quota")),
    Check(folders.caches, ("cache-home",)),
    Check(folders.temporary, ("tmp-small",)),
    Check(folders.rights, ("folder-closed",)),
    Check(folders.traits, ("file-locks", "file-rename", "file-clock", "file-network")),
    Check(folders.linking, ("file-links",)),
    Check(network.check, ("hf-token", "hub-refused", "remote-file", "unreachable", "clock")),
    Check(prefetch.check, ("prefetch-missing", "prefetch-damaged")),
)
OF_ENDPOINTS = Check(
    endpoints.check,
    (*(name for name in IDS if name.startswith("endpoint-") and name != "endpoint-limit"), "clock"),
)


@dataclass(frozen=True)
class Report:
    """What was found, seen and left open, and what will be written."""

    preset: str | None
    profiles: list[str]
    findings: list[Finding]
    checked: list[Seen]
    not_checked: list[Unknown]
    estimate: list[sizes.Part]
    seconds: float

    @property
    def status(self) -> int:
        """The exit status: 2 with an error, 1 with a warning, 0 with neither."""
        return max((STATUS[one.severity] for one in self.findings), default=0)

    def as_json(self) -> dict[str, Any]:
        """It as one object; fields are added to it, none is renamed within a version."""
        return {
            "version": VERSION,
            "preset": self.preset,
            "profiles": self.profiles,
            "status": self.status,
            "findings": [asdict(one) for one in self.findings],
            "checked": [asdict(one) for one in self.checked],
            "not_checked": [asdict(one) for one in self.not_checked],
            "estimate": [asdict(one) for one in self.estimate],
            "seconds": round(self.seconds, 2),
        }


def examine(about: About, checks: Sequence[Check] | None = None) -> Report:
    """Do the checks: of endpoints and of this machine; of endpoints alone where they are named.

    Raises:
        SettingError: no endpoint of such a name.
    """
    began = time.monotonic()
    for seen in (machine.nvidia, project.dvc_settings, folders.working_links):
        seen.cache_clear()
    endpoints.chosen(about.params, list(about.names), about.whole)
    if checks is None:
        checks = [OF_ENDPOINTS] if about.names else [OF_ENDPOINTS, *CHECKS]
    estimate = None if about.names else _start(lambda: about.parts)
    outcomes = [strike(one, about) for one in _side_by_side(checks, about)]
    findings = [one for one in outcomes if isinstance(one, Finding)]
    order = list(IDS)
    return Report(
        preset=about.preset,
        profiles=about.profiles,
        findings=sorted(dict.fromkeys(findings), key=lambda one: (SEVERITIES.index(one.severity), order.index(one.id))),
        checked=sorted((one for one in outcomes if isinstance(one, Seen)), key=lambda one: order.index(one.id)),
        not_checked=sorted((one for one in outcomes if isinstance(one, Unknown)), key=lambda one: order.index(one.id)),
        estimate=_estimated(estimate) if estimate else [],
        seconds=time.monotonic() - began,
    )


def _side_by_side(checks: Iterable[Check], about: About) -> list[Outcome]:
    """Each check in a thread of its own; those that hang (a file server that is gone) are left behind, and told."""
    started = [(check, _start(partial(_done, check, about))) for check in checks]
    end, found = time.monotonic() + LIMIT_S, list[Outcome]()
    for check, future in started:
        try:
            found += future.result(timeout=max(0.0, end - time.monotonic()))
        except TimeoutError:
            found += [Unknown(name, f"no result within {LIMIT_S:g} s") for name in check.ids]
        except (OSError, ValueError, KeyError, Star1Error, subprocess.SubprocessError) as error:
            reason = str(error) if isinstance(error, Star1Error | OSError) else f"{type(error).__name__}: {error}"
            found += [Unknown(name, reason) for name in check.ids]
    return found


def _estimated(estimate: "Future[list[sizes.Part]]") -> list[sizes.Part]:
    """What will be written; nothing where that cannot be said, which the check of the disk tells."""
    try:
        return estimate.result(timeout=ESTIMATE_S)
    except (TimeoutError, OSError, Star1Error):
        return []


def _done(check: Check, about: About) -> list[Outcome]:
    return list(check.do(about))


def _start(do: Callable[[], list[T]]) -> "Future[list[T]]":
    """Do something in a thread that nobody has to wait for."""
    future: Future[list[T]] = Future()

    def work() -> None:
        try:
            future.set_result(do())
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
