# The STAR-1 pipeline: from public prompt sets to a safety-aligned reasoning model and the tables about it.
#
#   snakemake                                     run what is not up to date, on this machine
#   snakemake -n                                  say what would run, and why
#   dvc repro                                     the same rules, driven by DVC; `dvc pull` fetches released artifacts
#
# Every value that can change a result stands in params.yaml; what depends on what stands in the rules, and nowhere else.

import sys

from snakemake.utils import min_version

from star1 import images, params, runs
from star1.errors import Star1Error
from star1.workflow import engine
from star1.workflow.inputs import Inputs
from star1.workflow.ladders import Ladder
from star1.workflow.lookups import Params, code, page_files
from star1.workflow.needs import Needs
from star1.workflow.outputs import fetched_again
from star1.workflow.plots import plot

min_version("9.27")

try:
    P = Params(params.load())
    engine.before_plan(workflow)
    needs = Needs(P.values["resources"], workflow)
except Star1Error as error:
    sys.exit(f"error: {error}")

SOURCES = P.names("collect.sources")
BENCHMARKS = P.names("generate.benchmarks")
DECONTAMINATE = [name for name, action in P.value("collect.benchmarks").items() if action == "drop"]
SCREENED = list(dict.fromkeys([*P.names("collect.benchmarks"), *BENCHMARKS]))
# Of runs with several seeds, a model for each.
MODELS = runs.expand(P.names("generate.models"), P.value("finetune.runs"))
RUNS = list(runs.by_model(P.value("finetune.runs")))
SELECTIONS = P.names("curate.selections")
# One image a kind of work; used with `--workflow-profile profiles/apptainer`, else the environment that Snakemake runs in.
IMAGES = images.names(P.values)
inputs = Inputs(P)
engine.limit(workflow, inputs.endpoints())
engine.prepare_containers(workflow, P.values)


wildcard_constraints:
    **{
        name: r"[A-Za-z0-9][A-Za-z0-9_+-]*"
        for name in ("source", "benchmark", "published", "model", "run", "selection")
    },


# Rule files in running order; each is one stage of the paper.
include: "rules/fetch.smk"
include: "rules/collect.smk"
include: "rules/categorize.smk"
include: "rules/reason.smk"
include: "rules/score.smk"
include: "rules/curate.smk"
include: "rules/benign.smk"
include: "rules/screen.smk"
include: "rules/describe.smk"
include: "rules/finetune.smk"
include: "rules/generate.smk"
include: "rules/judge.smk"
include: "rules/agree.smk"
include: "rules/ladder.smk"
include: "rules/summarize.smk"
include: "rules/release.smk"
include: "rules/report.smk"


try:
    needs.check([*(rule.name for rule in workflow.rules), "ladder"])
except Star1Error as error:
    sys.exit(f"error: {error}")


# What a cluster's queue is not asked for; fetch.smk has more.
localrules:
    all,
    release_model,


# Every published artifact by name: one that is deleted is stale for both engines.
rule all:
    default_target: True
    input:
        expand(rules.fetch_source.output, source=SOURCES),
        expand(rules.fetch_benchmark.output, benchmark=sorted({*DECONTAMINATE, *BENCHMARKS})),
        rules.collect.output,
        rules.categorize.output,
        rules.reason.output,
        rules.score.output,
        rules.curate.output,
        expand(rules.curate_select.output, selection=SELECTIONS),
        rules.curate_perturb.output,
        rules.benign_rewrite.output,
        rules.benign_reason.output,
        rules.benign_score.output,
        rules.benign_keep.output,
        rules.screen.output,
        rules.describe.output,
        expand(rules.finetune.output, run=RUNS),
        expand(rules.generate.output, model=MODELS),
        expand(rules.judge.output, model=MODELS),
        rules.agree.output,
        rules.ladder.output if LADDER.models else [],
        expand(rules.ladder_judge.output, model=LADDER.variants) if LADDER.models else [],
        rules.summarize.output,
        rules.release.output,
        expand(rules.release_model.output, run=RUNS),
        rules.report.output,


onstart:
    engine.on_start(workflow)


onsuccess:
    engine.on_end(workflow)
    engine.show_results(workflow)


onerror:
    engine.on_end(workflow)
    engine.tell_failures(workflow)
