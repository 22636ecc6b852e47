# judge: a verdict for each answer and judge, or the reason why there is none (paper 3.1).
#
# in:  results/generations/{model}/*.jsonl, data/benchmarks/*.jsonl
# out: results/judgements/{model}/{benchmark}.jsonl   {id, benchmark, purpose, name, kind, view, verdict or unscored + reason, ...}
#      results/quarantine/{model}.jsonl               answers whose verdict could not be read
#      results/costs/judge-{model}.json               what the replies cost and took, judge by judge; not in git
# Harmful and benign prompts go to the judges of judge.use, reasoning ones to a grader.


rule judge:
    """Judge the answers of {wildcards.model} by {params.use}."""
    input:
        code=code("judge"),
        policy=inputs.judge_files(),
        published=inputs.judge_rows(),
        benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=BENCHMARKS),
        generations=expand("results/generations/{{model}}/{benchmark}.jsonl", benchmark=BENCHMARKS),
    output:
        judgements=expand("results/judgements/{{model}}/{benchmark}.jsonl", benchmark=BENCHMARKS),
        quarantine="results/quarantine/{model}.jsonl",
        costs="results/costs/judge-{model}.json",
    log:
        "logs/judge/{model}.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.judge_turns(),
        **needs("judge"),
    params:
        benchmarks=lambda wildcards: [
            f"{name}=data/benchmarks/{name}.jsonl:results/generations/{wildcards.model}/{name}.jsonl"
            f":results/judgements/{wildcards.model}/{name}.jsonl"
            for name in BENCHMARKS
        ],
        endpoints=inputs.judge_endpoints(),
        judges=P("judge.judges"),
        use=P("judge.use"),
        grader=P("judge.grader"),
        coverage=P("judge.coverage"),
        sandbox=P("judge.sandbox"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.judge --model {wildcards.model} --benchmarks {params.benchmarks} --judges {params.judges:q} --use {params.use:q}"
        " --grader {params.grader:q} --quarantine {output.quarantine} --replies data/replies/judge-{wildcards.model}.jsonl --costs {output.costs}"
        " --policy policies/{params.pack} --endpoints {params.endpoints:q} --coverage {params.coverage}"
        " --sandbox {params.sandbox:q} 2>&1 | tee {log}"
