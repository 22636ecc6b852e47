"""Apptainer, user namespaces, and the images that a profile makes rules run in; and the sandbox for programs of models."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from star1 import images, sandbox
from star1.doctor import commands
from star1.doctor.about import About
from star1.doctor.findings import Outcome, Seen, Unknown, finding
from star1.doctor.machine import gpus
from star1.errors import InputError
from star1.records import file_digest

OLDEST = (1, 3)
SLOW_S, LIMIT_S = 8.0, 45.0
# Images that are read whole in any case, all together [bytes]; a second or two.
READ_AT_MOST = 1.5e9
BUILD = "make images"
NAMESPACES = "sudo sysctl -w user.max_user_namespaces=15000 kernel.apparmor_restrict_unprivileged_userns=0"


def check(about: About) -> Iterator[Outcome]:
    """Whether jobs in containers would start."""
    if not about.containers:
        return
    found = _images(about)
    yield from found[1]
    tool = commands.which("apptainer", "singularity")
    if tool is None:
        what = f"no such command; {about.profiles[0]} asks for containers"
        yield finding("apptainer", "apptainer", what, "module load apptainer || sudo apt-get install apptainer")
        return
    yield from _version(tool)
    told, started = _start(tool, found[0])
    yield told
    if not started:
        yield _namespaces()


def _version(tool: str) -> Iterator[Outcome]:
    told = commands.ask([tool, "--version"])
    number = re.search(r"(\d+)\.(\d+)", told.out)
    if told.status != 0 or number is None:
        yield finding(
            "apptainer-fails",
            tool,
            f"--version: {told.last}",
            "module load apptainer || sudo apt-get install --reinstall apptainer",
        )
    elif "apptainer" in told.out and (int(number[1]), int(number[2])) < OLDEST:
        yield finding("apptainer-version", tool, f"{told.out.strip()}; expected 1.3 or later", "module avail apptainer")
    else:
        yield Seen("apptainer", told.out.strip())


def _images(about: About) -> tuple[Path | None, list[Outcome]]:
    """The image that can be tried, and what is to be said about all."""
    variant, told, whole = about.params.images.variant, list[Outcome](), list[Path]()
    for kind in images.KINDS:
        try:
            image = images.Image(kind, variant)
            outcome = _image(image, about.full)
        except InputError as error:
            told.append(
                finding(
                    "image-missing", f"image {kind}", f"{error.where}: {error.found}", "git checkout containers envs"
                )
            )
            continue
        told.append(outcome)
        if not isinstance(outcome, Unknown) and image.path.is_file() and outcome.id != "image-damaged":
            whole.append(image.path)
    if variant == "cpu" and about.hub_models and gpus():
        what = f"images.variant is cpu, beside {len(gpus())} GPUs"
        told.append(
            finding("image-variant", "images.variant", what, "star1 preset --set images.variant=cuda && make images")
        )
    return min(whole, key=lambda path: path.stat().st_size, default=None), told


def _image(image: images.Image, full: bool) -> Outcome:
    """An image: there, and the file that was built."""
    name = f"image {image.kind}"
    if not image.path.is_file():
        others = (path.name for path in image.path.parent.glob("*.sif") if path.stem.rpartition("-")[0] == image.label)
        told = "".join(f"; {other} is for other locks or definitions" for other in sorted(others))
        return finding("image-missing", name, f"no {image.file}{told}", f"{BUILD} KINDS={image.kind}")
    record, size = images.read_record(image.path), image.path.stat().st_size
    again = f"rm {image.file} && {BUILD} KINDS={image.kind}"
    if record is None:
        return finding("image-damaged", name, f"{image.file} has no record", again)
    if record.get("bytes", size) != size:
        return finding(
            "image-damaged", name, f"{image.file}: {size:,} bytes; its record says {record['bytes']:,}", again
        )
    if not full and size > READ_AT_MOST / len(images.KINDS):
        return Unknown(
            "image-damaged", f"{image.file} has {size / 1e9:,.1f} GB and was not read; `star1 doctor --full` does"
        )
    if record.get("sha256") != file_digest(image.path):
        return finding("image-damaged", name, f"{image.file} is not the file that its record tells of", again)
    return Seen("image-missing", f"{name}: {image.file}, as it was built")


def _start(tool: str, image: Path | None) -> tuple[Outcome, bool]:
    """Start an image as jobs do: what is to be said, and whether it started."""
    if image is None:
        return Unknown("apptainer-fails", "no image to start; `make images` builds them"), False
    began = time.monotonic()
    told = commands.ask([tool, "exec", "--cleanenv", str(image), "true"], LIMIT_S)
    took = time.monotonic() - began
    if told.status != 0:
        fix = f"{tool} exec --cleanenv {image} true; {NAMESPACES}"
        return finding("apptainer-fails", image, told.last, fix), False
    if took > SLOW_S:
        fix = "sudo apt-get install squashfuse fuse-overlayfs  # or ask for apptainer with setuid"
        return finding("apptainer-slow", image, f"{took:,.0f} s to start", fix), True
    return Seen("apptainer-fails", f"{image} starts in {took:,.1f} s"), True


def _namespaces() -> Outcome:
    """User namespaces, where no image has shown that it starts."""
    if commands.which("unshare") is None:
        return Unknown("user-namespaces", "no command unshare to try them with")
    told = commands.ask(["unshare", "--user", "--map-root-user", "true"])
    if told.status == 0:
        return Seen("user-namespaces", "user namespaces work")
    return finding("user-namespaces", "unshare --user", told.last, NAMESPACES)


def sandboxed(about: About) -> Iterator[Outcome]:
    """The sandbox for programs that models write, where a benchmark has such."""
    judge, benchmarks = about.params.judge, about.params.fetch.benchmarks
    programs = [name for name in about.params.generate.benchmarks if benchmarks[name].graded_by == "code"]
    if not programs:
        return
    if judge.sandbox.unsandboxed_code is not None:
        what = f"params.yaml does without; programs of {', '.join(programs)} run as you do"
        yield finding(
            "sandbox", "judge.sandbox", what, "star1 preset --set judge.sandbox.unsandboxed_code=null", "note"
        )
        return
    if about.slurm:
        yield Unknown("sandbox", "programs run on compute nodes; `srun star1 doctor` looks at one")
        return
    problem = _in_image(about) if about.containers else _here()
    if problem is None:
        yield Seen("sandbox", f"programs of {', '.join(programs)} run in a sandbox")
    elif problem.startswith("?"):
        yield Unknown("sandbox", problem.removeprefix("?"))
    else:
        fix = NAMESPACES if about.containers else f"sudo apt-get install bubblewrap; {NAMESPACES}"
        yield finding("sandbox", "bwrap", problem, fix, "error" if judge.sandbox.if_missing == "fail" else "note")


def _here() -> str | None:
    try:
        sandbox.check()
    except sandbox.NoSandboxError as error:
        return error.found
    return None


def _in_image(about: About) -> str | None:
    """The same inside the image that judges run in."""
    tool = commands.which("apptainer", "singularity")
    try:
        image = images.Image("data", about.params.images.variant).path
    except InputError:
        return "?the image of its rule cannot be named"
    if tool is None or not image.is_file():
        return "?programs run in the image data, which cannot be started yet"
    program = "from star1 import sandbox; sandbox.check()"
    told = commands.ask(
        [tool, "exec", "--cleanenv", "--home", str(Path.cwd()), str(image), "python", "-c", program], LIMIT_S
    )
    return None if told.status == 0 else f"in {image}: {told.last}"
