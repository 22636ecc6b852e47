"""`star1 doctor`: what a run with models needs and can be seen beforehand, without asking any model anything."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import yaml

from star1 import images, runs
from star1.endpoints import Endpoint, connect
from star1.errors import CallError, InputError, SettingError, Star1Error
from star1.params import Params, Roles
from star1.preflight import (
    Listing,
    alias_warning,
    check_known,
    end_warning,
    listing,
    sent_name,
    where,
)
from star1.records import file_digest

GIGABYTE = 10**9
# Free space below which a run is warned of, and refused: 41K replies of a reasoning model take 0.3 GB.
LITTLE_GB, TOO_LITTLE_GB = 2.0, 0.1
FOLDERS = ("data", "data/replies", "models", "results", "logs", ".snakemake", ".work")
TOOL_S = 10.0
# How servers answer that have no list of models, or give it to nobody without a key.
NO_LIST = (401, 404, 405, 501)

Level = Literal["ok", "note", "warning", "refused"]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    level: Level
    text: str

    def line(self) -> str:
        """It as one line."""
        return f"{self.level:<8} {' '.join(self.text.split())}"


def examine(params: Params, names: Sequence[str] = (), whole: bool = False, today: date | None = None) -> list[Finding]:
    """All checks: of endpoints (those of `names`, or that a role names, or with `whole` all), and of this machine.

    Raises:
        SettingError: no endpoint of such a name.
    """
    chosen = _chosen(params, names, whole)
    day = today or date.today()
    findings = asyncio.run(_all_endpoints(chosen, day))
    return findings if names else [*findings, *machine(), *containers(params.images.variant)]


def _chosen(params: Params, names: Sequence[str], whole: bool) -> dict[str, Endpoint]:
    """Endpoints by how they are called in findings."""
    endpoints, roles = params.llm.endpoints, {role: params.llm.pool(role) for role in Roles.model_fields}
    judges = {f"judge {name}": params.judge.judges[name].endpoints for name in params.judge.use.names}
    roles |= {judge: params.llm.named(names) for judge, names in judges.items()}
    for name in names:
        if name not in endpoints:
            raise SettingError("doctor", repr(name), f"an endpoint of params.yaml: {', '.join(endpoints)}")
    in_use = [name for name in endpoints if any(name in pool for pool in roles.values())]
    found = {}
    for name in names or (endpoints if whole else in_use):
        played = [role for role, pool in roles.items() if name in pool]
        found[f"endpoint {name} ({', '.join(played) or 'no role'})"] = endpoints[name]
    return found if names else found | _generating(params)


def _generating(params: Params) -> dict[str, Endpoint]:
    """The server that answers benchmarks, where one does: each model by the name that it is asked for."""
    options, found = params.generate.options, {}
    if params.generate.engine != "openai":
        return {}
    key = options.get("key_variable") or "OPENAI_API_KEY"
    for model in runs.expand(params.generate.models, params.finetune.table()):
        served = options.get("served_model") or model
        about = {"model": served, "label": served, "base_url": options.get("base_url")}
        # There the key is optional.
        about["key"] = key if os.environ.get(key) and re.fullmatch("[A-Z][A-Z0-9_]*", key) else None
        found[f"generate.options ({served})"] = Endpoint(provider="openai", **about)
    return found


async def _all_endpoints(chosen: Mapping[str, Endpoint], today: date) -> list[Finding]:
    groups = await asyncio.gather(*(_endpoint(name, endpoint, today) for name, endpoint in chosen.items()))
    return [finding for group in groups for finding in group]


async def _endpoint(name: str, endpoint: Endpoint, today: date) -> list[Finding]:
    if endpoint.provider != "openai":
        rows = endpoint.rows
        if rows is not None and not Path(rows).is_file():
            return [Finding("refused", f"{name}: no file {rows}; expected the rows that are replayed.")]
        return [Finding("ok", f"{name}: {endpoint.label!r} answers in this process")]
    if endpoint.batch is not None and endpoint.batch.kind == "vllm":
        told = (
            "the command is here" if shutil.which("vllm") else "no command vllm here: its files are for another machine"
        )
        return [Finding("ok", f"{name}: files for vllm run-batch, model {endpoint.model!r}; {told}")]
    findings, asked = [_key(name, endpoint)], endpoint
    if findings[0].level == "refused":
        # Whether somebody answers there can be seen without the key.
        asked = endpoint.model_copy(update={"key": None})
    api = connect(asked)
    try:
        found = await listing(api, asked)
    finally:
        await api.close()
    return [*findings, _address(name, asked, found), *_model(name, asked, found, today)]


def _key(name: str, endpoint: Endpoint) -> Finding:
    try:
        endpoint.secret()
    except SettingError as error:
        return Finding("refused", f"{name}: {error}")
    told = f"environment variable {endpoint.key} is set" if endpoint.key else "no key is named, and none is sent"
    return Finding("ok", f"{name}: {told}")


def _address(name: str, endpoint: Endpoint, found: Listing) -> Finding:
    """Whether somebody answers there, and takes the key."""
    if found.status is None:
        hint = "start the server, or correct the endpoint's base_url"
        error = CallError(where(endpoint), found.problem, "a server that answers there", hint)
        return Finding("refused", f"{name}: {error}")
    if found.status == 401 and endpoint.key:
        hint = f"check the value of environment variable {endpoint.key}"
        error = CallError(where(endpoint), "status 401, the key is not accepted", "a key that is", hint)
        return Finding("refused", f"{name}: {error}")
    told = f"answers with status {found.status}" if found.status >= 400 else "answers"
    doubtful = found.status >= 400 and found.status not in NO_LIST
    return Finding("warning" if doubtful else "ok", f"{name}: {where(endpoint)}: {told}")


def _model(name: str, endpoint: Endpoint, found: Listing, today: date) -> Iterator[Finding]:
    model = sent_name(endpoint)
    if found.names is None:
        yield Finding("note", f"{name}: not listed: whether there is a model {model!r} is seen at the first call")
    else:
        try:
            check_known(endpoint, found.names)
            yield Finding("ok", f"{name}: model {model!r} is one of the {len(found.names)} that the endpoint offers")
        except CallError as error:
            yield Finding("refused", f"{name}: {error}")
    if alias := alias_warning(endpoint, found.names or ()):
        yield Finding("warning", f"{name}: {alias}")
    try:
        if near := end_warning(endpoint, today):
            yield Finding("warning", f"{name}: {near}")
        elif endpoint.retires:
            yield Finding("ok", f"{name}: model {model!r} is served until {endpoint.retires}")
    except CallError as error:
        yield Finding("refused", f"{name}: {error}")


def machine(root: Path = Path()) -> list[Finding]:
    """What can be seen of this machine: room and rights for what a run writes, and tools that some stages need."""
    return [_room(root / "data/replies"), *_rights(root), *_tools()]


def _nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free / GIGABYTE
    if free < TOO_LITTLE_GB:
        error = Star1Error(folder, f"{free:.2f} GB free", f"at least {TOO_LITTLE_GB:g} GB", "make room on this disk")
        return Finding("refused", str(error))
    return Finding("warning" if free < LITTLE_GB else "ok", f"{folder}: {free:,.1f} GB free for replies")


def _rights(root: Path) -> Iterator[Finding]:
    folders = [root / name for name in FOLDERS]
    closed = [folder for folder in folders if not os.access(_nearest(folder), os.W_OK | os.X_OK)]
    for folder in closed:
        hint = "take a copy of the project that is yours, or ask for the right"
        yield Finding("refused", str(Star1Error(folder, "not writable", "a folder that can be written", hint)))
    if not closed:
        yield Finding("ok", f"{', '.join(FOLDERS)}: writable")


def _tools() -> Iterator[Finding]:
    there = {name: importlib.util.find_spec(name) is not None for name in ("vllm", "bitsandbytes")}
    there["vllm"] |= Path(".venv-vllm/bin/python").exists()  # `make engines`
    there |= {"apptainer": _command("apptainer", "singularity"), "bwrap": _command("bwrap")}
    needs = {"vllm": "`generate.engine: vllm` and local servers", "bitsandbytes": "runs of tier qlora"}
    needs |= {"apptainer": "`--sdm apptainer`", "bwrap": "the sandbox of programs (benchmarks with grader code)"}
    for name, needed in needs.items():
        yield Finding("note", f"{name}: {'there' if there[name] else f'not there; only {needed} would need it'}")
    gpus = _gpus()
    yield Finding("note", f"CUDA: {', '.join(gpus) if gpus else 'no GPU that nvidia-smi tells of'}")


def profiles_with_containers(environment: Mapping[str, str], root: Path = Path()) -> list[str]:
    """Profiles by which Snakemake, started from here as it is, would run rules in containers."""
    named = [environment.get(name, "") for name in ("SNAKEMAKE_PROFILE", "SNAKEMAKE_WORKFLOW_PROFILE")]
    found = []
    for folder in dict.fromkeys(one for one in [*named, "profiles/default"] if one):
        path = root / folder / "config.yaml"
        settings = (yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None) or {}
        methods = [settings.get(key) for key in ("software-deployment-method", "sdm")]
        if "apptainer" in " ".join(str(one) for one in methods):
            found.append(folder)
    return found


def containers(variant: str, root: Path = Path(), environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Where a profile asks for containers: the command, and each image, which is to be the one that was built."""
    asked = profiles_with_containers(environment, root)
    if not asked:
        return []
    findings = []
    if not _command("apptainer", "singularity"):
        hint = "`module load apptainer` on many clusters"
        error = Star1Error("apptainer", f"no such command; {asked[0]} asks for containers", "it on the PATH", hint)
        findings.append(Finding("refused", str(error)))
    for kind in images.KINDS:
        try:
            findings.append(_image(images.Image(kind, variant, root)))
        except InputError as error:
            findings.append(Finding("refused", str(error)))
    return findings


def _image(image: images.Image) -> Finding:
    name, build = f"image {image.kind}", "`make images` builds it"
    if not image.path.is_file():
        others = (path.name for path in image.path.parent.glob("*.sif") if path.stem.rpartition("-")[0] == image.label)
        told = "".join(f"; {other} is for other locks or definitions" for other in sorted(others))
        error = Star1Error(name, f"no {image.file}{told}", "the image for what is in containers/ and envs/ now", build)
        return Finding("refused", str(error))
    record = images.read_record(image.path)
    if record is None or record.get("sha256") != file_digest(image.path):
        found = f"{image.file} {'has no record' if record is None else 'is not the file that its record tells of'}"
        error = Star1Error(name, found, "an image as `make images` leaves it", f"rm {image.file}; {build}")
        return Finding("refused", str(error))
    return Finding("ok", f"{name}: {image.file}, as it was built")


def _command(*names: str) -> bool:
    return any(shutil.which(name) for name in names)


def _gpus() -> list[str]:
    if not _command("nvidia-smi"):
        return []
    ask = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=TOOL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
