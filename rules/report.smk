# report: one static page about the run, to be looked at before the numbers are quoted (docs/report.md).
#
# in:  what the other stages made: rows, why rows were left out, answers and verdicts, tables, metrics, plots, costs
# out: results/report/     index.html, which opens from disk; its scripts, its data, and the charting library
# `snakemake --report report.zip` carries it along.

CALLED = ["categorize", "reason", "score", "benign_rewrite", "benign_reason", "benign_score"]
SHOWN_TABLES = [*TABLES, "agreement", "stability", *(["ladder"] if LADDER.models else [])]


rule report:
    """Report of the run that params.yaml describes."""
    input:
        code=code("report"),
        page=page_files(),
        # Shown as a whole, and read by nothing else here.
        settings="params.yaml",
        presets=sorted(map(str, Path("presets").glob("*.yaml"))),
        sources=expand("data/sources/{source}.jsonl", source=SOURCES),
        benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=SCREENED),
        published=expand("data/published/{name}.jsonl", name=P.names("fetch.published")),
        rows=expand(
            "data/{name}.jsonl",
            name=["collection", "dropped", "contamination", "categorized", "cot", "scored", "curate_dropped", "star1"],
        ),
        selections=expand("data/selections/{name}.jsonl", name=SELECTIONS),
        benign=expand("data/benign/{name}.jsonl", name=["rewritten", "scored", "benign"]),
        quarantine=expand("data/quarantine/{name}.jsonl", name=CALLED),
        metrics=expand("results/metrics/{name}.json", name=["funnel", "contamination", "quality"]),
        policy=str(inputs.pack / "policy.yaml"),
        plots=expand("results/plots/{name}.csv", name=["categories", "marks", "lengths", "wording"]),
        losses=expand("results/plots/finetune-{run}.csv", run=RUNS),
        generations=expand("results/generations/{model}/{benchmark}.jsonl", model=MODELS, benchmark=BENCHMARKS),
        judgements=expand("results/judgements/{model}/{benchmark}.jsonl", model=MODELS, benchmark=BENCHMARKS),
        disagreements="results/disagreements.jsonl",
        tables=expand("results/tables/{table}.json", table=SHOWN_TABLES),
        costs=expand(
            "results/costs/{name}.json",
            name=[
                "collect",
                *CALLED,
                *(f"judge-{model}" for model in MODELS),
                *(f"ladder_judge-{variant}" for variant in (LADDER.variants if LADDER.models else [])),
                *(f"finetune-{run}" for run in RUNS),
            ],
        ),
        releases=[
            *expand("release/datasets/{name}/release.json", name=RELEASED),
            *expand("release/models/{run}/release.json", run=RUNS),
        ],
    output:
        report(
            directory("results/report"),
            htmlindex="index.html",
            caption="../star1/report/caption.rst",
            category="Report",
            labels={"what": "the whole run"},
        ),
    log:
        "logs/report.log",
    container:
        IMAGES["data"]
    resources:
        **needs("report"),
    shell:
        "python -m scripts.report --settings {input.settings} --artifacts {input:q} --output {output:q}"
        " 2>&1 | tee {log}"
