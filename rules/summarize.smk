# summarize: the tables, each rate with its interval, its n and its coverage (paper 3.2).
#
# in:  results/judgements/{model}/*.jsonl
# out: results/tables/main.{json,md,tex}, results/metrics/main.json


rule summarize:
    """Tables with intervals of {params.confidence}."""
    input:
        code=code("summarize"),
        judgements=expand(
            "results/judgements/{model}/{benchmark}.jsonl",
            model=MODELS,
            benchmark=BENCHMARKS,
        ),
    output:
        json="results/tables/main.json",
        markdown="results/tables/main.md",
        latex="results/tables/main.tex",
        metrics="results/metrics/main.json",
    log:
        "logs/summarize.log",
    container:
        IMAGES["data"]
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        models=inputs.models(),
        benchmarks=P("generate.benchmarks"),
        confidence=P("summarize.confidence"),
    shell:
        "python -m scripts.summarize --judgements results/judgements --models {params.models:q} --benchmarks {params.benchmarks:q}"
        " --confidence {params.confidence} --json {output.json} --markdown {output.markdown} --latex {output.latex}"
        " --metrics {output.metrics} 2>&1 | tee {log}"
