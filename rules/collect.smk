# collect: deduplicate the prompt sets and take out what is near a test set (paper 2.1; 530K -> 41K).
#
# in:  data/sources/*.jsonl in order, data/benchmarks/*.jsonl
# out: data/collection.jsonl       {id, question, source}
#      data/dropped.jsonl          every dropped row with its step, its reason and the row it matched
#      results/metrics/funnel.json rows of each source after each step, and reasons
#      results/plots/funnel.csv    the same rows, for `dvc plots show`
#      results/costs/collect.json  time and peak memory of each step; not in git, since no two runs agree

# What every part of the stage is told: sets in order, and settings.
COLLECT = (
    "--sources {params.sources:q} --ngrams {params.ngrams:q} --benchmarks {params.benchmarks:q}"
    " --pool-ngram {params.pool_ngram} --tfidf-threshold {params.tfidf_threshold}"
    " --embedding-threshold {params.embedding_threshold} --ngram-survivor {params.ngram_survivor}"
)
COLLECT_PARAMS = dict(
    order=P("collect.sources"),
    sources=[f"{name}=data/sources/{name}.jsonl" for name in SOURCES],
    benchmarks=[f"{name}=data/benchmarks/{name}.jsonl" for name in DECONTAMINATE],
    ngrams=P.each("fetch.sources.{}.ngram", SOURCES),
    pool_ngram=P("collect.pool_ngram"),
    tfidf_threshold=P("collect.tfidf_threshold"),
    embedding_threshold=P("collect.embedding_threshold"),
    ngram_survivor=P("collect.ngram_survivor"),
)
COLLECT_INPUTS = dict(
    sources=expand("data/sources/{source}.jsonl", source=SOURCES),
    benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=DECONTAMINATE),
)
COLLECTED = dict(
    collection="data/collection.jsonl",
    dropped="data/dropped.jsonl",
    funnel="results/metrics/funnel.json",
    plot="results/plots/funnel.csv",
    costs="results/costs/collect.json",
)
COUNTS = {name: f"data/sources/{name}.counts.json" for name in SOURCES}
COLLECT_OUTPUTS = "--counts {params.counts:q} " + " ".join(
    f"--{flag} {{output.{name}}}" for name, flag in zip(COLLECTED, ("output", *list(COLLECTED)[1:]))
)
PARTS = P.value("collect.shards")


if PARTS == 1:

    rule collect:
        """Collect with n-grams of {params.pool_ngram} words, TF-IDF below {params.tfidf_threshold}, embeddings below {params.embedding_threshold}."""
        input:
            **COLLECT_INPUTS,
            code=code("collect"),
            counts=list(COUNTS.values()),
        output:
            **COLLECTED,
        log:
            "logs/collect.log",
        container:
            IMAGES["data"]
        threads: 2
        resources:
            **needs("collect"),
        params:
            **COLLECT_PARAMS,
            counts=[f"{name}={path}" for name, path in COUNTS.items()],
        shell:
            f"python -m scripts.collect {COLLECT} {COLLECT_OUTPUTS} 2>&1 | tee {{log}}"

else:

    rule collect_pool:
        """First steps, set after set."""
        input:
            **COLLECT_INPUTS,
            code=code("collect_pool"),
        output:
            "data/collect/pool.json",
        log:
            "logs/collect_pool.log",
        container:
            IMAGES["data"]
        threads: 2
        resources:
            **needs("collect_pool"),
        params:
            **COLLECT_PARAMS,
        shell:
            f"python -m scripts.collect_pool {COLLECT} --output {{output}} 2>&1 | tee {{log}}"

    rule collect_vectors:
        """Embeddings of part {wildcards.part}."""
        input:
            **COLLECT_INPUTS,
            code=code("collect_vectors"),
            pool="data/collect/pool.json",
        output:
            "data/collect/vectors-{part}.npy",
        log:
            "logs/collect_vectors/{part}.log",
        container:
            IMAGES["data"]
        threads: 2
        resources:
            **needs("collect_vectors"),
        params:
            **COLLECT_PARAMS,
            parts=P("collect.shards"),
        shell:
            f"python -m scripts.collect_vectors {COLLECT}"
            " --pool {input.pool} --part {wildcards.part}"
            " --parts {params.parts} --output {output} 2>&1 | tee {log}"

    rule collect_pairs:
        """Pairs of the rows of block {wildcards.part} and all before."""
        input:
            **COLLECT_INPUTS,
            code=code("collect_pairs"),
            pool="data/collect/pool.json",
            vectors=expand("data/collect/vectors-{part}.npy", part=range(PARTS)),
        output:
            "data/collect/pairs-{part}.npz",
        log:
            "logs/collect_pairs/{part}.log",
        container:
            IMAGES["data"]
        threads: 2
        resources:
            **needs("collect_pairs"),
        params:
            **COLLECT_PARAMS,
        shell:
            f"python -m scripts.collect_pairs {COLLECT}"
            " --pool {input.pool} --vectors {input.vectors}"
            " --part {wildcards.part} --output {output} 2>&1 | tee {log}"

    rule collect:
        """Decide from the pairs of all parts."""
        input:
            **COLLECT_INPUTS,
            code=code("collect_gather"),
            counts=list(COUNTS.values()),
            pool="data/collect/pool.json",
            pairs=expand("data/collect/pairs-{part}.npz", part=range(PARTS)),
        output:
            **COLLECTED,
        log:
            "logs/collect.log",
        container:
            IMAGES["data"]
        resources:
            **needs("collect"),
        params:
            **COLLECT_PARAMS,
            counts=[f"{name}={path}" for name, path in COUNTS.items()],
        shell:
            f"python -m scripts.collect_gather {COLLECT} {COLLECT_OUTPUTS}"
            " --pool {input.pool} --pairs {input.pairs}"
            " 2>&1 | tee {log}"
