# ladder: a model's evaluation from the published protocol to ours, one change a step (docs/statistics.md); none without ladder.models.
#
# in:  a checkpoint, data/benchmarks/*.jsonl
# out: results/ladder/{generations,judgements}/{model}--{step}/*.jsonl   as generate and judge make them, with the step's values
#      results/tables/ladder.{json,md,tex}                               every step's rates, paired with those of the step before
# A step that changes nothing under `generate` judges the answers of the step before it.

LADDER = Ladder(P)

if LADDER.models:
    engine.limit(workflow, {**inputs.endpoints(), **dict.fromkeys(LADDER.judged(Inputs.judge_turns), 1)})

    use rule generate as ladder_generate with:
        input:
            code=code("generate"),
            checkpoint=lambda wildcards: inputs.checkpoint(LADDER.model(wildcards)),
            benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=LADDER.benchmarks),
        output:
            expand("results/ladder/generations/{{model}}/{benchmark}.jsonl", benchmark=LADDER.benchmarks),
        log:
            "logs/ladder_generate/{model}.log",
        resources:
            **needs(
                "generate", name=LADDER.model, on_gpu=lambda wildcards: inputs.model_on_gpu(LADDER.model(wildcards))
            ),
        params:
            benchmarks=lambda wildcards: [
                f"{name}=data/benchmarks/{name}.jsonl:results/ladder/generations/{wildcards.model}/{name}.jsonl"
                for name in LADDER.benchmarks
            ],
            decoded_as=lambda wildcards: LADDER.model(wildcards),
            engine=LADDER("generate.engine"),
            options=LADDER("generate.options"),
            sampling=LADDER("generate.sampling"),
            sampling_of=LADDER("generate.sampling_of"),

    use rule judge as ladder_judge with:
        input:
            code=code("judge"),
            policy=LADDER.judged(Inputs.judge_files),
            published=LADDER.judged(Inputs.judge_rows),
            benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=LADDER.benchmarks),
            generations=lambda wildcards: expand(
                "results/ladder/generations/{model}/{benchmark}.jsonl",
                model=LADDER.generated(wildcards),
                benchmark=LADDER.benchmarks,
            ),
        output:
            judgements=expand("results/ladder/judgements/{{model}}/{benchmark}.jsonl", benchmark=LADDER.benchmarks),
            quarantine="results/ladder/quarantine/{model}.jsonl",
            costs="results/costs/ladder_judge-{model}.json",
        log:
            "logs/ladder_judge/{model}.log",
        resources:
            **dict.fromkeys(LADDER.judged(Inputs.judge_turns), 1),
            **needs("judge", name=LADDER.model),
        params:
            benchmarks=lambda wildcards: [
                f"{name}=data/benchmarks/{name}.jsonl:results/ladder/generations/{LADDER.generated(wildcards)}/{name}.jsonl"
                f":results/ladder/judgements/{wildcards.model}/{name}.jsonl"
                for name in LADDER.benchmarks
            ],
            endpoints=P.each("llm.endpoints.{}", LADDER.judged(Inputs.judging)),
            judges=LADDER("judge.judges"),
            use=LADDER("judge.use"),
            grader=LADDER("judge.grader"),
            coverage=LADDER("judge.coverage"),
            sandbox=LADDER("judge.sandbox"),

    rule ladder:
        """Ladder of {params.ladder}."""
        input:
            code=code("ladder"),
            judgements=expand(
                "results/ladder/judgements/{variant}/{benchmark}.jsonl",
                variant=LADDER.variants,
                benchmark=LADDER.benchmarks,
            ),
        output:
            json="results/tables/ladder.json",
            markdown="results/tables/ladder.md",
            latex="results/tables/ladder.tex",
        log:
            "logs/ladder.log",
        container:
            IMAGES["data"]
        resources:
            **needs("ladder"),
        params:
            ladder=P("ladder"),
            settings=P.each("summarize.{}", ["confidence", "power", "bootstrap"]),
        shell:
            "python -m scripts.ladder --judgements results/ladder/judgements --ladder {params.ladder:q} --settings {params.settings:q}"
            " --json {output.json} --markdown {output.markdown} --latex {output.latex} 2>&1 | tee {log}"
