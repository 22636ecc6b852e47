"""`star1 doctor` finds what is wrong: each kind of finding is planted in a copy of the project, and is not there without."""

import errno
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from star1 import doctor, images, prefetched
from star1.doctor import containers, disk, folders, machine, network, slurm
from star1.doctor.ids import IDS, SEVERITIES, table
from star1.records import file_digest
from tests.conftest import ROOT
from tests.faulty import Place, Plant, copy, forget_sandbox, place, sinfo, smi
from tests.fileserver import COMMIT, FileServer, serving
from tests.loopback import Answer, server

SECRET = "sk-doctor-77b0c1d2e3f4a5b6"
SHAPE_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "vocab_size": 152064,
}
SLURM = "executor: slurm\nslurm-status-command: squeue\ndefault-resources: {slurm_partition: gpu}\n"
NODES = ("cpu|up|2-00:00:00|4|256000|64|(null)|idle", "gpu|up|1-00:00:00|2|512000|64|gpu:a100:8(S:0-1)|mixed")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files, once."""
    folder = tmp_path_factory.mktemp("doctor") / "base"
    folder.mkdir()
    copy(folder)
    return folder


@pytest.fixture
def here(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A copy to plant a fault in."""
    with place(base, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def files() -> Iterator[FileServer]:
    """The hub, on loopback."""
    with serving() as made:
        yield made


# --- plants: programs, packages, images ------------------------------------------------------------------------------


def another_python(here: Place) -> None:
    here.program("python", "echo /usr/lib/other")


def locked_otherwise(here: Place) -> None:
    here.edit("envs/local.lock", lambda text: text.replace(f"numpy=={metadata.version('numpy')}", "numpy==0.1"))


def needs_more(here: Place) -> None:
    here.edit(
        "pyproject.toml", lambda text: text.replace("dependencies = [", 'dependencies = [\n    "no-such-thing>=1",', 1)
    )


def no_engine(here: Place) -> None:
    here.values["generate"]["engine"] = "vllm"


def in_containers(here: Place, tool: str = "apptainer version 1.5.2") -> None:
    """A profile that asks for containers, all three images, and an apptainer that starts them."""
    here.profile("software-deployment-method: apptainer\n")
    here.program("apptainer", f'case "$1" in --version) echo {tool};; esac')
    for kind in images.KINDS:
        path = images.Image(kind).path
        path.write_bytes(kind.encode())
        images.record_file(path).write_text(json.dumps({"sha256": file_digest(path), "bytes": len(kind)}))


def no_apptainer(here: Place) -> None:
    in_containers(here)
    (here.root.parent / "bin/apptainer").unlink()
    here.without("apptainer", "singularity")


def failing_apptainer(here: Place) -> None:
    in_containers(here)
    here.program(
        "apptainer",
        'case "$1" in --version) echo apptainer version 1.5.2;; *) echo no loop device >&2; exit 255;; esac',
    )


def slow_apptainer(here: Place) -> None:
    in_containers(here)
    here.program("apptainer", 'case "$1" in --version) echo apptainer version 1.5.2;; *) sleep 0.3;; esac')
    here.patch.setattr(containers, "SLOW_S", 0.2)


def no_namespaces(here: Place) -> None:
    failing_apptainer(here)
    here.program("unshare", "echo unshare failed: Operation not permitted >&2; exit 1")


def no_image(here: Place) -> None:
    in_containers(here)
    images.Image("finetune").path.unlink()


def altered_image(here: Place) -> None:
    in_containers(here)
    images.Image("data").path.write_bytes(b"dat@")


def cpu_images(here: Place) -> None:
    here.preset("paper")
    here.values["images"]["variant"] = "cpu"
    in_containers(here)
    here.program("nvidia-smi", smi("NVIDIA A100, 81559"))


def failing_sandbox(here: Place) -> None:
    here.values["judge"]["sandbox"]["if_missing"] = "fail"
    here.program("bwrap", "echo bwrap: No permissions to create new namespace >&2; exit 1")
    forget_sandbox()


# --- plants: GPUs, memory, Slurm -------------------------------------------------------------------------------------


def broken_driver(here: Place) -> None:
    device = here.root.parent / "nvidiactl"
    device.touch()
    here.patch.setattr(machine, "DEVICES", (str(device),))
    here.program("nvidia-smi", "echo Failed to initialize NVML: Driver/library version mismatch; exit 18")


def few_gpus(here: Place) -> None:
    here.preset("paper")
    here.program("nvidia-smi", smi("NVIDIA H100, 81559", "NVIDIA H100, 81559"))


def no_gpu_asked(here: Place) -> None:
    few_gpus(here)
    here.values["resources"]["jobs"]["finetune"] = {"mem_mb": 48000}


def small_gpus(here: Place) -> None:
    few_gpus(here)
    (here.root / "models/base/R1-Qwen-7B").mkdir(parents=True)
    (here.root / "models/base/R1-Qwen-7B/config.json").write_text(json.dumps(SHAPE_7B))
    here.program("nvidia-smi", smi(*["Tesla T4, 15360"] * 8))


def torch_without_cuda(here: Place) -> None:
    few_gpus(here)
    version: Callable[[str], str] = metadata.version
    here.patch.setattr(metadata, "version", lambda name: "2.13.0+cpu" if name == "torch" else version(name))


def greedy_rule(here: Place) -> None:
    here.values["resources"]["jobs"]["collect*"]["mem_mb"] = 99_000_000


def by_slurm(here: Place, *nodes: str, profile: str = SLURM) -> None:
    """A profile that hands jobs to Slurm, whose sinfo tells of nodes."""
    here.profile(profile)
    for name in ("sbatch", "squeue"):
        here.program(name, "true")
    here.program("sinfo", sinfo(*(nodes or NODES)))


def no_slurm(here: Place) -> None:
    here.profile(SLURM)
    here.without("sbatch", "squeue", "sinfo")


def silent_slurm(here: Place) -> None:
    by_slurm(here)
    here.program("sinfo", "echo Unable to contact slurm controller >&2; exit 1")


def other_partition(here: Place) -> None:
    by_slurm(here, NODES[0])


def nodes_down(here: Place) -> None:
    by_slurm(here, NODES[0], NODES[1].replace("mixed", "down*"))


def slurm_gpus(here: Place) -> None:
    here.preset("paper")
    by_slurm(here, NODES[0], NODES[1].replace("a100:8", "a100:4"))


def slurm_memory(here: Place) -> None:
    by_slurm(here, NODES[1].replace("512000", "4000"))


def slurm_time(here: Place) -> None:
    by_slurm(here, NODES[1].replace("1-00:00:00", "4:00:00"))


def no_accounts(here: Place) -> None:
    by_slurm(here, profile=SLURM.replace("squeue", "sacct"))
    here.program("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")


def stale_slurm(here: Place) -> None:
    conf = here.root.parent / "slurm.conf"
    conf.write_text("ClusterName=c\nSlurmctldHost=login(127.0.0.1)\nSlurmctldPort=9\n")
    here.patch.setenv("SLURM_CONF", str(conf))


# --- plants: room, file systems --------------------------------------------------------------------------------------


def full_disk(here: Place) -> None:
    here.mounted("models", "size=1m")


def no_inodes(here: Place) -> None:
    here.mounted("models", "size=2g,nr_inodes=50")


def small_quota(here: Place) -> None:
    device = disk.file_system(here.root)[0]
    # Used, quota, limit and grace of blocks [KiB], then of files.
    here.program("quota", sinfo("Disk quotas for user me (uid 1):", f"{device} 990000* 900000 1000000 0 5000 0 0 0"))


def small_home(here: Place) -> None:
    wanting(here, "o/n")
    here.patch.setenv("HOME", str(here.mounted("../home", "size=40m")))


def small_tmp(here: Place) -> None:
    here.patch.setenv("TMPDIR", str(here.mounted("../tmp", "size=1m")))


def closed_folder(here: Place) -> None:
    here.mounted("results", "size=1m,ro")


def closed_cache(here: Place) -> None:
    here.mounted(".dvc/cache", "size=1m,ro")


def no_locks(here: Place) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    here.patch.setattr(fcntl, "flock", refuse)


def no_rename(here: Place) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    here.patch.setattr(Path, "replace", refuse)


def other_clock(here: Place) -> None:
    now: Callable[[], float] = time.time
    here.patch.setattr(time, "time", lambda: now() + 100)


def no_hardlinks(here: Place) -> None:
    here.mounted("../cache", "size=1m")
    (here.root / ".dvc/config.local").write_text("[cache]\n    type = hardlink\n    dir = ../../cache\n")


def network_folder(here: Place) -> None:
    here.patch.setattr(folders, "file_system", lambda _: ("server:/home", "nfs4"))


# --- plants: the project ---------------------------------------------------------------------------------------------


def no_repository(here: Place) -> None:
    (here.root / ".git").rename(here.root.parent / "git")


def left_lock(here: Place) -> None:
    (here.root / ".snakemake/locks").mkdir(parents=True)
    (here.root / ".snakemake/locks/0.input.lock").touch()


def no_remote(here: Place) -> None:
    (here.root / "dvc-store").rmdir()


def no_plan(here: Place) -> None:
    (here.root / "published/paper_results.csv").unlink()


def out_of_step(here: Place) -> None:
    here.edit("dvc.yaml", lambda text: text.replace("stages:", "stages: # by hand"))


# --- plants: network -------------------------------------------------------------------------------------------------


def wanting(here: Place, repository: str, **changes: Any) -> None:
    """Have one prompt set of the hub, in place of the bundled ones."""
    entry = {
        "kind": "hub",
        "repository": repository,
        "revision": COMMIT,
        "path": "a.jsonl",
        "format": "jsonl",
        "rows": 100_000,
    }
    here.values["fetch"]["sources"]["ours"] = (
        entry | {"question": "q", "ngram": 8, "licence": "MIT", "attribution": "a"} | changes
    )
    here.values["collect"]["sources"].append("ours")


def at_hub(here: Place, files: FileServer, **changes: Any) -> None:
    here.patch.setenv("HF_ENDPOINT", files.address)
    wanting(here, "o/n", **changes)
    files.files[f"/datasets/o/n/resolve/{COMMIT}/a.jsonl"] = b"{}"


def no_hub(here: Place) -> None:
    wanting(here, "o/n")
    here.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def no_token(here: Place) -> None:
    wanting(here, "o/n", gated=True)
    here.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def not_prefetched(here: Place) -> None:
    wanting(here, "o/n")
    here.patch.setenv("HF_HUB_OFFLINE", "1")


def damaged_prefetch(here: Place) -> None:
    not_prefetched(here)
    (here.root / "a.jsonl").write_bytes(b"{}")
    key = f"hub o/n@{COMMIT} a.jsonl"
    prefetched.store(key, "ours", [("a.jsonl", here.root / "a.jsonl")])
    (stored,) = Path(prefetched.FOLDER).rglob("a.jsonl")
    stored.unlink()
    stored.write_bytes(b"[]")


# --- plants: endpoints -----------------------------------------------------------------------------------------------


def endpoint(here: Place, **changes: Any) -> None:
    """A teacher that is asked over the network."""
    entry = {"provider": "openai", "model": "r1", "label": "r1", "base_url": "http://127.0.0.1:9/v1"} | changes
    here.values["llm"]["endpoints"]["r1"] = entry
    here.values["llm"]["roles"]["teacher"] = "r1"


def no_rows(here: Place) -> None:
    endpoint(here, provider="replay", label="replay", rows="nowhere.jsonl")


def spent(here: Place) -> None:
    endpoint(here, price={"input": 1000, "output": 1000}, max_usd=0.01)
    (here.root / "data").mkdir(exist_ok=True)
    rows = [json.dumps({"id": str(n), "question": "What is this?", "category": ["Self-Harm"]}) for n in range(50)]
    (here.root / "data/categorized.jsonl").write_text("\n".join(rows) + "\n")


PLANTS: dict[str, Plant] = {
    "python": another_python,
    "tool-missing": lambda here: here.without("dvc", "snakemake"),
    "tool-fails": lambda here: here.program("git", "echo git: error while loading shared libraries >&2; exit 127"),
    "tool-version": lambda here: here.program("dvc", "echo 3.1.0"),
    "package": needs_more,
    "lock": locked_otherwise,
    "engine": no_engine,
    "apptainer": no_apptainer,
    "apptainer-version": lambda here: in_containers(here, "apptainer version 1.1.9"),
    "apptainer-fails": failing_apptainer,
    "apptainer-slow": slow_apptainer,
    "user-namespaces": no_namespaces,
    "image-missing": no_image,
    "image-damaged": altered_image,
    "image-variant": cpu_images,
    "sandbox": failing_sandbox,
    "gpu-driver": broken_driver,
    "gpu-count": few_gpus,
    "gpu-unasked": no_gpu_asked,
    "gpu-memory": small_gpus,
    "gpu-torch": torch_without_cuda,
    "memory": greedy_rule,
    "slurm": no_slurm,
    "slurm-down": silent_slurm,
    "slurm-partition": other_partition,
    "slurm-nodes": nodes_down,
    "slurm-gpus": slurm_gpus,
    "slurm-memory": slurm_memory,
    "slurm-time": slurm_time,
    "slurm-accounting": no_accounts,
    "slurm-stale": stale_slurm,
    "disk": full_disk,
    "inodes": no_inodes,
    "quota": small_quota,
    "cache-home": small_home,
    "tmp-small": small_tmp,
    "folder-closed": closed_folder,
    "dvc-cache": closed_cache,
    "file-locks": no_locks,
    "file-rename": no_rename,
    "file-clock": other_clock,
    "file-links": no_hardlinks,
    "file-network": network_folder,
    "git": no_repository,
    "engine-lock": left_lock,
    "dvc-remote": no_remote,
    "plan": no_plan,
    "dvc-yaml": out_of_step,
    "hf-token": no_token,
    "unreachable": no_hub,
    "prefetch-missing": not_prefetched,
    "prefetch-damaged": damaged_prefetch,
    "endpoint-key": lambda here: endpoint(here, key="OPENAI_API_KEY"),
    "endpoint-down": endpoint,
    "endpoint-retired": lambda here: endpoint(here, retires="2020-01-01"),
    "endpoint-rows": no_rows,
    "endpoint-limit": spent,
}
# Planted below: by a server's answers, or with a params.yaml that cannot be read.
ELSEWHERE = {
    "params",
    "hub-refused",
    "remote-file",
    "clock",
    "endpoint-denied",
    "endpoint-answer",
    "endpoint-model",
    "endpoint-alias",
    "endpoint-ends",
}


def test_every_kind_is_planted() -> None:
    assert set(PLANTS) | ELSEWHERE == set(IDS)
    assert not set(PLANTS) & ELSEWHERE


@pytest.mark.parametrize("kind", PLANTS)
def test_what_is_planted_is_found(kind: str, here: Place) -> None:
    """And is not found in the same place without it (plans take long: for them, the healthy machine below says so)."""
    assert kind in ("plan", "dvc-yaml") or not [one for one in here.examine(kind).findings if one.id == kind]
    PLANTS[kind](here)
    report = here.examine(kind)
    (found, *_) = (one for one in report.findings if one.id == kind)
    assert found.severity in IDS[kind].severities
    assert found.where
    assert found.what
    assert found.why == IDS[kind].why
    assert found.fix
    assert report.status == {"error": 2, "warning": 1, "note": 0}[found.severity] or len(report.findings) > 1


# --- what servers answer ---------------------------------------------------------------------------------------------


def listed(*names: str) -> Answer:
    """A list of models as servers send it."""
    return Answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


@pytest.mark.parametrize(
    ("kind", "answer", "changes"),
    [
        ("endpoint-denied", Answer({"error": {"message": f"wrong key {SECRET}"}}, 401), {"key": "OPENAI_API_KEY"}),
        ("endpoint-answer", Answer({"error": {"message": f"broken by {SECRET}"}}, 500), {"key": "OPENAI_API_KEY"}),
        ("endpoint-model", listed("other", f"model-of-{SECRET}"), {"key": "OPENAI_API_KEY"}),
        ("endpoint-alias", listed("r1", "r1-2025-01-20"), {}),
        ("endpoint-ends", listed("r1"), {"retires": time.strftime("%Y-%m-%d")}),
    ],
)
def test_what_an_endpoint_answers(kind: str, answer: Answer, changes: dict[str, Any], here: Place) -> None:
    """With its kind, and never with the key that the endpoint repeats."""
    here.patch.setenv("OPENAI_API_KEY", SECRET)
    with server(lambda *_: Answer({}), answer) as served:
        endpoint(here, base_url=served.url, **changes)
        report = here.examine(kind)
    assert kind in [one.id for one in report.findings]
    text = "\n".join([*doctor.lines(report), json.dumps(report.as_json())])
    assert SECRET not in text
    assert SECRET[:9] not in text


@pytest.mark.parametrize(("behind_s", "severity"), [(0, None), (600, "warning"), (-600, "warning"), (3600, "error")])
def test_a_clock_that_is_wrong(behind_s: float, severity: str | None, here: Place) -> None:
    """By the date in an endpoint's answer."""
    answer = Answer(listed("r1").body, headers={"Date": formatdate(time.time() + behind_s, usegmt=True)})
    with server(lambda *_: Answer({}), answer) as served:
        endpoint(here, base_url=served.url)
        report = here.examine("endpoint-down")
    found = [one for one in report.findings if one.id == "clock"]
    assert [one.severity for one in found] == ([severity] if severity else [])
    if severity:
        assert ("behind" if behind_s > 0 else "ahead") in found[0].what


@pytest.mark.parametrize(
    ("status", "gated", "kind"),
    [(403, True, "hub-refused"), (401, False, "hub-refused"), (404, False, "remote-file"), (503, False, "unreachable")],
)
def test_what_the_hub_answers(status: int, gated: bool, kind: str, here: Place, files: FileServer) -> None:
    """One HEAD for each entry; the page with the terms is named, the token is not."""
    here.patch.setenv("HF_TOKEN", SECRET)
    at_hub(here, files, gated=gated)
    assert here.examine("unreachable").findings == []
    assert files.asked == [("HEAD", f"/datasets/o/n/resolve/{COMMIT}/a.jsonl", None, f"Bearer {SECRET}", None)]
    files.faults = [{"status": status}]
    report = here.examine("unreachable")
    assert [one.id for one in report.findings] == [kind]
    if kind == "hub-refused":
        assert f"{files.address}/datasets/o/n" in report.findings[0].fix
    assert SECRET not in json.dumps(report.as_json())


def test_what_was_fetched_is_not_asked_for(here: Place, files: FileServer) -> None:
    at_hub(here, files, gated=True)
    (here.root / "data/sources").mkdir(parents=True)
    (here.root / "data/sources/ours.jsonl").touch()
    assert here.examine("unreachable", "hf-token").findings == []
    assert files.asked == []


def test_the_token_goes_to_the_hub_alone(here: Place, files: FileServer) -> None:
    here.patch.setenv("HF_TOKEN", SECRET)
    here.patch.setattr(network, "GITHUB", files.address)
    wanting(here, "o/n", kind="github")
    here.examine("unreachable")
    assert [asked[3] for asked in files.asked] == [None]


def test_offline_nobody_is_asked(here: Place, files: FileServer) -> None:
    """And what was left out is said."""
    at_hub(here, files)
    with server(lambda *_: Answer({}), listed("r1")) as served:
        endpoint(here, base_url=served.url)
        here.asked["offline"] = True
        report = here.examine("unreachable", "endpoint-down", "prefetch-missing")
        assert served.listed == 0
    assert files.asked == []
    assert [one.id for one in report.findings] == ["prefetch-missing"]
    assert {"unreachable", "endpoint-down"} <= {one.id for one in report.not_checked}


# --- more of single checks -------------------------------------------------------------------------------------------


def test_two_holders_of_one_lock(here: Place) -> None:
    """A file system whose locks do nothing: worse than one that says that it has none."""
    here.patch.setattr(fcntl, "flock", lambda *_: None)
    (found,) = here.examine("file-locks").findings
    assert (found.severity, found.what) == ("error", "flock locks a file twice")


def test_without_a_sandbox_the_default_run_only_notes_it(here: Place) -> None:
    failing_sandbox(here)
    here.values["judge"]["sandbox"]["if_missing"] = "unscored"
    report = here.examine("sandbox")
    assert [(one.id, one.severity) for one in report.findings] == [("sandbox", "note")]
    assert report.status == 0
    here.values["generate"]["benchmarks"].remove("humaneval")
    assert here.examine("sandbox").findings == []


def test_an_image_of_other_locks_is_told_from_a_damaged_one(here: Place) -> None:
    """And one whose definition is not there cannot be named."""
    in_containers(here)
    assert here.examine("image-missing").findings == []
    images.Image("data").path.write_bytes(b"cut")
    here.edit("envs/finetune.lock", lambda text: text + "# newer\n")
    (here.root / "containers/vllm.def").unlink()
    told = {one.where: one for one in here.examine("image-missing").findings}
    assert "its record says 4" in told["image data"].what
    assert told["image data"].fix.startswith("rm containers/data-")
    assert "is for other locks or definitions" in told["image finetune"].what
    assert told["image finetune"].fix == "make images KINDS=finetune"
    assert "containers/vllm.def: no such file" in told["image vllm"].what


def test_a_profile_in_the_environment_counts(here: Place) -> None:
    assert not here.about().containers
    here.patch.setenv("SNAKEMAKE_PROFILE", "profiles/apptainer")
    assert here.about().containers
    here.asked["profile"] = "profiles/default"
    assert not here.about().containers


def test_a_partition_file_of_the_executor(here: Place) -> None:
    """Jobs go to partitions that it names; each has to be there."""
    by_slurm(here, profile="executor: slurm\nslurm-status-command: squeue\nslurm-partition-config: parts.yaml\n")
    report = here.examine("slurm")
    assert [(one.id, one.where) for one in report.findings] == [("slurm-partition", "parts.yaml")]
    (here.root / "parts.yaml").write_text("partitions:\n  gpu: {max_runtime: 1d}\n  fat: {max_runtime: 1d}\n")
    report = here.examine("slurm")
    assert [(one.id, one.where) for one in report.findings] == [("slurm-partition", "fat")]
    (here.root / "parts.yaml").write_text("partitions:\n  gpu: {max_runtime: 1d}\n")
    assert here.examine("slurm").findings == []


def test_what_a_profile_asks_for_goes_before_the_rules(here: Place) -> None:
    by_slurm(
        here,
        NODES[0],
        profile=SLURM.replace("gpu", "cpu") + "set-resources: {finetune: {gres: 'gpu:2', mem_mb: 1000}}\n",
    )
    (found,) = here.examine("slurm").findings
    assert (found.id, found.where) == ("slurm-gpus", "rule finetune in cpu")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("2-00:00:00", 2880),
        ("1-12", 2160),
        ("4:00:00", 240),
        ("30:00", 30),
        ("90", 90),
        ("2d", 2880),
        ("1h30m", 90),
        ("infinite", float("inf")),
    ],
)
def test_times_as_slurm_writes_them(text: str, minutes: float) -> None:
    assert slurm.minutes(text) == minutes


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [("(null)", 0), ("gpu:2", 2), ("gpu:a100:4(S:0-1)", 4), ("gpu:a100:4,gpu:t4:2", 6), ("gpu:h100_80gb:8(S:0)", 8)],
)
def test_gpus_as_slurm_writes_them(gres: str, gpus: int) -> None:
    found = slurm.read_nodes(f"gpu|up|infinite|1|1000+|8|{gres}|idle")
    assert found is not None
    assert (found.gpus, found.mem_mb, found.works) == (gpus, 1000, True)


