# generate: let a model answer the benchmarks (paper 3.1). One job a model: it is loaded once.
#
# in:  a checkpoint, data/benchmarks/*.jsonl
# out: results/generations/{model}/{benchmark}.jsonl   {id, sample, question, response, thinking, answer, finish_reason, ...}
# Finished answers are kept under .work/ while a job runs, so that a killed one goes on where it was.


rule generate:
    """Let {wildcards.model} answer by {params.engine} with {params.sampling} {params.sampling_of}."""
    input:
        code=code("generate"),
        checkpoint=lambda wildcards: inputs.checkpoint(wildcards.model),
        benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=BENCHMARKS),
    output:
        expand("results/generations/{{model}}/{benchmark}.jsonl", benchmark=BENCHMARKS),
    log:
        "logs/generate/{model}.log",
    container:
        IMAGES["vllm"]
    threads: 1
    resources:
        **needs("generate", on_gpu=lambda wildcards: inputs.model_on_gpu(wildcards.model)),
    params:
        benchmarks=lambda wildcards: [
            f"{name}=data/benchmarks/{name}.jsonl:results/generations/{wildcards.model}/{name}.jsonl"
            for name in BENCHMARKS
        ],
        # Whose values of sampling_of hold.
        decoded_as=lambda wildcards: wildcards.model,
        engine=P("generate.engine"),
        options=P("generate.options"),
        sampling=P("generate.sampling"),
        sampling_of=P("generate.sampling_of"),
    shell:
        "python -m scripts.generate --model {wildcards.model} --decoded-as {params.decoded_as} --checkpoint {input.checkpoint}"
        " --engine {params.engine}"
        " --options {params.options:q} --sampling {params.sampling:q} --sampling-of {params.sampling_of:q} --threads {threads}"
        " --benchmarks {params.benchmarks} 2>&1 | tee {log}"
