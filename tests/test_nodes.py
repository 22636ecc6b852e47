"""Several machines: the loss curve of one process, an end of all where one ends, and who they are told to be."""

import dataclasses
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.iocontainers import Wildcards

from star1 import boards, launching, nodes, params
from star1.errors import Star1Error
from star1.images import Image
from star1.records import read_json, write_rows
from star1.workflow import containers, slurm
from star1.workflow.inputs import Inputs
from star1.workflow.lookups import Params
from star1.workflow.needs import Needs
from tests import cluster, spread
from tests.conftest import ROOT
from tests.micro import ROWS, base_and_rows, small_settings
from tests.test_sharding import ENVIRONMENT, LIMIT_S, after, flags
from tests.test_slurm import Run, log_of, set_params, small_project

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and rows."""
    return base_and_rows(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def alone(place: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The history of the same run in one process."""
    made = spread.tune(place, tmp_path_factory.mktemp("alone"), "none", processes=1)
    history: list[dict[str, Any]] = made["history"]
    return history


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


Launcher = subprocess.Popen[str]


def launchers(stack: ExitStack, place: Path, folder: Path, **changes: Any) -> list[Launcher]:
    """Two launchers on this machine that take themselves for two machines."""
    environment = {**ENVIRONMENT, "NNODES": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    command = [sys.executable, "-m", "scripts.finetune", *flags(place, **{"nodes": 2, "processes": 1, **changes})]
    return [
        stack.enter_context(
            subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, "NODE_RANK": str(number)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        for number in (0, 1)
    ]


def ended(running: list[Launcher]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each."""
    said = [one.communicate(timeout=LIMIT_S) for one in running]
    return [(one.returncode, *words) for one, words in zip(running, said, strict=True)]


def curve(folder: Path, alone: list[dict[str, Any]]) -> None:
    """See that a run gave the curve of one process."""
    same(read_json(folder / "metrics/run.json")["history"], alone)


def same(found: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    """The same, of a history."""
    assert len(found) == len(alone) == 12
    for key in ("loss", "norm"):
        assert [one[key] for one in found] == pytest.approx([one[key] for one in alone], rel=1e-5)


@pytest.mark.slow
def test_two_machines_end_together_and_go_on_to_the_curve_of_one_process(
    place: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A process of the second machine is killed, then a signal comes to that machine alone; FSDP2, its parts on both."""
    with ExitStack() as stack:
        running = launchers(stack, place, tmp_path, sharding="fsdp")
        (trains,) = after(tmp_path, 1, running[1])
        trains.kill()
        (first, _, told_first), (second, _, told_second) = ended(running)
    assert (first, second) == (1, 1), told_first + told_second
    name = f"machine 2 of 2 ({socket.gethostname()})"
    killed = "process 2 of 2 was killed by SIGKILL"
    assert f"error: finetune run: {name}: {killed}; expected all to finish." in told_second
    assert f"ended, since {name}: {killed}; expected all to finish.\n" in told_first
    done = max(int(path.name[7:]) for path in tmp_path.glob(".work/finetune-states/run/*/update-*"))
    with ExitStack() as stack:
        running = launchers(stack, place, tmp_path, sharding="fsdp")
        after(tmp_path, done + 1, running[1])
        running[1].send_signal(signal.SIGTERM)
        (first, _, told), (second, _, _) = ended(running)
    assert (first, second) == (143, 143), told
    assert f"goes on after update {done}\n" in told
    assert "stopped by SIGTERM" in told.strip().splitlines()[-1]
    with ExitStack() as stack:
        (first, out, told), (second, nothing, _) = ended(launchers(stack, place, tmp_path, sharding="fsdp"))
    assert (first, second) == (0, 0), told
    assert out.startswith("finetune run: 12 rows used")
    assert nothing == ""
    assert told.count("goes on after update") == 1
    curve(tmp_path, alone)


@pytest.mark.slow
def test_two_machines_of_one_slurm_allocation_give_the_curve_of_one_process(
    place: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Stopped as the scheduler does it, with a signal to every process, and handed in again: ZeRO-3, by srun."""
    words = [sys.executable, "-m", "scripts.finetune", *flags(place, nodes=2, processes=1, sharding="zero3")]
    ask = ["sbatch", "--parsable", "--nodes=2", "--ntasks=2", "--mem=1500", f"--chdir={tmp_path}", "--open-mode=append"]
    ask += [f"--output={tmp_path}/log", "--wrap", f"{shlex.join(words)}; echo ended with $?"]

    def job() -> str:
        return subprocess.run(ask, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout.strip()

    def told() -> str:
        return (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""

    with cluster.slurm(2):
        first = job()
        states = ".work/finetune-states/run/*/update-*"
        cluster.wait_until(lambda: list(tmp_path.glob(states)) or "ended" in told(), "a state")
        subprocess.run(["scancel", "--signal=TERM", first], check=True)
        cluster.wait_until(lambda: not cluster.ask("squeue", "-h", "-j", first, "-t", "R,CG"), "its end")
        assert "stopped by SIGTERM" in told(), told()
        assert "Traceback" not in told()
        assert not (tmp_path / "models/run/manifest.json").exists()
        job()
        cluster.wait_until(lambda: "ended with 0" in told() or told().count("ended with") > 1, "the second job")
    assert "goes on after update" in told(), told()
    assert told().count("finetune run: 12 rows used") == 1, told()
    curve(tmp_path, alone)


def over_two_machines(place: Path, folder: Path, *flags: str, images: Path | None = None) -> dict[str, Any]:
    """Have Snakemake run the rule through Slurm, for a run over two machines; gives its metrics.

    Args:
        place: a base model.
        folder: to be made for it.
        flags: of Snakemake.
        images: a project's folder with the image, where the rule is to run in it.
    """
    settings = dataclasses.asdict(small_settings(**{**spread.CHANGES, "nodes": 2, "processes": 1, "sharding": "zero3"}))
    run = Run(small_project(folder))

    def change(values: dict[str, Any]) -> None:
        values["finetune"]["runs"]["star1"] |= {name: settings.pop(name) for name in ("think", "seed")}
        values["finetune"]["settings"] |= {name: settings[name] for name in values["finetune"]["settings"]}
        values["resources"] |= {"jobs": {"finetune": {"mem_mb": 2000, "runtime": 10}}}

    set_params(folder, change)
    if images:
        for name in ("containers", "envs"):
            (folder / name).symlink_to(images / name)
    shutil.copytree(place / "micro", folder / "models/base/tiny")
    write_rows(folder / "data/star1.jsonl", ROWS)
    try:
        run.start("--retries", "0", "--allowed-rules", "finetune", *flags, "--", "models/star1/manifest.json")
        status = run.wait()
    finally:
        run.end()
    assert status == 0, run.told[-3000:] + log_of(run, "finetune/star1.log")[-3000:]
    (job,) = cluster.jobs(folder).values()
    assert (job["comment"], job["node"]) == ("rule_finetune_wildcards_star1", "node[1-2]")
    assert log_of(run, "finetune/star1.log").count("finetune star1: 12 rows used") == 1
    found: dict[str, Any] = read_json(folder / "results/metrics/finetune-star1.json")
    return found


@pytest.mark.slow
def test_the_rule_runs_over_two_machines(place: Path, alone: list[dict[str, Any]], tmp_path: Path) -> None:
    """Through Snakemake and Slurm: one job of two nodes, in which the rule's command calls srun itself."""
    with cluster.slurm(2):
        same(over_two_machines(place, tmp_path / "project")["history"], alone)


@pytest.mark.slow
def test_the_rule_runs_over_two_machines_in_containers(
    place: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Where `make images` made one: srun is called outside of it, on the first machine alone."""
    image = Image("finetune", root=ROOT).file
    if not shutil.which("apptainer") or not (ROOT / image).is_file():
        pytest.skip(f"no apptainer on the PATH, or no {image} (make images)")
    with cluster.slurm(2):
        found = over_two_machines(place, tmp_path / "project", "--sdm", "apptainer", images=ROOT)
    same(found["history"], alone)
    assert read_json(tmp_path / "project" / containers.RECORDED)["stages"] == {"finetune-star1": image}


# ---------------------------------------------------------------- between launchers


def boards_of(count: int, lost: list[int]) -> list[boards.Board]:
    """The boards of so many machines, all in this process."""
    port = int(free_port())
    with ThreadPoolExecutor(count) as pool:
        places = [nodes.Node(number, count, "localhost", port) for number in range(count)]
        made = [pool.submit(boards.Board, "stage", place, lambda: lost.append(1)) for place in places]
        return [one.result() for one in made]


def test_the_first_failure_is_told_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "LOOK_S", 0.05)
    lost: list[int] = []
    first, second, third = boards_of(3, lost)
    second.failed("ended with status 3")
    third.failed("lost another one")
    cluster.wait_until(lambda: first.trouble, "the first to hear it", 10)
    told = f"machine 2 of 3 ({socket.gethostname()}): ended with status 3"
    assert (second.trouble, third.trouble) == ("", told)
    for one in (third, second, first):
        one.leave()
    assert first.trouble == told


def test_a_machine_that_says_nothing_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its power was cut: no process there tells anything. One that left in order is not missed."""
    monkeypatch.setattr(boards, "LOOK_S", 0.05)
    lost: list[int] = []
    first, second, third = boards_of(3, lost)
    third.leave()
    monkeypatch.setattr(boards, "SILENT_S", 0.3)
    second._over.set()
    cluster.wait_until(lambda: lost, "silence to be noticed", 10)
    assert first.trouble == "machine 2 of 3 has been silent for 0.3 s"
    monkeypatch.setattr(boards, "FAREWELL_S", 0.1)
    first.leave()


def test_launchers_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PATIENCE_S", 0.3)
    with pytest.raises(Star1Error, match=r"the launcher of machine 2 is not there after 0\.3 s.* Hint: is one started"):
        boards.Board("stage", nodes.Node(0, 2, "localhost", int(free_port())), lambda: None)
    with pytest.raises(Star1Error, match="the first machine's launcher, is not there after"):
        boards.Board("stage", nodes.Node(1, 2, "localhost", int(free_port())), lambda: None)
    with socket.create_server(("", 0)) as taken:
        place = nodes.Node(0, 2, "localhost", taken.getsockname()[1])
        with pytest.raises(Star1Error, match=r"no board at port .* Hint: name a free port of the first machine"):
            boards.Board("stage", place, lambda: None)


def test_the_interface_is_the_one_that_leads_to_the_others() -> None:
    assert boards.own_address("localhost") in ("127.0.0.1", "::1")
    assert boards.interface("127.0.0.1") == "lo"
    assert boards.interface("192.0.2.1") is None


# ---------------------------------------------------------------- who is who

SITE = {"NNODES": "2", "MASTER_ADDR": "one", "NODE_RANK": "1", "MASTER_PORT": "4711"}


def test_a_site_says_which_machine_this_is() -> None:
    assert nodes.here(2, SITE) == nodes.Node(1, 2, "one", 4711)
    by_slurm = {"NNODES": "2", "MASTER_ADDR": "one", "SLURM_NODEID": "0"}
    assert nodes.here(2, by_slurm) == nodes.Node(0, 2, "one", nodes.PORT)
    assert nodes.here(2, {"SLURM_NODEID": "0"}) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"NNODES": "3"}, "NNODES: 3; expected 2, as finetune.settings.nodes"),
        ({"NODE_RANK": "2"}, "NODE_RANK: 2; expected a number from 0 to 1"),
        ({"NODE_RANK": ""}, "NODE_RANK: nothing; expected a number from 0 to 1"),
        ({"MASTER_PORT": "auto"}, "MASTER_PORT: 'auto'; expected a port"),
    ],
)
def test_what_a_site_says_is_checked(changes: dict[str, str], told: str) -> None:
    with pytest.raises(Star1Error) as caught:
        nodes.here(2, SITE | changes)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "2, and this is no Slurm job; expected a Slurm allocation, or NNODES, NODE_RANK and MASTER_ADDR"),
        ({"SLURM_JOB_ID": "7", "PATH": "/nowhere"}, "2, and no srun is on the PATH; expected a Slurm allocation"),
        ({"SLURM_JOB_ID": "7", "APPTAINER_CONTAINER": "a.sif"}, "2, and this process is in a container (APPTAINER"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a1"}, "2, and job 7 has 1 (a1); expected an allocation of as"),
    ],
)
def test_without_machines_it_is_told_how_to_get_them(
    variables: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools(tmp_path, monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Star1Error) as caught:
        launching.launch("finetune run", 1, "scripts.finetune", [], 2)
    assert str(caught.value).startswith(f"finetune.settings.nodes: {told}")


def tools(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins of Slurm's commands, first on the PATH: machines a1 and a2, and an srun that writes how it was called."""
    scripts = {
        "srun": f"env | sort >{folder}/environment; printf '%s\\n' \"$@\" >{folder}/words; exit 3",
        "scontrol": '[ "$2" = hostnames ] && echo "$3" | tr , "\\n" || echo "NodeName=$3 NodeAddr=10.0.0.${3#a} X=1"',
        "squeue": "echo a1,a2,a3",
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in [one for one in os.environ if one.startswith(("SLURM_", "MASTER_", "NNODES", "NODE_RANK"))]:
        monkeypatch.delenv(name)


def test_srun_starts_a_launcher_on_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocation is asked for where its list was taken away, as Snakemake's executor does; a step's own variables go."""
    tools(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    with pytest.raises(Star1Error, match="finetune run: ended with status 3 on one of 2 machines"):
        launching.launch("finetune run", 1, "scripts.finetune", ["--run", "run"], 2)
    words = (tmp_path / "words").read_text().splitlines()
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--nodelist=a1,a2", "--kill-on-bad-exit=1"} <= {*words}
    assert words[-5:] == [sys.executable, "-m", "scripts.finetune", "--run", "run"]
    found = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert (found["NNODES"], found["MASTER_ADDR"], found["SLURM_JOB_ID"]) == ("2", "10.0.0.1", "7")
    assert int(found["MASTER_PORT"]) in nodes.PORTS
    assert not {"SLURM_CPUS_PER_TASK", "NODE_RANK", "SLURM_JOB_NODELIST"} & {*found}


def test_containers_are_started_by_srun_on_each_machine_and_share_one_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule's command was run inside, where there is no srun; each machine now knows its number, and none cuts the log."""
    from snakemake.deployment import singularity
    from snakemake.shell import shell

    tools(tmp_path, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    each = 'while [ "$1" != sh ]; do shift; done\nfor SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@" || exit; done'
    for name, body in (
        ("srun", each),
        ("apptainer", 'printf "%s\\n" began "$@"; [ "$SLURM_NODEID" = "$FAILS" ] && exit 3; true'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(singularity.Singularity(), "binary", "apptainer")
    monkeypatch.setattr(singularity, "shellcmd", containers._with_options(singularity.shellcmd))
    image, log = "containers/finetune-0123456789ab.sif", tmp_path / "log"
    command = f"python -m scripts.finetune --choices '{{{{}}}}' 2>&1 | tee {log}"
    shell(command, container_img=image, resources={"nodes": 2}, read=True)
    first, second = (part.splitlines() for part in log.read_text().split("began\n")[1:])
    assert {"NNODES=2", "NODE_RANK=0", "MASTER_ADDR=10.0.0.1"} < {*first}
    assert {"NNODES=2", "NODE_RANK=1", "MASTER_ADDR=10.0.0.1"} < {*second}
    assert [one for one in first if one not in second] == ["NODE_RANK=0"]
    assert first[-4:-1] == [image, "bash", "-c"]
    assert first[-1].endswith("python -m scripts.finetune --choices '{}'")
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(subprocess.CalledProcessError):
        shell(command, container_img=image, resources={"nodes": 2}, read=True)
    assert "error: finetune: ended with status 3 on one of 2 machines" in log.read_text()
    monkeypatch.setenv("FAILS", "no")
    told = shell(command, container_img=image, resources={"nodes": 1}, read=True)
    assert "NODE_RANK" not in told  # one machine: nothing of this
    assert " | tee " in told


def test_a_port_that_is_taken_here_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr(nodes, "PORTS", ports)
        monkeypatch.setattr(random.SystemRandom, "sample", lambda _, population, __: list(population))
        assert nodes.free_port("127.0.0.1") == ports[1]
        assert nodes.free_port("192.0.2.1") == ports[0]  # another machine's: nothing can be seen from here


def test_a_job_asks_slurm_for_its_machines() -> None:
    """As the executor reads resources: by machine, and not as so many tasks a GPU; on one machine, as ever."""
    values = params.read_yaml(ROOT / "params.yaml")
    values["finetune"]["settings"] |= {"nodes": 2, "processes": 4}
    values["fetch"]["models"]["tiny"]["kind"] = "hub"
    inputs, needs = Inputs(Params(values)), Needs(values["resources"], None)
    asked = needs("finetune", processes=inputs.processes, on_gpu=inputs.run_on_gpu, nodes=inputs.nodes)
    wildcards: Any = Wildcards(fromdict={"run": "star1"})
    names = ("nodes", "tasks", "tasks_per_gpu", "gres", "gpu", "mpi")
    assert {name: asked[name](wildcards) for name in names} == {
        "nodes": 2,
        "tasks": 2,
        "tasks_per_gpu": 0,
        "gres": "gpu:4",
        "gpu": None,
        "mpi": "srun",
    }
    values["finetune"]["settings"]["nodes"] = 1
    assert {name: asked[name](wildcards) for name in names if asked[name](wildcards) is not None} == {
        "nodes": 1,  # the GPUs of one machine
        "gpu": 4,
    }


def test_machines_are_asked_about_before_the_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came out when training was to begin, at the end of hours of model calls."""
    for name in ("SLURM_JOB_ID", "NNODES"):
        monkeypatch.delenv(name, raising=False)
    rule = SimpleNamespace(name="finetune")
    job = SimpleNamespace(rule=rule, wildcards=["star1"], output=["x"], resources={"nodes": 2})
    dag = SimpleNamespace(jobs=[job], needrun=lambda _: True)
    here = SimpleNamespace(dag=dag, executor_plugin=SimpleNamespace(name="local"))
    with pytest.raises(Star1Error) as caught:
        slurm.check_machines(here)
    assert str(caught.value).startswith(
        "finetune star1: nodes: 2, and there is no Slurm here to give them; expected a Slurm allocation. Hint: `snakemake --work"
    )
    slurm.check_machines(SimpleNamespace(dag=dag, executor_plugin=SimpleNamespace(name="slurm")))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.check_machines(here)
    monkeypatch.delenv("SLURM_JOB_ID")
    job.resources["nodes"] = 1
    slurm.check_machines(here)


def test_the_batch_is_held_over_all_machines() -> None:
    small_settings(batch_size=8, nodes=2, processes=4)
    with pytest.raises(Star1Error) as caught:
        small_settings(batch_size=7, nodes=2, processes=4)
    assert str(caught.value) == (
        "training settings: processes: 4 on each of 2 machines with a batch_size of 7, 0.88 samples for each in an update;"
        " expected at most 7 in all."
    )
