"""`star1 doctor` finds what is wrong: each kind of finding is planted in a copy of the project, and is not there without."""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from star1 import doctor, images
from star1.doctor import disk, network, slurm
from star1.doctor.asked import _settings
from star1.doctor.ids import IDS, SEVERITIES, table
from tests.conftest import ROOT
from tests.faulty import Place, copy, place
from tests.fileserver import COMMIT, FileServer, serving
from tests.loopback import Answer, server
from tests.plants import (
    NODES,
    PLANTS,
    SLURM,
    at_hub,
    by_slurm,
    endpoint,
    failing_sandbox,
    few_gpus,
    in_containers,
    left_lock,
    locked_otherwise,
    wanting,
)

SECRET = "sk-doctor-77b0c1d2e3f4a5b6"


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


# Planted here: by a server's answers, or with a params.yaml that cannot be read.
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
        ("endpoint-denied", Answer({"error": {"message": "who are you?"}}, 401), {"key": None}),
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
    [
        ("(null)", 0),
        ("gpu", 1),
        ("gpu:2", 2),
        ("gpu:a100", 1),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:4,gpu:t4:2", 6),
        ("gpu:h100_80gb:8(S:0)", 8),
        ("gpu:3090:4", 4),
        ("gpu:3090:4(S:0-1),gpu:2080ti:2", 6),
        ("gpu:1g.10gb:7", 7),
        ("gpu:a100_3g.20gb:2,mps:200", 2),
    ],
)
def test_gpus_as_slurm_writes_them(gres: str, gpus: int) -> None:
    found = slurm.read_nodes(f"gpu|up|infinite|1|1000+|8|{gres}|idle")
    assert found is not None
    assert (found.gpus, found.mem_mb, found.works) == (gpus, 1000, True)


@pytest.mark.parametrize(
    ("gres", "gpus"), [("gpu", 1), ("gpu:2", 2), ("gpu:a100:4", 4), ("gpu:3090:4", 4), ("gpu:1g.10gb:7", 7)]
)
def test_gpus_as_profiles_ask_for_them(gres: str, gpus: int) -> None:
    assert _settings({"gres": gres}) == {"gpu": gpus}


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
