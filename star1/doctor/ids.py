"""The kinds of findings of `star1 doctor`: how severe each is, what it says, and why that matters."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its severities, the worst first, what it says, and why it matters."""

    severities: tuple[Severity, ...]
    says: str
    why: str


def _kind(severities: str, says: str, why: str) -> Kind:
    return Kind(tuple(one for one in SEVERITIES if one in severities.split()), says, why)


ERROR, WARNING, NOTE = SEVERITIES
IDS = {
    # params.yaml and the project
    "params": _kind(ERROR, "params.yaml, or the preset put into it, has a mistake", "no stage starts with it"),
    "plan": _kind(
        ERROR, "the workflow cannot be planned", "neither engine starts; a file that rules read is missing, most often"
    ),
    "dvc-yaml": _kind(
        ERROR,
        "dvc.yaml is out of step with the rules and params.yaml",
        "`dvc repro` would run other stages than snakemake",
    ),
    "git": _kind(
        "error warning",
        "git does not know this folder, or a merge is not finished",
        "DVC and the record of what made each artifact go by git",
    ),
    "engine-lock": _kind(
        WARNING,
        "a lock of an earlier Snakemake run lies here",
        "Snakemake refuses to start while it believes that another run is at work",
    ),
    "dvc-remote": _kind(
        "warning",
        "the default DVC remote cannot be reached",
        "`dvc pull` and `dvc push` would fail, after the work is done",
    ),
    "dvc-cache": _kind(
        "error warning",
        "DVC's cache cannot be written, or not by the whole group",
        "what a run made could not be recorded at its end",
    ),
    # tools and packages
    "python": _kind(
        ERROR,
        "`python` on the PATH is another one, or no Python 3.11",
        "rules call `python -m scripts.STAGE`, and would all end",
    ),
    "tool-missing": _kind("error warning", "a program is not on the PATH", "the workflow calls it"),
    "tool-fails": _kind(ERROR, "a program is there, and does not start", "the workflow calls it"),
    "tool-version": _kind(
        ERROR,
        "snakemake or dvc has another version than envs/local.lock",
        "the plan is read through interfaces of that version",
    ),
    "package": _kind(
        ERROR,
        "a Python package that these settings need is missing, or outside its allowed versions",
        "a stage would end when it imports it",
    ),
    "lock": _kind(
        WARNING,
        "installed packages differ from envs/local.lock",
        "figures may differ in the last digits from the released ones",
    ),
    "engine": _kind(ERROR, "the engine of generate.engine is not installed", "no model could answer a benchmark"),
    # containers
    "apptainer": _kind(
        ERROR, "a profile asks for containers, and there is no apptainer", "every job would fail at its start"
    ),
    "apptainer-version": _kind(
        WARNING, "apptainer is older than 1.3", "the definitions use its templates, and images are mounted otherwise"
    ),
    "apptainer-fails": _kind(ERROR, "apptainer does not start an image", "every job would fail at its start"),
    "apptainer-slow": _kind(
        WARNING, "an image takes long to start", "without root and FUSE it is unpacked at the start of every job"
    ),
    "user-namespaces": _kind(
        ERROR, "the system gives no user namespaces", "neither apptainer without setuid nor the sandbox can start"
    ),
    "image-missing": _kind(
        ERROR, "the image of a kind of work is not there", "jobs of that kind would fail at their start"
    ),
    "image-damaged": _kind(
        ERROR,
        "an image is not the file that was built",
        "nobody knows what is in it, and its record says something else",
    ),
    "image-variant": _kind(
        WARNING,
        "CPU images on a machine with GPUs",
        "torch and vLLM in them do not see a GPU; answers take a hundred times longer",
    ),
    "sandbox": _kind(
        "error note",
        "no sandbox for programs that models write",
        "answers to benchmarks with programs end the stage judge, or stay unscored (judge.sandbox.if_missing)",
    ),
    # GPUs and memory
    "gpu-driver": _kind(
        ERROR, "there is an NVIDIA device, and nvidia-smi fails", "torch and vLLM would not find a GPU"
    ),
    "gpu-count": _kind(
        "error warning",
        "a job asks for more GPUs than there are",
        "training or answering would end, or take weeks on the CPU",
    ),
    "gpu-unasked": _kind(
        WARNING,
        "jobs with a model of the hub ask for no GPU",
        "a cluster puts them on nodes without one; there they take weeks on the CPU",
    ),
    "gpu-memory": _kind(
        ERROR,
        "a training run does not fit into a GPU's memory",
        "it would end at its memory check, after having waited in the queue",
    ),
    "gpu-torch": _kind(ERROR, "a GPU, and a torch built for CPUs", "training would go by the CPU, without a word"),
    "memory": _kind(
        WARNING, "a rule asks for more memory than this machine has", "the system may end the job when memory runs out"
    ),
    # Slurm
    "slurm": _kind(
        ERROR, "the profile runs jobs by Slurm, and its commands are not there", "no job could be submitted"
    ),
    "slurm-down": _kind(ERROR, "Slurm does not answer", "no job could be submitted"),
    "slurm-partition": _kind(ERROR, "a partition that the profile names does not exist", "sbatch refuses jobs for it"),
    "slurm-nodes": _kind(
        "error warning",
        "no node of a partition is up, or only few",
        "jobs for it wait until an administrator brings nodes back",
    ),
    "slurm-gpus": _kind(
        ERROR, "no node of the partition has the GPUs that a job asks for", "the job is refused, or waits for ever"
    ),
    "slurm-memory": _kind(
        ERROR,
        "no node of the partition has the memory or CPUs that a job asks for",
        "the job is refused, or waits for ever",
    ),
    "slurm-time": _kind(
        ERROR, "a job asks for more time than the partition allows", "the job is refused, or waits for ever"
    ),
    "slurm-accounting": _kind(
        ERROR, "job states come from sacct, and Slurm keeps no accounts", "Snakemake would never see that a job ended"
    ),
    "slurm-stale": _kind(
        NOTE,
        "a slurm.conf lies here, and its controller does not answer",
        "every start of Snakemake waits ten seconds for it",
    ),
    # room
    "disk": _kind(
        "error warning",
        "less free space than these settings will write",
        "stages end with a full disk, often at the largest file",
    ),
    "inodes": _kind(
        "error warning", "fewer free inodes than files will be written", "no file can be made, whatever space is left"
    ),
    "quota": _kind(
        "error warning",
        "your quota leaves less than these settings will write",
        "stages end with `Disk quota exceeded`",
    ),
    "cache-home": _kind(
        WARNING,
        "a cache lies in a small home folder",
        "downloads and images fill it; logins and jobs then fail in strange ways",
    ),
    "tmp-small": _kind(
        WARNING, "little room for temporary files", "images are built there, and libraries compile there"
    ),
    # file system
    "folder-closed": _kind(
        ERROR, "a folder cannot be written", "the stage that writes there ends, after having computed"
    ),
    "file-locks": _kind(
        "error warning",
        "file locks do not work here",
        "two runs could write to one store of replies, and pay twice",
    ),
    "file-rename": _kind(
        ERROR, "a file cannot take another's place at once", "a killed job could leave half a file behind"
    ),
    "file-links": _kind(
        "warning",
        "DVC is to link files, and cannot between these folders",
        "every artifact takes its room twice, or `dvc checkout` fails",
    ),
    "file-clock": _kind(
        WARNING,
        "the file server's clock is not this machine's",
        "Snakemake takes times of files for newer or older than they are",
    ),
    "file-network": _kind(
        NOTE,
        "the project lies on a network file system",
        "locks may hold on one machine alone, and new files appear late on others",
    ),
    # network
    "hf-token": _kind(
        ERROR,
        "gated sets or models, and HF_TOKEN is not set",
        "the hub gives them to accounts that accepted their terms",
    ),
    "hub-refused": _kind(
        ERROR,
        "the hub refuses a set or model",
        "the terms were not accepted with this account, or the token is not valid",
    ),
    "remote-file": _kind(ERROR, "a file to be fetched is not at its address", "the stage fetch would end"),
    "unreachable": _kind(ERROR, "a server that files come from does not answer", "the stage fetch would end"),
    "prefetch-missing": _kind(
        ERROR,
        "offline, and something to be fetched was not prefetched",
        "the stage fetch would end, since it may ask nobody",
    ),
    "prefetch-damaged": _kind(ERROR, "a prefetched file is not what it was", "the stage that reads it would end"),
    "clock": _kind(
        "error warning",
        "this machine's clock is wrong",
        "servers refuse signed requests and tokens; times in records mislead",
    ),
    # endpoints
    "endpoint-key": _kind(ERROR, "the variable of an endpoint's key is not set", "every request would be refused"),
    "endpoint-down": _kind(
        ERROR, "nobody answers at an endpoint's address", "the stage would end at its first request"
    ),
    "endpoint-denied": _kind(
        ERROR,
        "an endpoint does not accept the key, or is given none",
        "the stage would end at its first request",
    ),
    "endpoint-answer": _kind(WARNING, "an endpoint answers with an error", "it may do so when it is asked in earnest"),
    "endpoint-model": _kind(
        ERROR, "an endpoint does not have the model", "the stage would end before its first request"
    ),
    "endpoint-alias": _kind(
        WARNING,
        "a model's name may come to mean another model",
        "a later run would be answered by another one under the same name",
    ),
    "endpoint-retired": _kind(ERROR, "the announced end of a model is past", "nothing is asked of it any more"),
    "endpoint-ends": _kind(
        WARNING, "the announced end of a model is near", "what is to be asked of it is to be asked by then"
    ),
    "endpoint-rows": _kind(
        ERROR, "the rows that an endpoint replays are not there", "the stage would end at its start"
    ),
    "endpoint-limit": _kind(
        WARNING,
        "model calls are foreseen to cost more than an endpoint's max_usd",
        "the stage would end there, half done",
    ),
}


def table() -> str:
    """The kinds as the table in docs/doctor.md."""
    lines = ["| id | severity | what it says | why it matters |", "|---|---|---|---|"]
    for name, kind in IDS.items():
        lines.append(f"| `{name}` | {' or '.join(kind.severities)} | {kind.says} | {kind.why} |")
    return "\n".join(lines)
