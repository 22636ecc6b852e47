"""What jobs ask a cluster for: by rule and model, more at each attempt, GPUs by either name; and how many jobs there are."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from star1.errors import SettingError
from star1.params import read_yaml
from star1.resources import need
from star1.workflow import containers, slurm
from star1.workflow.needs import Needs
from tests.conftest import ROOT
from tests.test_foresight import project  # noqa: F401

VALUES: dict[str, Any] = {
    "jobs": {
        "*": {"mem_mb": 1000, "runtime": 10, "gpu": 0},
        "generate": {"mem_mb": 8000, "gpu": 1},
        "generate/*-32B": {"gpu": 2},
        "fetch_*": {"runtime": 30},
    },
    "more": 0.5,
    "most": {"mem_mb": 14000, "runtime": None},
}


def workflow(**default: str) -> Any:
    return SimpleNamespace(resource_settings=SimpleNamespace(_parsed_default_resources=default))


def resources(needs: Needs, rule: str, model: str, attempt: int = 1, **options: Any) -> dict[str, Any]:
    """What one job asks for, as Snakemake finds it out."""
    asked = needs(rule, name=lambda _: model, **options)
    tried = {"mem_mb": (attempt,), "runtime": (attempt,)}
    return {key: value(SimpleNamespace(), *tried.get(key, ())) for key, value in asked.items()}


def test_what_fits_a_rule_counts_before_what_fits_one_of_its_jobs() -> None:
    assert need("generate", "tiny", VALUES) == {"mem_mb": 8000, "runtime": 10, "gpu": 1}
    assert need("generate", "R1-32B", VALUES) == {"mem_mb": 8000, "runtime": 10, "gpu": 2}
    assert need("fetch_model", "", VALUES) == {"mem_mb": 1000, "runtime": 30, "gpu": 0}


def test_each_attempt_asks_for_more_up_to_what_there_is() -> None:
    needs = Needs(VALUES, workflow())
    found = [resources(needs, "generate", "tiny", attempt) for attempt in (1, 2, 3)]
    assert [(one["mem_mb"], one["runtime"]) for one in found] == [(8000, 10), (12000, 15), (14000, 20)]


def test_memory_and_gpus_are_those_of_all_processes() -> None:
    found = resources(Needs(VALUES, workflow()), "generate", "R1-32B", processes=lambda _: 4, on_gpu=lambda _: True)
    assert found == {"mem_mb": 14000, "runtime": 10, "gpu": 8, "nodes": 1}


@pytest.mark.parametrize(
    ("gpu_as", "expected"),
    [
        ("gpu", {"nodes": 1, "gpu": 2}),
        ("gres", {"nodes": 1, "gres": "gpu:2"}),
        ("gres:a100", {"nodes": 1, "gres": "gpu:a100:2"}),
        ("gpu:a100", {"nodes": 1, "gpu": 2, "gpu_model": "a100"}),
    ],
)
def test_gpus_are_asked_for_as_the_site_has_it(gpu_as: str, expected: dict[str, Any]) -> None:
    needs = Needs(VALUES, workflow(gpu_as=gpu_as))
    found = resources(needs, "generate", "R1-32B", on_gpu=lambda _: True)
    assert {key: value for key, value in found.items() if key not in ("mem_mb", "runtime")} == expected
    none = resources(needs, "generate", "R1-32B", on_gpu=lambda _: False)
    assert {value for key, value in none.items() if key not in ("mem_mb", "runtime")} == {
        None
    }  # no resource for Snakemake


def test_what_nothing_is_called_is_told() -> None:
    with pytest.raises(SettingError, match="default-resources: gpu_as: 'cuda'; expected gpu, gres"):
        Needs(VALUES, workflow(gpu_as="cuda"))
    with pytest.raises(
        SettingError, match=r"resources.jobs.generat/x: a name that no rule has.*did you mean generate\?"
    ):
        Needs({**VALUES, "jobs": {"generat/x": {}}}, workflow()).check(["generate", "judge"])
    Needs(VALUES, workflow()).check(["generate", "fetch_model"])


PRINTED = re.compile(r"^rule (\w+):$.*?^    resources: (.*?)$", re.MULTILINE | re.DOTALL)


def planned(folder: Path, *flags: str) -> list[tuple[str, dict[str, str]]]:
    """The jobs of a dry run with their resources."""
    done = subprocess.run(["snakemake", "-n", *flags], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        (rule, dict(part.split("=", 1) for part in text.split(", ") if "=" in part))
        for rule, text in PRINTED.findall(done.stdout)
    ]


def test_ten_models_on_ten_benchmarks_are_twenty_jobs_of_the_queue(project: Path) -> None:  # noqa: F811
    """One load a model; the runs of the default plan and seven more, one of them on a base model that wants GPUs."""
    text = (project / "params.yaml").read_text("utf-8")
    more = "\n".join(f"    more{n}: {{base: large, data: [star1], think: true, seed: {n}}}" for n in range(7))
    text = text.replace("    star1+benign: {base", f"{more}\n    star1+benign: {{base", 1)
    names = ", ".join(f"more{n}" for n in range(7))
    text = text.replace("models: [tiny, star1, star1+benign]", f"models: [tiny, star1, star1+benign, {names}]")
    hub = f"    large: {{kind: hub, repository: a/b, revision: {'a' * 40}, licence: MIT}}\n    tiny:\n"
    (project / "params.yaml").write_text(text.replace("    tiny:\n", hub, 1), "utf-8")
    (project / "data/collection.jsonl").unlink()
    found = planned(project, "--default-resources", "gpu_as=gres")
    counted = {rule: sum(name == rule for name, _ in found) for rule in ("generate", "judge", "finetune")}
    assert counted == {"generate": 10, "judge": 10, "finetune": 9}
    benchmarks = read_yaml(project / "params.yaml")["generate"]["benchmarks"]
    assert len(benchmarks) == 10
    gpus = [one.get("gres") for rule, one in found if rule in ("generate", "finetune")]
    assert sorted(map(str, gpus)) == ["None"] * 5 + ["gpu:1"] * 14
    assert all("gres" not in one for rule, one in found if rule not in ("generate", "finetune"))


def test_jobs_of_an_earlier_run_are_known_by_folder_and_comment() -> None:
    lines = [
        "12|/p|rule_generate_wildcards_tiny",
        "13|/q|rule_generate_wildcards_tiny",
        "14|/p|rule_judge",
        "15|/p|",
        "",
    ]
    assert slurm.left_over(lines, "/p", {"rule_generate_wildcards_tiny"}) == {"12": "rule_generate_wildcards_tiny"}


def test_a_job_without_a_gpu_of_its_own_takes_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a node that has some; and where it was given some, only those are seen inside."""
    device = tmp_path / "nvidiactl"
    device.touch()
    monkeypatch.setattr(containers, "GPU_DEVICES", (str(device),))
    for name in ("SLURM_JOB_ID", *containers.GIVEN_GPUS):
        monkeypatch.delenv(name, raising=False)
    image = "containers/finetune-0123456789ab.sif"
    assert containers.options(image).endswith(" --nv")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "--nv" not in containers.options(image)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "1")
    assert containers.options(image).endswith(" --nv")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert containers.options(image).endswith(' --nv --env CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES"')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "NoDevFiles")
    monkeypatch.delenv("SLURM_GPUS_ON_NODE")
    assert "--nv" not in containers.options(image)


def test_the_profiles_say_the_same_where_they_must() -> None:
    """A workflow profile takes the place of the default one, so each repeats what decides about running again."""
    profiles = {path.parent.name: read_yaml(path) for path in (ROOT / "profiles").glob("*/config.yaml")}
    assert set(profiles) == {"default", "apptainer", "slurm"}
    for name in ("max-checksum-file-size", "rerun-incomplete", "rerun-triggers"):
        assert len({str(one[name]) for one in profiles.values()}) == 1, name
    assert profiles["slurm"]["apptainer-args"] == profiles["apptainer"]["apptainer-args"]
