"""The transcripts of the report: every prompt, what each model answered, what each judge said, and the training rows.

What the page loads first is small: `transcripts/catalogue` (which sets there are), then `transcripts/{set}/index` (columns to
filter by). Texts stand in parts of about half a megabyte, read when a row is opened or searched. Rows are found by benchmark
and id, which stay the same when the files are made anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from star1 import runs
from star1.records import Row
from star1.report import transcripts_evaluation, transcripts_training
from star1.report.run import Run
from star1.report.writing import write_data

NAME = "transcripts"


@dataclass(frozen=True)
class Sources:
    """What is shown.

    Attributes:
        models: names, in the order of the tables.
        benchmarks: names.
        bases: base model of each tuned one, by name.
        training: files of training rows, by name.
        subsets: files with some rows of one of them: name to its name and file.
        passports: what the address of a training row's passport begins with (`benign:`, `published:NAME/`), by name of the set;
            otherwise `row:`.
        benign: sets whose prompts are harmless.
        outcomes: files that tell why a row is not in the final data set, by name of the set.
        benchmark_folder, generations, judgements: folders.
        published: sets that others released.
    """

    models: Sequence[str]
    benchmarks: Sequence[str]
    bases: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, Path] = field(default_factory=dict)
    subsets: Mapping[str, tuple[str, Path]] = field(default_factory=dict)
    passports: Mapping[str, str] = field(default_factory=dict)
    benign: Sequence[str] = ()
    outcomes: Mapping[str, Path] = field(default_factory=dict)
    benchmark_folder: Path = Path("data/benchmarks")
    generations: Path = Path("results/generations")
    judgements: Path = Path("results/judgements")
    published: Sequence[str] = ()


def sources(run: Run) -> Sources:
    """What of a run is shown: all models' answers, the scored rows with those selected of them, benign and published ones.

    Raises:
        InputError: a file is not among the stage's inputs.
    """
    made, benchmarks = run.params["finetune"]["runs"], run.params["generate"]["benchmarks"]
    models = runs.expand(run.params["generate"]["models"], made)
    bases = {model: made[name]["base"] for model, name in runs.by_model(made).items()}
    folders = [Path("data/benchmarks")]
    folders += [Path("results") / kind / model for kind in ("generations", "judgements") for model in models]
    for folder in folders:
        for benchmark in benchmarks:
            run.path(f"{folder}/{benchmark}.jsonl")
    chosen = ["data/star1.jsonl", *run.names("data/selections/*.jsonl")]
    released = {Path(name).stem: run.path(name) for name in run.names("data/published/*.jsonl")}
    return Sources(
        models,
        benchmarks,
        {model: base for model, base in bases.items() if model in models and base in models},
        {"scored": run.path("data/scored.jsonl"), "benign": run.path("data/benign/benign.jsonl"), **released},
        {Path(name).stem: ("scored", run.path(name)) for name in chosen},
        {"benign": "benign:"} | {name: f"published:{name}/" for name in released},
        ["benign"],
        {"scored": run.path("data/curate_dropped.jsonl")},
        run.root / "data/benchmarks",
        run.root / "results/generations",
        run.root / "results/judgements",
        list(released),
    )


def write(folder: Path, sources: Sources) -> Row:
    """Write the data files of the transcripts.

    Args:
        folder: of the page.
        sources: what is shown.

    Returns:
        How many rows each set has.

    Raises:
        InputError: a file cannot be read, or has an answer to a row that the benchmark does not have.
    """
    sets: list[dict[str, Any]] = []
    if sources.benchmarks:
        place = f"{NAME}/{len(sets)}"
        files = transcripts_evaluation.Files(sources.benchmark_folder, sources.generations, sources.judgements)
        index = transcripts_evaluation.write(folder, place, files, sources.models, sources.benchmarks)
        write_data(folder, f"{place}/index", index)
        sets.append({"name": "evaluation", "kind": "evaluation", "index": f"{place}/index", "rows": len(index["ids"])})
    for name, path in sources.training.items():
        sets += _training(folder, f"{NAME}/{len(sets)}", name, path, sources)
    known = [{"name": name, "base": sources.bases.get(name)} for name in sources.models]
    write_data(folder, f"{NAME}/catalogue", {"models": known, "sets": sets})
    return {one["name"]: one["rows"] for one in sets}


def _training(folder: Path, place: str, name: str, path: Path, sources: Sources) -> list[dict[str, Any]]:
    """A set of training rows, and the sets that are made of some of its rows."""
    how = {"passport": sources.passports.get(name, "row:"), "harmful": name not in sources.benign}
    how |= {"published": name in sources.published}
    subsets = {each: file for each, (whole, file) in sources.subsets.items() if whole == name}
    index = transcripts_training.write(folder, place, path, subsets, sources.outcomes.get(name))
    write_data(folder, f"{place}/index", index | how)
    entry = {"name": name, "kind": "training", "index": f"{place}/index", "published": how["published"]}
    whole = {**entry, "rows": len(index["ids"])}
    return [whole, *({**entry, "name": each, "of": name, "rows": len(index["subsets"][each])} for each in subsets)]
