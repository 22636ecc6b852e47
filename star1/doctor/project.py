"""The project's own state: git, dvc.yaml, locks that were left, DVC's cache and remote."""

import configparser
import functools
import grp
import importlib.util
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from star1.doctor import commands
from star1.doctor.about import About, nearest
from star1.doctor.findings import Outcome, Seen, Unknown, finding

PLAN_LIMIT_S = 50.0
CONNECT_S = 4.0
SAID = 6  # lines of a complaint, the last of which may be but the name of a file
PORTS = {"ssh": 22, "https": 443, "http": 80, "s3": 443}
# The package behind each kind of remote.
PLUGINS = {
    "ssh": "dvc_ssh",
    "s3": "dvc_s3",
    "gs": "dvc_gs",
    "azure": "dvc_azure",
    "webdav": "dvc_webdav",
    "webdavs": "dvc_webdav",
}


def dvc_yaml(about: About) -> Iterator[Outcome]:
    """Whether dvc.yaml is what the rules generate; in a process of its own, since it loads the workflow."""
    if about.preset is not None:
        yield Unknown(
            "dvc-yaml",
            f"with {about.preset} in params.yaml `star1 preset` writes it; only what lies here can be compared",
        )
        return
    told = commands.ask([sys.executable, "-m", "star1.cli", "dvc-yaml", "--check"], PLAN_LIMIT_S)
    if told.status == 0:
        yield Seen("dvc-yaml", "dvc.yaml is what the rules generate")
    elif "out of step" in told.error:
        yield finding("dvc-yaml", "dvc.yaml", "out of step with the rules and params.yaml", "star1 dvc-yaml")
    elif told.status is None:
        yield Unknown("dvc-yaml", told.last)
    else:
        said = " ".join(line for line in told.error.splitlines()[-SAID:] if line.strip())
        yield finding("plan", "Snakefile", said[-400:], "snakemake --dry-run --quiet rules")


def git(_: About) -> Iterator[Outcome]:
    """Git knows this folder, and no merge is half done."""
    if commands.which("git") is None:
        yield Unknown("git", "no command git")
        return
    told = commands.ask(["git", "-c", "core.quotePath=off", "diff", "--name-only", "--diff-filter=U"])
    if "dubious ownership" in told.error:
        fix = f"git config --global --add safe.directory {Path.cwd()}"
        yield finding("git", Path.cwd(), "it belongs to somebody else, and git does not trust it", fix)
    elif told.status != 0:
        fix = "git init && git add . && git commit -m 'Begin'"
        yield finding("git", Path.cwd(), f"git: {told.last}", fix, "warning")
    elif names := told.out.split("\n")[:-1]:
        yield finding("git", names[0], f"{len(names)} files with unfinished merges", "git status && git merge --abort")
    else:
        yield Seen("git", "git knows this folder, and no merge is open")


def locks(_: About) -> Iterator[Outcome]:
    """Locks of Snakemake in this folder."""
    left = sorted(Path(".snakemake/locks").glob("*.lock"))
    if left:
        what = "a lock of Snakemake: a run is at work, or was killed"
        yield finding("engine-lock", left[0], what, "snakemake --unlock  # when no run is at work")
    else:
        yield Seen("engine-lock", "no lock of an earlier run")


@functools.cache
def dvc_settings() -> Mapping[tuple[str, str], str]:
    """DVC's settings of this project, by section and key; those of this machine over those in git."""
    reader = configparser.ConfigParser(interpolation=None, strict=False)
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    reader.read([home / "dvc/config", ".dvc/config", ".dvc/config.local"], "utf-8")
    return {
        (section.removeprefix("'").removesuffix("'"), key): value
        for section in reader.sections()
        for key, value in reader.items(section)
    } | _cache_of(reader)


