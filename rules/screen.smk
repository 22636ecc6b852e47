# screen: which rows of the training sets are in a benchmark, or near to a row of one. Reports, and changes nothing.
#
# in:  the prompt sets, the collection, all training data; every benchmark that is run or named in collect.benchmarks
# out: data/contamination.jsonl             pairs, with the measures by which they meet
#      results/metrics/contamination.json   counts by training set and benchmark

TRAINING = (
    {name: f"data/sources/{name}.jsonl" for name in SOURCES}
    | {"collection": "data/collection.jsonl", "star1": "data/star1.jsonl", "benign": "data/benign/benign.jsonl"}
    | {name: f"data/published/{name}.jsonl" for name in P.names("fetch.published")}
)


rule screen:
    """Compare all training sets with all benchmarks."""
    input:
        code=code("screen"),
        training=list(TRAINING.values()),
        benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=SCREENED),
    output:
        pairs="data/contamination.jsonl",
        metrics="results/metrics/contamination.json",
    log:
        "logs/screen.log",
    container:
        IMAGES["data"]
    threads: 2
    resources:
        **needs("screen"),
    params:
        training=[f"{name}={path}" for name, path in TRAINING.items()],
        benchmarks=[f"{name}=data/benchmarks/{name}.jsonl" for name in SCREENED],
        ngram=P("collect.pool_ngram"),
        tfidf_threshold=P("collect.tfidf_threshold"),
        embedding_threshold=P("collect.embedding_threshold"),
    shell:
        "python -m scripts.screen --training {params.training:q} --benchmarks {params.benchmarks:q} --ngram {params.ngram}"
        " --tfidf-threshold {params.tfidf_threshold} --embedding-threshold {params.embedding_threshold}"
        " --output {output.pairs} --metrics {output.metrics} 2>&1 | tee {log}"
