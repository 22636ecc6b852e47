# agree: how far the judges agree, and the answers on which they do not.
#
# in:  results/judgements/{model}/*.jsonl, data/benchmarks/*.jsonl
# out: results/tables/agreement.{json,md}     Cohen's kappa of each two judges: by benchmark, model and category
#      results/disagreements.jsonl            {id, sample, model, benchmark, verdicts, ...}; texts by their digests


rule agree:
    """Compare the judges, with intervals of {params.confidence}."""
    input:
        code=code("agree"),
        benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=BENCHMARKS),
        judgements=expand(
            "results/judgements/{model}/{benchmark}.jsonl",
            model=MODELS,
            benchmark=BENCHMARKS,
        ),
    output:
        json="results/tables/agreement.json",
        markdown="results/tables/agreement.md",
        disagreements="results/disagreements.jsonl",
    log:
        "logs/agree.log",
    container:
        IMAGES["data"]
    resources:
        **needs("agree"),
    params:
        models=inputs.models(),
        benchmarks=P("generate.benchmarks"),
        confidence=P("agree.confidence"),
        resamples=P("agree.resamples"),
        seed=P("agree.seed"),
    shell:
        "python -m scripts.agree --judgements results/judgements --rows data/benchmarks --models {params.models:q}"
        " --benchmarks {params.benchmarks:q} --confidence {params.confidence} --resamples {params.resamples} --seed {params.seed}"
        " --json {output.json} --markdown {output.markdown} --disagreements {output.disagreements} 2>&1 | tee {log}"
