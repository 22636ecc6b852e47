"""Programs that the workflow calls, and installed packages, against what envs/local.lock names."""

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from star1.doctor import commands
from star1.doctor.about import About
from star1.doctor.findings import Finding, Outcome, Seen, finding
from star1.doctor.machine import gpus, wanted_gpus

LOCK = Path("envs/local.lock")
PINNED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)
ON_PATH = f'export PATH="{commands.BIN}:$PATH"'
RENEW = "rm -f .venv/.ready && make setup"
# Programs, whether they are installed with this environment, and who can do without.
TOOLS = {"snakemake": True, "dvc": True, "git": False, "make": False}
SHOWN = 8


def python(about: About) -> Iterator[Outcome]:
    """This Python, and the one that rules would start."""
    version = "{}.{}".format(*sys.version_info[:2])
    if version != "3.11":
        yield finding("python", sys.executable, f"Python {version}; expected 3.11", "make PYTHON=python3.11")
    elif (found := _other_python()) and not about.containers:  # in images it is theirs
        yield finding("python", "python", found, ON_PATH)
    else:
        yield Seen("python", f"Python {sys.version.split()[0]}, {sys.prefix}")


def _other_python() -> str | None:
    """What is wrong with the `python` on the PATH."""
    place = shutil.which("python")
    if place is None:
        return "no `python` on the PATH; rules call it"
    if _is_ours(place):
        return None
    told = commands.ask([place, "-c", "import sys; print(sys.prefix)"])
    if told.status == 0 and Path(told.out.strip()) == Path(sys.prefix):  # a shim that starts the same
        return None
    return f"{place} on the PATH; expected {commands.BIN}/python, which has the packages"


def programs(_: About) -> Iterator[Outcome]:
    """Programs: there, in the locked version, and able to start."""
    for name in TOOLS:
        yield _program(name, shutil.which(name))


def _program(name: str, place: str | None) -> Outcome:
    if place is None:
        return finding(
            "tool-missing", name, "not on the PATH", _mend(name, None), "warning" if name == "make" else "error"
        )
    if name == "snakemake" and _is_ours(place):
        found = metadata.version(name)  # the comparison of dvc.yaml starts it; once is enough
    else:
        told = commands.ask([place, "--version"], limit_s=20.0)
        number = re.search(r"\d+(\.\d+)+", told.out)
        if told.status != 0 or number is None:
            return finding("tool-fails", name, f"{place} --version: {told.last}", _mend(name, place))
        found = number[0]
    locked = locked_versions().get(name, found)
    if TOOLS[name] and found != locked:
        what = f"{place} is version {found}; expected {locked}, as {LOCK} says"
        return finding("tool-version", name, what, _mend(name, place))
    return Seen("tool-version", f"{name} {found}")


def _is_ours(place: str) -> bool:
    return Path(place).parent.resolve() == commands.BIN.resolve()


def _mend(name: str, place: str | None) -> str:
    """How a program gets onto the PATH in the right version."""
    if not TOOLS[name]:
        return f"sudo apt-get install --reinstall {name}"
    if place is None:
        return ON_PATH if (commands.BIN / name).exists() else RENEW
    return RENEW if _is_ours(place) else ON_PATH


def locked_versions() -> dict[str, str]:
    """Packages and versions of the lock; none where there is no lock."""
    return dict(PINNED.findall(LOCK.read_text("utf-8"))) if LOCK.is_file() else {}


def packages(about: About) -> Iterator[Outcome]:
    """What these settings need is installed, and in the locked versions."""
    wanted = list(_wanted(about))
    faults = [told for requirement in wanted if (told := _fault(requirement))]
    for name, what in faults:
        fix = RENEW if name in locked_versions() else f"python -m pip install {name}"
        yield finding("package", name, what, fix)
    if not faults:
        yield Seen("package", f"{len(wanted)} packages that these settings need")
    if other := list(_differing()):
        what = f"{', '.join(other[:SHOWN])}" + (f" and {len(other) - SHOWN} more" if len(other) > SHOWN else "")
        yield finding("lock", LOCK, f"{len(other)} installed in another version: {what}", RENEW)
    else:
        yield Seen("lock", f"installed versions are those of {LOCK}")


def _wanted(about: About) -> Iterator[Requirement]:
    """What is needed on this machine: less where rules run in images, which have been checked when they were built."""
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    yield from map(Requirement, project["dependencies"])
    if about.slurm:
        yield from (Requirement(one) for one in extras["cluster"] if one.startswith("snakemake"))
    if about.containers:
        return
    yield from map(Requirement, extras["models"])
    finetune = about.params.finetune
    runs = finetune.runs.values()
    settings = [finetune.settings, *(run.settings for run in runs if run.settings)]
    if any(str(one.sharding).startswith("zero") for one in settings):  # None where a run does not say
        yield from map(Requirement, extras["deepspeed"])
    if any(run.tier == "qlora" for run in runs):
        yield Requirement("bitsandbytes")
    yield from (Requirement(tracker) for tracker in finetune.trackers)


def _fault(requirement: Requirement) -> tuple[str, str] | None:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return requirement.name, "not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return requirement.name, f"version {version}; expected {requirement.specifier}"


def _differing() -> Iterator[str]:
    """Installed packages with another version than the lock's; a build's own mark (+cpu) is no difference."""
    for name, locked in sorted(locked_versions().items()):
        try:
            found = metadata.version(name)
            if Version(found).public != Version(locked).public:
                yield f"{name} {found} ({locked})"
        except (metadata.PackageNotFoundError, InvalidVersion):
            continue  # what is needed and missing is told elsewhere


def engine(about: About) -> Iterator[Outcome]:
    """The engine that answers benchmarks, where rules run on this machine and in no image."""
    if about.containers or about.slurm:
        return
    if about.params.generate.engine != "vllm":
        yield Seen("engine", about.params.generate.engine)
    elif _has("vllm") or Path(".venv-vllm/bin/python").exists():
        yield Seen("engine", "vllm")
    else:
        yield finding(
            "engine", "generate.engine", "vllm, which is installed neither here nor in .venv-vllm", "make engines"
        )
    yield from _torch(about)


def _torch(about: About) -> Iterator[Finding]:
    if not wanted_gpus(about) or not gpus():
        return
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return
    if version.endswith("+cpu"):
        fix = f"uv pip install --torch-backend auto --reinstall torch=={version.removesuffix('+cpu')}"
        yield finding("gpu-torch", "torch", f"version {version} beside {len(gpus())} GPUs", fix)


def _has(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
