"""`make images`: build the images that are missing, so that the same parts give the same bytes."""

import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import orjson

from star1.errors import InputError, SettingError, Star1Error
from star1.images import BASE, FOLDER, Image, read_base, record_file
from star1.records import Row, file_digest, write_text

# The time of day of everything in an image, in seconds: 2026-01-01.
EPOCH = 1_767_225_600
# Level 3 packs the data image in a sixth of the time of the default, to the same size.
PACKING = "-comp zstd -Xcompression-level 3 -no-xattrs"
# The base made here has what the definitions add to theirs: no archive is asked when an image is built on it.
DEBIAN, PACKAGES = "bookworm", ("python3", "python3-venv", "ca-certificates", "bubblewrap", "libnuma1")
# What vLLM and triton compile at run time needs a compiler.
CUDA_PACKAGES = "gcc libc6-dev libpython3-dev libnuma1"
# Folders of every Debian where a machine's own wheels, kept downloads and certificates are seen while an image is built;
# nothing of them stays in it.
WHEELS, KEPT, CERTIFICATES = "/mnt", "/srv", "/media"
# An image (SIF, format 01) begins with its identity, two times, and where the table of its parts is; each part has two times,
# too. None of these is fixed by the build before apptainer 1.5.
HEAD = struct.Struct("<32s10s3s3s16sqqqqq")
PART, PART_TIMES, IDENTITY = 585, 41, 48
TIMES = struct.pack("<qq", EPOCH, EPOCH)
HASH = re.compile(r"sha256:[0-9a-f]{64}")

Say = Callable[[str], None]


def tool() -> str:
    """The command that builds.

    Raises:
        SettingError: there is none.
    """
    for name in ("apptainer", "singularity"):
        if found := shutil.which(name):
            return found
    hint = "`module load apptainer` on many clusters; docs/hpc.md"
    raise SettingError("images", "no command apptainer", "apptainer 1.3 or later on the PATH", hint)


