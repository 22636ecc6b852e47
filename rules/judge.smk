# judge: a verdict for each answer, or the reason why there is none (paper 3.1).
#
# in:  results/generations/{model}/*.jsonl, data/benchmarks/*.jsonl
# out: results/judgements/{model}/{benchmark}.jsonl   {id, benchmark, purpose, verdict or unscored + reason, judge, ...}
#      results/quarantine/{model}.jsonl               answers whose verdict could not be read
#      results/costs/judge-{model}.json               what the replies cost and took; not in git
# Harmful and benign prompts go to the judge model, reasoning ones to a grader.


rule judge:
    """Judge the answers of {wildcards.model} by {params.endpoint} with {params.prompts}."""
    input:
        code=code("judge"),
        policy=inputs.prompts("judge_refusal", "judge_guard"),
        published=inputs.replayed_rows("judge"),
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
        **inputs.turns("judge"),
        mem_mb=4000,
        runtime=1440,
    params:
        benchmarks=lambda wildcards: [
            f"{name}=data/benchmarks/{name}.jsonl:results/generations/{wildcards.model}/{name}.jsonl"
            f":results/judgements/{wildcards.model}/{name}.jsonl"
            for name in BENCHMARKS
        ],
        endpoint=inputs.endpoint("judge"),
        prompts=P("judge.prompts"),
        sampling=P("judge.sampling"),
        coverage=P("judge.coverage"),
        sandbox=P("judge.sandbox"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.judge --model {wildcards.model} --benchmarks {params.benchmarks} --prompts {params.prompts:q}"
        " --quarantine {output.quarantine} --replies data/replies/judge-{wildcards.model}.jsonl --costs {output.costs} --policy policies/{params.pack}"
        " --endpoint {params.endpoint:q} --sampling {params.sampling:q} --coverage {params.coverage} --sandbox {params.sandbox:q} 2>&1 | tee {log}"
