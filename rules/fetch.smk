# fetch: bring prompt sets, benchmarks, released data sets and base models onto this machine (paper 2.1, 3.1).
#
# in:  bundled files, the mirror folder, GitHub or the hub, by the tables in params.yaml
# out: data/sources/{source}.jsonl            rows {question, source, licence, row}
#      data/benchmarks/{benchmark}.jsonl      rows {id, question, benchmark, purpose, ...}
#      data/{sources,benchmarks}/*.counts.json what became of all rows of the raw files
#      data/benchmarks/*.manifest.json       which rows a test set has, and their digest
#      data/published/{published}.jsonl       rows as in STAR-1
#      models/base/{model}/                   a checkpoint; its manifest.json lists the files
# On a cluster these run where Snakemake does: compute nodes often have no way out. A tiny model is made, which is a job.


localrules:
    fetch_source,
    fetch_benchmark,
    fetch_published,


if all(entry["kind"] != "tiny" for entry in P.values["fetch"]["models"].values()):

    localrules:
        fetch_model,


rule fetch_source:
    """Fetch the prompt set {wildcards.source} as {params.entry}."""
    input:
        code=code("fetch_source"),
        files=inputs.local_files("sources"),
    output:
        rows="data/sources/{source}.jsonl",
        counts="data/sources/{source}.counts.json",
    log:
        "logs/fetch_source/{source}.log",
    container:
        IMAGES["data"]
    resources:
        **needs("fetch_source"),
    params:
        entry=P("fetch.sources.{source}"),
        mirror=P("fetch.mirror"),
    shell:
        "python -m scripts.fetch_source --source {wildcards.source} --entry {params.entry:q} --mirror {params.mirror:q}"
        " --output {output.rows:q} --counts {output.counts:q} 2>&1 | tee {log:q}"


rule fetch_benchmark:
    """Fetch the test set {wildcards.benchmark} as {params.entry}."""
    input:
        code=code("fetch_benchmark"),
        files=inputs.local_files("benchmarks"),
    output:
        rows="data/benchmarks/{benchmark}.jsonl",
        counts="data/benchmarks/{benchmark}.counts.json",
        manifest="data/benchmarks/{benchmark}.manifest.json",
    log:
        "logs/fetch_benchmark/{benchmark}.log",
    container:
        IMAGES["data"]
    resources:
        **needs("fetch_benchmark"),
    params:
        entry=P("fetch.benchmarks.{benchmark}"),
        mirror=P("fetch.mirror"),
    shell:
        "python -m scripts.fetch_benchmark --benchmark {wildcards.benchmark} --entry {params.entry:q} --mirror {params.mirror:q}"
        " --output {output.rows:q} --counts {output.counts:q} --manifest {output.manifest:q} 2>&1 | tee {log:q}"


rule fetch_published:
    """Fetch the released data set {wildcards.published} as {params.entry}."""
    input:
        code=code("fetch_published"),
        files=inputs.local_files("published"),
    output:
        "data/published/{published}.jsonl",
    log:
        "logs/fetch_published/{published}.log",
    container:
        IMAGES["data"]
    resources:
        **needs("fetch_published"),
    params:
        entry=P("fetch.published.{published}"),
        mirror=P("fetch.mirror"),
    shell:
        "python -m scripts.fetch_published --name {wildcards.published} --entry {params.entry:q} --mirror {params.mirror:q}"
        " --output {output:q} 2>&1 | tee {log:q}"


rule fetch_model:
    """Fetch or make the base model {wildcards.model} as {params.entry}."""
    input:
        code=code("fetch_model"),
    output:
        # Weights at a commit of the hub are fetched again rather than kept by DVC (docs/data.md).
        checkpoint=fetched_again("models/base/{model}/manifest.json", inputs.pinned_models()),
        metrics="results/metrics/fetch_model-{model}.json",
    log:
        "logs/fetch_model/{model}.log",
    container:
        IMAGES["finetune"]
    threads: 1
    resources:
        **needs("fetch_model"),
    params:
        entry=P("fetch.models.{model}"),
        mirror=P("fetch.mirror"),
    shell:
        "python -m scripts.fetch_model --model {wildcards.model} --entry {params.entry:q} --mirror {params.mirror:q}"
        " --threads {threads} --metrics {output.metrics:q} --output {output.checkpoint:q} 2>&1 | tee {log:q}"