def version() -> str:
    """Name and version of that command."""
    return subprocess.run([tool(), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def build_all(images: Sequence[Image], offline: bool, say: Say) -> None:
    """Build each image that is not there.

    Args:
        images: what is wanted.
        offline: start from a base of Debian's packages made here (once) in place of the definitions' own.
        say: tells how it goes.

    Raises:
        Star1Error: a tool is missing, or a build failed.
    """
    if offline and (read_base(images[0].root) or {}).get("packages") != list(PACKAGES):
        say(f"{FOLDER}/base.sif: from Debian {DEBIAN}")
        make_base(images[0].root)
    for image in images:
        name = image.file
        if (image.root / name).is_file() and record_file(image.root / name).is_file():
            say(f"{name}: there")
            continue
        say(f"{name}: being built")
        record = build(image)
        say(f"{record['image']}: {record['bytes'] / 1e6:,.0f} MB, sha256 {record['sha256']}")


def build(image: Image) -> Row:
    """Build one image and write its record beside it; gives the record.

    Raises:
        Star1Error: the build failed, or a test of what is in it.
    """
    parts, base, name = image.parts(), read_base(image.root), image.file
    output, arguments = image.root / name, {"LOCK": image.lock}
    if base:
        arguments |= {"BOOTSTRAP": "localimage", "FROM": f"{FOLDER}/base.sif", "PACKAGES": ""}
    elif image.label != image.kind:
        arguments["PACKAGES"] = CUDA_PACKAGES
    _build(image.root, image.definition, output, arguments)
    record: Row = {"image": name, "sha256": file_digest(output), "bytes": output.stat().st_size}
    record |= {"parts": parts, "built_by": version()}
    record["from"] = "Debian packages, made here" if base else "the base that the definition names"
    write_text(record_file(output), orjson.dumps(record, option=orjson.OPT_INDENT_2).decode() + "\n")
    return record


def make_base(root: Path) -> None:
    """Make a base of Debian's packages, for where no hub can be reached, and note its digest.

    Raises:
        Star1Error: mmdebstrap is missing, or failed.
    """
    if not shutil.which("mmdebstrap"):
        found, expected = "no command mmdebstrap", "it, to make a base of Debian's packages"
        raise SettingError(
            "images", found, expected, "`apt-get install mmdebstrap`, or build where a hub can be reached"
        )
    with tempfile.TemporaryDirectory(prefix="star1-base-") as scratch:
        tree = Path(scratch) / "tree.tar"
        source = os.environ.get("DEBIAN_MIRROR")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", DEBIAN, str(tree)]
        _run([*command, source] if source else command, root, _fixed())
        folder = Path(scratch) / "tree"
        folder.mkdir()
        _run(["tar", "-C", str(folder), "--exclude=./dev/*", "-xf", str(tree)], root, _fixed())
        _strip(folder)
        definition = Path(scratch) / "base.def"
        definition.write_text(f"Bootstrap: localimage\nFrom: {folder}\n", "utf-8")
        _build(root, str(definition), root / f"{FOLDER}/base.sif", {})
    noted: Row = {"file": f"{FOLDER}/base.sif", "sha256": file_digest(root / f"{FOLDER}/base.sif")}
    noted |= {"suite": DEBIAN, "packages": list(PACKAGES)}
    write_text(root / BASE, orjson.dumps(noted).decode() + "\n")


def _strip(folder: Path) -> None:
    """Remove what differs from one run of mmdebstrap to the next, or tells of this machine."""
    for name in ("var/log", "var/cache/ldconfig", "var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/resolv.conf", "etc/hostname", "etc/machine-id"):
        (folder / name).unlink(missing_ok=True)
    (folder / "var/lib/apt/lists/partial").mkdir()


def _build(root: Path, definition: str, output: Path, arguments: Mapping[str, str]) -> None:
    """Run the build, to a name of its own until it is whole."""
    partial = output.with_name(f".{output.name}.partial")
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    environment, binds = _site(cpu="-cuda" not in arguments.get("LOCK", ""))
    command = [tool(), "--quiet", "build", "--force", "--mksquashfs-args", PACKING, *binds, *given]
    try:
        _run([*command, str(partial), definition], root, environment)
        settle(partial)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def _fixed() -> dict[str, str]:
    """The environment of a build, with the time of day fixed."""
    return {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"}


def _site(cpu: bool) -> tuple[dict[str, str], list[str]]:
    """This machine's wheels, certificates and kept downloads for the time of a build: environment, and what to bind."""
    environment = _fixed()
    binds: list[str] = []
    kept = Path(os.environ.get("UV_CACHE_DIR") or ".cache/uv")
    kept.mkdir(parents=True, exist_ok=True)

    def see(path: Path, inside: str, **variables: str) -> None:
        binds.extend(("--bind", f"{path.resolve()}:{inside}"))
        environment.update({f"APPTAINERENV_{name}": value for name, value in variables.items()})

    see(kept, KEPT, UV_CACHE_DIR=KEPT)
    if (wheels := os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")) and Path(wheels).is_dir():
        see(Path(wheels), WHEELS, UV_FIND_LINKS=WHEELS)
    elif cpu:  # the index itself has torch's CUDA builds only; uv knows where the others are
        environment["APPTAINERENV_UV_TORCH_BACKEND"] = "cpu"
    if (bundle := os.environ.get("SSL_CERT_FILE")) and Path(bundle).is_file():
        inside = f"{CERTIFICATES}/{Path(bundle).name}"
        see(Path(bundle).parent, CERTIFICATES, SSL_CERT_FILE=inside, PIP_CERT=inside)
    for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "HTTPS_PROXY", "https_proxy"):
        if value := os.environ.get(name):
            environment[f"APPTAINERENV_{name}"] = value
    return environment, binds


def _run(command: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
    """Run a command; what it says is told only when it fails.

    Raises:
        Star1Error: it failed.
    """
    done = subprocess.run(command, cwd=root, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode:
        # Of a file with another hash all that would do are listed, hundreds of them, and what is wrong stands above.
        lines = [line for line in (done.stdout + done.stderr).strip().splitlines() if not HASH.fullmatch(line.strip())]
        said = "\n".join(lines[-12:])
        raise Star1Error(Path(command[0]).name, f"status {done.returncode}:\n{said}\n", "a build", "docs/hpc.md")


def settle(image: Path) -> None:
    """Give an image an identity and times that follow from what it holds: earlier than 1.5, apptainer draws and reads them.

    Raises:
        InputError: the file is not an image in the format SIF.
    """
    with open(image, "r+b") as file:
        head = HEAD.unpack(file.read(HEAD.size).ljust(HEAD.size, b"\0"))
        if not head[1].startswith(b"SIF_MAGIC"):
            raise InputError(image, "no SIF header", "an image that apptainer built")
        parts, table = head[8], head[9]
        file.seek(IDENTITY)
        file.write(bytes(16) + TIMES)
        for number in range(parts):
            file.seek(table + number * PART)
            if any(file.read(PART)):
                file.seek(table + number * PART + PART_TIMES)
                file.write(TIMES)
        file.flush()
        identity = bytes.fromhex(file_digest(image))[:16]
        file.seek(IDENTITY)
        file.write(identity)
