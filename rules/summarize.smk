# summarize: the tables, each rate with its interval, its n and its coverage (paper 3.2; docs/statistics.md).
#
# in:  results/judgements/{model}/*.jsonl, what screen counted, the published figures
# out: results/tables/main.{json,md,tex}      our rates, averages, pass@k, seeds, other judges; contamination in the footnotes
#      results/tables/{published,quality,think}.{json,md,tex}   ours beside the paper's, where both are about the same
#      results/tables/over-refusal.{json,md,tex}
#      results/tables/paired.{json,md,tex}    every run against its base model on the same items
#      results/metrics/{main,paired}.json

TABLES = ["main", "published", "quality", "think", "over-refusal", "paired"]
HOW = ["confidence", "power", "averages", "pass_at", "bootstrap", "pairs"]


rule summarize:
    """Tables of {params.models} with {params.settings}."""
    input:
        code=code("summarize"),
        published="published/paper_results.csv",
        rows="published/paper_rows.yaml",
        contamination="results/metrics/contamination.json",
        judgements=expand(
            "results/judgements/{model}/{benchmark}.jsonl",
            model=MODELS,
            benchmark=BENCHMARKS,
        ),
    output:
        tables=expand("results/tables/{table}.{format}", table=TABLES, format=["json", "md", "tex"]),
        metrics=expand("results/metrics/{table}.json", table=["main", "paired"]),
    log:
        "logs/summarize.log",
    container:
        IMAGES["data"]
    resources:
        **needs("summarize"),
    params:
        models=inputs.models(),
        benchmarks=P("generate.benchmarks"),
        entries=P.each("fetch.benchmarks.{}", BENCHMARKS),
        runs=P("finetune.runs"),
        settings=P.each("summarize.{}", HOW),
    shell:
        "python -m scripts.summarize --judgements results/judgements --models {params.models:q} --benchmarks {params.benchmarks:q}"
        " --entries {params.entries:q} --runs {params.runs:q} --settings {params.settings:q} --contamination {input.contamination}"
        " --published {input.published} --published-rows {input.rows} --tables results/tables --metrics results/metrics"
        " 2>&1 | tee {log}"
