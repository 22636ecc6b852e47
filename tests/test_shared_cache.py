"""One DVC cache for a group: links to it are read-only, and nothing that anybody does writes through one."""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_workflow import Project, make

# Accounts that every Debian has; the group of the second is the one that shares.
ACCOUNTS = ("daemon", "games")
KEEP = """
from star1.replies import Reply, Store
with Store("data/replies/stage.jsonl") as store:
    store.keep({{"key": "{0}", "item": "{0}"}}, Reply("answer {0}"))
"""
# Interpreters of their own often lie in root's home, which others may not enter: only that part of it is shown to them.
OPENED = (
    'mount --bind "$1" "$2" && mount -t tmpfs -o mode=755 none "$3" && mkdir -p "$1" && mount --bind "$2" "$1"'
    ' && shift 3 && exec "$@"'
)


class Member(Project):
    """A project in the hands of one of the group."""

    def __init__(self, path: Path, become: list[str], home: Path) -> None:
        super().__init__(path)
        self.become, self.home = become, home

    def run(self, *command: str, ok: bool = True) -> str:
        done = subprocess.run(
            [*self.become, *command],
            cwd=self.path if self.path.is_dir() else self.home,
            env=os.environ | {"HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        text = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, f"{command} ended with {done.returncode}:\n{text}"
        return text

    def keep(self, key: str) -> None:
        """Append to the store of replies, as a stage does."""
        self.run("python", "-c", KEEP.format(key))


def closed(path: Path) -> list[Path]:
    """The folders on the way to a path that not everybody may enter, the outermost first."""
    return [one for one in reversed(path.parents) if one.stat().st_mode & 0o005 != 0o005]


def become(account: str, group: int, folder: Path) -> list[str]:
    """What runs a command as another account."""
    command = ["setpriv", f"--reuid={pwd.getpwnam(account).pw_uid}", f"--regid={group}", "--clear-groups"]
    if shut := closed(Path(sys.base_prefix) / "x"):
        (folder / "hold").mkdir(exist_ok=True)
        shown = ["unshare", "--mount", "sh", "-c", OPENED, "sh", sys.base_prefix, str(folder / "hold"), str(shut[0])]
        command = [*shown, *command]
    return command


def can_become(folder: Path) -> bool:
    """Whether commands can be run as other accounts here."""
    if os.geteuid() != 0 or not shutil.which("setpriv") or closed(ROOT / "x") or closed(Path(sys.executable)):
        return False
    try:
        command = become(ACCOUNTS[0], pwd.getpwnam(ACCOUNTS[1]).pw_gid, folder)
    except KeyError:
        return False
    return subprocess.run([*command, "python", "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.fixture
def group() -> Iterator[tuple[Member, Member, Path]]:
    """Two members with a home each, the first with a project, and the cache that it is set to use.

    Two accounts where this can be: the first then has hard links, and the second symbolic ones, since Linux lets nobody
    make a hard link to a file of somebody else that he may not write to. Else one account with symbolic links.
    """
    folder = Path(tempfile.mkdtemp())  # pytest's own lies where only its user may look
    folder.chmod(0o755)
    try:
        yield members(folder, own=not can_become(folder))
    finally:
        shutil.rmtree(folder)


def members(folder: Path, own: bool) -> tuple[Member, Member, Path]:
    gid = os.getegid() if own else pwd.getpwnam(ACCOUNTS[1]).pw_gid
    found = []
    for account in ACCOUNTS:
        home = folder / account
        home.mkdir()
        (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n[user]\n\tname = t\n\temail = t@example.org\n")
        found.append(Member(home / "project", [] if own else become(account, gid, folder), home))
    first, second = found
    make(first.path)
    cache = folder / "cache"
    cache.mkdir()
    if not own:
        for member, account in zip(found, ACCOUNTS, strict=True):
            for path in (member.home, *member.home.rglob("*")):
                os.chown(path, pwd.getpwnam(account).pw_uid, gid, follow_symlinks=False)
        os.chown(cache, 0, gid)
    cache.chmod(0o2770)
    # As docs/data.md has it.
    first.run("dvc", "remote", "remove", "release")
    first.run("dvc", "cache", "dir", str(cache))
    first.run("dvc", "config", "cache.shared", "group")
    first.run("dvc", "config", "cache.type", "symlink" if own else "hardlink,symlink")
    return first, second, cache


def commit(member: Member) -> None:
    member.run("git", "add", "-A")
    member.run("git", "commit", "-qm", "as it is")


def check(cache: Path, group: int) -> None:
    """Each object still has the content that it is named by, may not be written to, and lies where the group may write."""
    objects = [path for path in (cache / "files/md5").rglob("*") if path.is_file()]
    assert len(objects) >= 5
    for path in objects:
        name = f"{path.parent.name}{path.name}".removesuffix(".dir")
        assert hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == name
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
    for path in {path.parent for path in objects}:
        assert stat.S_IMODE(path.stat().st_mode) == 0o2775
        assert path.stat().st_gid == group


def test_two_members_work_on_one_cache(group: tuple[Member, Member, Path]) -> None:
    first, second, cache = group
    first.keep("a")
    first.run("snakemake", "--quiet", "rules", "host", "reason")
    commit(first)
    assert (first.path / "data/replies/stage.jsonl").stat().st_mode & 0o222 == 0  # a link by now
    second.run("git", "clone", "-q", str(first.path), str(second.path))
    second.run("dvc", "checkout", "-q")  # the cache has it all: nothing to pull
    assert second.clean()
    # What grows in place, and what is made anew, where a read-only link lies.
    second.keep("b")
    second.edit("params.yaml", "alpha: 0.1", "alpha: 0.3")
    second.run("snakemake", "--quiet", "rules", "host", "reason")
    assert "0.3" in second.read("results/summary.txt")
    assert second.read("data/replies/stage.jsonl").count('"status":"ok"') == 2
    check(cache, cache.stat().st_gid)
    assert "0.1" in first.read("results/summary.txt")
    assert first.read("data/replies/stage.jsonl").count('"status":"ok"') == 1
    commit(second)
    first.run("git", "pull", "-q", str(second.path), "HEAD")
    first.run("dvc", "checkout", "-q")
    assert first.clean()
    first.keep("c")
    assert first.read("data/replies/stage.jsonl").count('"status":"ok"') == 3
    check(cache, cache.stat().st_gid)