def _cache_of(reader: configparser.ConfigParser) -> dict[tuple[str, str], str]:
    """The cache's folder as seen from here: a relative one is meant from the file that names it, in .dvc."""
    text = reader.get("cache", "dir", fallback="")
    return {("cache", "dir"): os.path.normpath(Path(".dvc") / text)} if text else {}


def cache(_: About) -> Iterator[Outcome]:
    """DVC's cache: can it be written, and by the whole group where it is shared?"""
    settings = dvc_settings()
    folder = Path(settings.get(("cache", "dir"), ".dvc/cache"))
    place = nearest(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        yield finding("dvc-cache", folder, f"{place} cannot be written", f"sudo chown -R $USER {place}")
        return
    if settings.get(("cache", "shared")) == "group" and folder.is_dir():
        about = folder.stat()
        mode, group = stat.S_IMODE(about.st_mode), _group(about.st_gid)
        if not mode & stat.S_IWGRP or not mode & stat.S_ISGID:
            what = f"shared by a group, with mode {mode:o}; expected 2775 or more"
            yield finding(
                "dvc-cache", folder, what, f"chgrp -R {group} {folder} && chmod -R g+rwXs {folder}", "warning"
            )
            return
        if os.geteuid() != 0 and about.st_gid not in (*os.getgroups(), os.getegid()):
            yield finding(
                "dvc-cache",
                folder,
                f"shared by group {group}, and you are not in it",
                f"sudo usermod -aG {group} $USER",
            )
            return
    yield Seen("dvc-cache", f"DVC's cache {folder} can be written")


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def remote(about: About) -> Iterator[Outcome]:
    """The default remote: its package, and whether somebody is there; keys are not tried."""
    settings = dvc_settings()
    name = settings.get(("core", "remote"))
    if name is None:
        yield Unknown("dvc-remote", "no default remote is set; artifacts are on this machine alone")
        return
    url = settings.get((f'remote "{name}"', "url"))
    if url is None:
        yield finding(
            "dvc-remote", name, "core.remote names it, and it has no url", f"dvc remote add -f -d {name} FOLDER"
        )
        return
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in PLUGINS and importlib.util.find_spec(PLUGINS[scheme]) is None:
        package = PLUGINS[scheme].replace("_", "-")
        yield finding(
            "dvc-remote", name, f"{scheme} remotes need package {package}", f"python -m pip install {package}"
        )
    elif scheme in ("", "file"):
        yield _folder(name, Path(".dvc") / url.removeprefix("file://"))
    elif about.offline:
        yield Unknown("dvc-remote", f"{name}: --offline")
    else:
        yield _server(name, url, settings.get((f'remote "{name}"', "endpointurl")))


def _folder(name: str, folder: Path) -> Outcome:
    folder = Path(os.path.normpath(folder))
    if not folder.is_dir():
        return finding(
            "dvc-remote",
            name,
            f"no folder {folder}",
            f"mkdir -p {folder}  # or mount it: dvc remote modify {name} url FOLDER",
        )
    if not os.access(folder, os.W_OK):
        return finding(
            "dvc-remote", name, f"{folder} cannot be written; `dvc push` would fail", f"sudo chown -R $USER {folder}"
        )
    return Seen("dvc-remote", f"{name}: {folder}")


def _server(name: str, url: str, endpoint: str | None) -> Outcome:
    """Whether a server answers at the remote's address."""
    address = urlsplit(endpoint or ("https://s3.amazonaws.com" if url.startswith("s3:") else url))
    host = address.hostname or re.sub(r"^.*@", "", address.netloc)
    try:
        port = address.port or PORTS.get(address.scheme)
        if port is None:
            return Unknown("dvc-remote", f"{name}: remotes of kind {address.scheme} are not tried")
        socket.create_connection((host, port), CONNECT_S).close()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        return finding(
            "dvc-remote", name, f"{host}:{port}: {problem}", f"dvc remote list && dvc status --cloud --remote {name}"
        )
    return Seen("dvc-remote", f"{name}: {host} answers; whether it lets you in is seen at `dvc push`")