def test_quotas_as_the_tools_write_them() -> None:
    assert disk.read_quota("server:/home 500 1000 2000 0 5 10 20 0", "server:/home") == (500 * 1024, 5)
    assert disk.read_quota("server:/home 500 0 0 0 5 0 0 0", "server:/home") is None
    assert disk.read_quota("server:/other 500 1000 2000 0 5 10 20 0", "server:/home") is None
    assert disk.read_quota(f"{Path.cwd()} 1500* 1000 2000 - 5 0 0 -", "10.0.0.1@tcp:/lustre") == (
        -500 * 1024,
        float("inf"),
    )
    assert disk.read_quota("Disk quotas for user me: none", "server:/home") is None


def test_a_check_that_hangs_is_left_behind_and_told(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that is gone: the others go on."""
    from star1.doctor import checks

    def hang(_: doctor.About) -> Any:
        time.sleep(3)
        return []

    monkeypatch.setattr(checks, "LIMIT_S", 0.3)
    report = doctor.examine(
        here.about(), [doctor.Check(hang, ("disk",)), doctor.Check(lambda _: [doctor.Seen("git", "well")], ("git",))]
    )
    assert [one.id for one in report.not_checked] == ["disk"]
    assert [one.id for one in report.checked] == ["git"]
    assert report.seconds < 2


def test_what_a_check_stumbles_over_is_told(here: Place) -> None:
    (here.root / "pyproject.toml").unlink()
    report = here.examine("package")
    assert {"package", "lock"} <= {one.id for one in report.not_checked}


def test_shared_cache_of_a_group(here: Place) -> None:
    (here.root / ".dvc/cache").mkdir()
    (here.root / ".dvc/cache").chmod(0o755)
    (here.root / ".dvc/config.local").write_text("[cache]\n    shared = group\n")
    (found,) = here.examine("dvc-cache").findings
    assert (found.id, found.severity) == ("dvc-cache", "warning")
    (here.root / ".dvc/cache").chmod(0o2775)
    assert here.examine("dvc-cache").findings == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ssh://user:pw@127.0.0.1:9/store", "127.0.0.1:9"),
        ("nowhere", "no folder"),
        ("gs://bucket/store", "need package dvc-gs"),
    ],
)
def test_remotes_that_cannot_be_reached(url: str, says: str, here: Place) -> None:
    (here.root / ".dvc/config.local").write_text(f"['remote \"release\"']\n    url = {url}\n")
    (found,) = here.examine("dvc-remote").findings
    assert found.id == "dvc-remote"
    assert says in found.what
    assert "pw@" not in json.dumps(found.__dict__)


def test_a_merge_that_is_not_finished(here: Place) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=words[0] != "merge", capture_output=True
        )

    git("add", "params.yaml")
    git("commit", "-qm", "one")
    git("branch", "-M", "main")
    git("branch", "other")
    for branch, value in (("other", "1"), ("main", "2")):
        git("checkout", "-q", branch)
        (here.root / "params.yaml").write_text(f"a: {value}\n")
        git("commit", "-qam", value)
    git("merge", "other")
    (found,) = here.examine("git").findings
    assert (found.where, found.severity) == ("params.yaml", "error")


def test_the_presets_ask_for_gpus(here: Place) -> None:
    """The preset once replaced an entry of resources.jobs whole, and its jobs asked for none: as many as there are processes."""
    few_gpus(here)
    (found,) = here.examine("gpu-count").findings
    assert (found.id, found.what) == ("gpu-count", "the largest job asks for 8 GPUs; nvidia-smi tells of 2")
    assert found.fix == "star1 preset --set finetune.settings.processes=2"


def test_the_estimate_has_its_parts(here: Place) -> None:
    """Weights are what is large in the paper's run, and nothing in the default one."""
    small = {one.name: one.bytes for one in here.examine("git").estimate}
    assert sum(small.values()) < 0.5e9
    here.preset("paper")
    large = {one.name: one.bytes for one in here.examine("git").estimate}
    # 1.5 + 7 + 14 + 32 + 8 billions of the distilled models, as much of the plain ones; two bytes each.
    assert large["base models"] == pytest.approx(2 * 2 * (1.5 + 7 + 14 + 32 + 8) * 1e9)
    assert large["states of runs at work"] == pytest.approx(12 * 32e9)
    assert 10e9 < large["answers and verdicts"] < 60e9
    (here.root / "models/base/R1-Qwen-32B").mkdir(parents=True)
    (here.root / "models/base/R1-Qwen-32B/manifest.json").write_text("{}")
    less = {one.name: one.bytes for one in here.examine("git").estimate}
    assert large["base models"] - less["base models"] == pytest.approx(64e9)


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_healthy_machine_gives_nothing(here: Place) -> None:
    """The default run, looked at by the command itself: no finding, everything looked at, and what it says is an object."""
    if not os.path.exists("/usr/bin/bwrap"):
        pytest.skip("no bubblewrap, which the doctor would note")
    done = here.command("--json")
    told = json.loads(done.stdout)
    assert told["findings"] == []
    assert done.returncode == 0
    assert set(told) == {
        "version",
        "preset",
        "profiles",
        "status",
        "findings",
        "checked",
        "not_checked",
        "estimate",
        "seconds",
    }
    assert told["version"] == 1
    assert told["not_checked"] == []
    kinds = {one["id"] for one in told["checked"]}
    assert kinds >= {
        "dvc-yaml",
        "git",
        "tool-version",
        "package",
        "disk",
        "inodes",
        "folder-closed",
        "file-locks",
        "endpoint-down",
        "sandbox",
    }
    assert not here.root.joinpath("data").exists()  # nothing was made but its own scratch
    assert "error" not in done.stderr


def test_the_exit_status_goes_by_the_worst(here: Place) -> None:
    """2 with an error, 1 with a warning; lines for people say what, why and how to mend it."""
    locked_otherwise(here)
    done = here.command("--offline", "--quiet", "--set", "curate.size=150")
    assert done.returncode == 1
    assert done.stdout.startswith("warning  lock: envs/local.lock: 1 installed in another version: numpy")
    assert "\n         why: " in done.stdout
    assert "\n         fix: rm -f .venv/.ready && make setup\n" in done.stdout
    assert done.stdout.count("\n") == 3
    done = here.command("--offline", "--quiet", "--preset", "paper")
    assert done.returncode == 2
    assert done.stdout.startswith("error ")
    kinds = {line.split()[1] for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert kinds >= {"lock:", "endpoint-key:", "prefetch-missing:", "gpu-count:"}


def test_a_preset_is_not_written(here: Place) -> None:
    before = (here.root / "params.yaml").read_bytes()
    done = here.command("--offline", "--json", "--preset", "paper", "--preset", "corrected", "--set", "curate.size=10")
    assert json.loads(done.stdout)["preset"] == "paper corrected curate.size=10"
    assert (here.root / "params.yaml").read_bytes() == before
    assert here.command("--preset", "papper").stderr.startswith("error: preset 'papper': no file")


def test_mistakes_in_params_are_findings(here: Place) -> None:
    here.edit("params.yaml", lambda text: text.replace("size: 160}", "size: 160").replace("shards: 1", "shard: 1"))
    done = here.command("--json")
    told = json.loads(done.stdout)
    assert done.returncode == told["status"] == 2
    assert {one["id"] for one in told["findings"]} == {"params"}
    assert {one["id"] for one in told["not_checked"]} == set(IDS) - {"params"}


def test_findings_come_worst_first(here: Place) -> None:
    locked_otherwise(here)
    left_lock(here)
    endpoint(here)
    order = [SEVERITIES.index(one.severity) for one in here.examine("lock", "engine-lock", "endpoint-down").findings]
    assert order == sorted(order)
    assert len(set(order)) > 1


def test_the_table_in_the_docs_is_in_step() -> None:
    text = (ROOT / "docs/doctor.md").read_text("utf-8")
    assert table() in text, (
        "write the output of `python -c 'from star1.doctor.ids import table; print(table())'` into docs/doctor.md"
    )
