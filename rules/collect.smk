# collect: deduplicate the prompt sets and take out what is near a test set (paper 2.1; 530K -> 41K).
#
# in:  data/sources/*.jsonl in order, data/benchmarks/*.jsonl
# out: data/collection.jsonl       {id, question, source}
#      data/dropped.jsonl          every dropped row with its step, its reason and the row it matched
#      results/metrics/funnel.json rows of each source after each step


rule collect:
    """Collect with n-grams of {params.pool_ngram} words, TF-IDF below {params.tfidf_threshold}, embeddings below {params.embedding_threshold}."""
    input:
        code=code("collect"),
        sources=expand("data/sources/{source}.jsonl", source=SOURCES),
        benchmarks=expand("data/benchmarks/{benchmark}.jsonl", benchmark=DECONTAMINATE),
    output:
        collection="data/collection.jsonl",
        dropped="data/dropped.jsonl",
        funnel="results/metrics/funnel.json",
    log:
        "logs/collect.log",
    container:
        IMAGES["data"]
    threads: 2
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        order=P("collect.sources"),
        sources=[f"{name}=data/sources/{name}.jsonl" for name in SOURCES],
        benchmarks=[f"{name}=data/benchmarks/{name}.jsonl" for name in DECONTAMINATE],
        ngrams=P.each("fetch.sources.{}.ngram", SOURCES),
        pool_ngram=P("collect.pool_ngram"),
        tfidf_threshold=P("collect.tfidf_threshold"),
        embedding_threshold=P("collect.embedding_threshold"),
        ngram_survivor=P("collect.ngram_survivor"),
    shell:
        "python -m scripts.collect --sources {params.sources:q} --ngrams {params.ngrams:q} --benchmarks {params.benchmarks:q}"
        " --pool-ngram {params.pool_ngram} --tfidf-threshold {params.tfidf_threshold}"
        " --embedding-threshold {params.embedding_threshold} --ngram-survivor {params.ngram_survivor}"
        " --output {output.collection} --dropped {output.dropped} --funnel {output.funnel} 2>&1 | tee {log}"
