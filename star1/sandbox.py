"""Programs that nobody has read run here: without network, writable files, other processes, keys, or time without end.

bubblewrap gives them namespaces of their own and a root with nothing in it but Python's own files, read-only; a seccomp filter
(`star1.syscalls`) takes the calls for new processes, threads and sockets away; the script that is started sets the limits of
`star1.graders.confine` before it looks at the program. docs/graders.md says what this does not defend against.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from star1 import syscalls
from star1.errors import Star1Error

ACCEPTED = "I accept that programs written by a model run on this machine without a sandbox"
# A root user of the sandbox has no rights outside; an unknown one has none inside either.
NOBODY = "65534"
# Prints the files mapped by a Python that has loaded all its compiled modules: the shared libraries it needs.
PROBE = """
import importlib, os, sys
for name in sorted(os.listdir(sys.argv[1]) if os.path.isdir(sys.argv[1]) else []):
    if name.endswith(".so") and not name.startswith(("_tkinter", "_test", "_xx", "xx")):
        try:
            importlib.import_module(name.partition(".")[0])
        except ImportError:
            pass
for line in open("/proc/self/maps"):
    if "/" in line:
        print(line[line.index("/"):].strip())
"""


class NoSandboxError(Star1Error):
    """There is no sandbox on this machine."""


class Sandbox(BaseModel):
    """How programs that a model wrote are run.

    Attributes:
        wall_s: time for a program and its tests [s].
        memory_mb: address space of a program [MiB].
        if_missing: where there is no sandbox the answers are left unscored, or the stage fails.
        unsandboxed_code: null, or the sentence `ACCEPTED`: programs then run as you do, with limits of time and memory alone.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    wall_s: float = Field(default=10.0, gt=0)
    memory_mb: int = Field(default=512, ge=64)
    if_missing: Literal["fail", "unscored"] = "fail"
    unsandboxed_code: (
        Literal["I accept that programs written by a model run on this machine without a sandbox"] | None
    ) = None


def start(script: Path, arguments: Sequence[str], settings: Sandbox, **streams: Any) -> "subprocess.Popen[bytes]":
    """Start a Python script of this project, confined unless the settings say that it need not be.

    Args:
        script: the script; it sees the standard library only.
        arguments: its arguments; the program can read them.
        settings: how it is run.
        streams: as for `subprocess.Popen`; files named in `pass_fds` stay open in the sandbox.

    Raises:
        NoSandboxError: there is none on this machine.
    """
    python = [str(_python()), "-I", "-S", "-B"]
    if settings.unsandboxed_code is not None:
        return subprocess.Popen([*python, str(script), *arguments], env={}, cwd="/", **streams)
    check()
    return _confined([*python, "/script.py", *arguments], ["--ro-bind", str(script.resolve()), "/script.py"], **streams)


@functools.cache
def check() -> None:
    """Start a sandbox once.

    Raises:
        NoSandboxError: with what is missing.
    """
    if shutil.which("bwrap") is None:
        raise _missing("no program bwrap")
    syscalls.program()
    try:
        done = _confined([str(_python()), "-I", "-S", "-c", "print(6 * 7)"], [], stdout=-1, stderr=-1)
        out, told = done.communicate(timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _missing(str(error)) from None
    if out.strip() != b"42":
        raise _missing(f"bwrap ended with {done.returncode} ({told.decode(errors='replace').strip()[-300:]})")


def _missing(found: str) -> NoSandboxError:
    hint = (
        "install bubblewrap, and where it may not make user namespaces allow that (docs/graders.md); or set "
        "judge.sandbox.unsandboxed_code to the sentence given there"
    )
    return NoSandboxError("sandbox", found, "bubblewrap that can make user namespaces", hint)


def _confined(command: Sequence[str], files: Sequence[str], **streams: Any) -> "subprocess.Popen[bytes]":
    """The command in a sandbox, with more files in it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, syscalls.program())  # some 800 bytes: a pipe holds them
        os.close(writing)
        streams["pass_fds"] = (*streams.get("pass_fds", ()), reading)
        wrapped = [*_bwrap(), *files, "--remount-ro", "/", "--seccomp", str(reading), "--", *command]
        return subprocess.Popen(wrapped, env={}, cwd="/", **streams)
    finally:
        os.close(reading)


@functools.cache
def _bwrap() -> tuple[str, ...]:
    """The start of the command: bubblewrap with its flags, up to the files of the single program."""
    flags = ["--unshare-all", "--unshare-user", "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL"]
    flags += ["--hostname", "sandbox", "--new-session", "--die-with-parent", "--clearenv", "--chdir", "/"]
    for path in _files():
        flags += ["--ro-bind", path, path]
    stdlib = Path(sysconfig.get_path("stdlib"))
    for name in ("site-packages", "dist-packages"):
        if (stdlib / name).is_dir():
            flags += ["--tmpfs", str(stdlib / name), "--remount-ro", str(stdlib / name)]
    return (shutil.which("bwrap") or "bwrap", *flags)


def _python() -> Path:
    """The interpreter itself, not the link of a virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


@functools.cache
def _files() -> tuple[str, ...]:
    """Interpreter, standard library, and the shared libraries of both under all names they have in their folders."""
    stdlib = sysconfig.get_path("stdlib")
    probe = [str(_python()), "-I", "-S", "-c", PROBE, f"{stdlib}/lib-dynload"]
    told = subprocess.run(probe, capture_output=True, text=True, check=False, env={}, timeout=60).stdout
    mapped = {Path(line) for line in told.splitlines() if not line.startswith(stdlib) and ".so" in line}
    names = {str(_python()), stdlib, *_loader(_python())}
    for library in mapped:
        names |= {
            str(one) for one in library.parent.glob(f"{library.name.partition('.so')[0]}*.so*") if one.samefile(library)
        }
        names |= {str(one) for one in library.parent.glob("*.so*") if one.is_symlink() and one.resolve() == library}
    names |= {"/etc/ld.so.cache"} if Path("/etc/ld.so.cache").is_file() else set()
    return tuple(sorted(name for name in names if Path(name).exists()))


def _loader(python: Path) -> list[str]:
    """The program loader that an ELF file names, such as /lib64/ld-linux-x86-64.so.2."""
    with python.open("rb") as file:
        found = re.search(rb"/[\w/.+-]*/ld-[\w.+-]+", file.read(8192))
    return [found[0].decode()] if found else []
