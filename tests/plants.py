"""For tests: the faults that are planted in a copy of the project, by the kind of finding that tells of each."""

import errno
import fcntl
import json
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from star1 import images, prefetched
from star1.doctor import containers, disk, folders, machine
from star1.records import file_digest
from tests.faulty import Place, Plant, forget_sandbox, sinfo, smi
from tests.fileserver import COMMIT, FileServer

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
