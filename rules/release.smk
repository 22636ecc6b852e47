# release: what leaves the house, each folder with its card (docs/release.md); `star1 push` uploads it.
#
# in:  data/{scored,full_score,star1}.jsonl, data/benign/*.jsonl, why rows were left out, funnel, contamination, tables
# out: release/datasets/{star-41k,star-1,star-benign}/   flat Parquet, published layout, card, terms, Croissant, digests
#      release/models/{run}/                             card, digests; the weights stay in models/{run}/

RELEASED = {"star-41k": "STAR-41K", "star-1": "STAR-1", "star-benign": "STAR-benign"}
ASKED = ["classifier", "teacher", "scorer", "rewriter"]
CALLS = ["categorize", "reason", "score", "benign.rewrite", "benign.reason", "benign.score"]


rule release:
    """Release the data sets under {params.licence}, with {params.redistribute} beside what licences say."""
    input:
        code=code("release"),
        policy=inputs.whole_pack(),
        published=sorted({path for role in ASKED for path in inputs.replayed_rows(role)}),
        rows=expand("data/{name}.jsonl", name=["collection", "scored", "full_score", "star1", "curate_dropped"]),
        benign=expand("data/benign/{name}.jsonl", name=["rewritten", "scored", "benign"]),
        quarantine=expand("data/quarantine/{name}.jsonl", name=[name.replace(".", "_") for name in CALLS]),
        metrics=["results/metrics/funnel.json", "results/metrics/contamination.json"],
    output:
        tables=expand("release/datasets/{name}/data/train-00000-of-00001.parquet", name=RELEASED),
        published=[f"release/datasets/{name}/{title}.json" for name, title in RELEASED.items()],
        cards=expand("release/datasets/{name}/README.md", name=RELEASED),
        terms=expand("release/datasets/{name}/LICENSE.md", name=RELEASED),
        croissant=expand("release/datasets/{name}/croissant.json", name=RELEASED),
        seals=expand("release/datasets/{name}/release.json", name=RELEASED),
    log:
        "logs/release.log",
    container:
        IMAGES["data"]
    resources:
        **needs("release"),
    params:
        endpoints=inputs.answerers(*ASKED),
        roles=P.each("llm.roles.{}", ASKED),
        sampling=P.each("{}.sampling", CALLS),
        sources=P.each("fetch.sources.{}", SOURCES),
        redistribute=P("release.redistribute"),
        licence=P("release.licence"),
        confidence=P("summarize.confidence"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.release --data data --metrics results/metrics --replies data/replies"
        " --policy policies/{params.pack} --endpoints {params.endpoints:q} --roles {params.roles:q}"
        " --sampling {params.sampling:q} --sources {params.sources:q} --redistribute {params.redistribute:q}"
        " --licence {params.licence} --confidence {params.confidence} --output release/datasets 2>&1 | tee {log}"


rule release_model:
    """Release the model of run {wildcards.run}."""
    input:
        code=code("release_model"),
        checkpoint="models/{run}/manifest.json",
        base=inputs.base,
        released=inputs.released_data,
        table="results/tables/main.json",
    output:
        card="release/models/{run}/README.md",
        seal="release/models/{run}/release.json",
    log:
        "logs/release_model/{run}.log",
    container:
        IMAGES["data"]
    resources:
        **needs("release_model"),
    params:
        run=inputs.run(),
        licence=P("release.licence"),
    shell:
        "python -m scripts.release_model --run {wildcards.run} --choices {params.run:q} --checkpoint {input.checkpoint}"
        " --base {input.base} --released {input.released} --table {input.table} --licence {params.licence}"
        " --output release/models/{wildcards.run} 2>&1 | tee {log}"
