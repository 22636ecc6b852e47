"""Scripts: thin, one for each rule, and named so that they shadow nothing."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem != "__init__")


def test_script_names_shadow_no_importable_module() -> None:
    # A folder of artifacts such as release/ looks like a package too; it has no code that could be shadowed.
    specs = {name: importlib.util.find_spec(name) for name in SCRIPTS}
    taken = [name for name, spec in specs.items() if name in sys.stdlib_module_names or (spec and spec.origin)]
    assert taken == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short_and_used_by_a_rule(name: str) -> None:
    assert len((ROOT / "scripts" / f"{name}.py").read_text().splitlines()) <= 40
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert re.search(rf"python -m scripts\.{name}\b", rules)
    assert f'code("{name}")' in rules


def test_every_script_explains_its_flags() -> None:
    for name in SCRIPTS:
        done = subprocess.run(
            [sys.executable, "-m", f"scripts.{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "--output" in done.stdout or "--json" in done.stdout or "--benchmarks" in done.stdout, name


def test_package_root_holds_no_code() -> None:
    """It is in no rule's code list, so it must have nothing that could change a result."""
    lines = Path(ROOT / "star1" / "__init__.py").read_text().strip().splitlines()
    assert len(lines) == 3


def test_star1_outside_the_project_says_so(tmp_path: Path) -> None:
    for command in ("plan", "show", "preset", "sync", "dvc-yaml"):
        done = subprocess.run(
            [sys.executable, "-m", "star1.cli", command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert (
            done.stderr
            == f"error: {tmp_path}: no Snakefile; expected the project's folder. Hint: cd to where params.yaml lies.\n"
        )


def test_star1_ends_quietly_when_nobody_reads_on(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").touch()
    (tmp_path / "results/tables").mkdir(parents=True)
    (tmp_path / "results/tables/main.md").write_text("a line of the table\n" * 20_000)
    command = f"{sys.executable} -m star1.cli show | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a line of the table\n", "")
