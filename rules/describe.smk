# describe: what the data sets are made of: categories and sources, marks, lengths, wording. Counts, and changes nothing.
#
# in:  the scored rows, the data sets made of them, and those that others released, where the run has any
# out: results/metrics/quality.json     all figures; rates with intervals
#      results/plots/categories.csv     labels by category and source
#      results/plots/marks.csv          how often each mark was given, by criterion
#      results/plots/lengths.csv        words of questions, thinking and answers
#      results/plots/wording.csv        policies cited in the thinking, and in the answer; how answers refuse

DESCRIBED = {
    "scored": "data/scored.jsonl",
    "star1": "data/star1.jsonl",
    "benign": "data/benign/benign.jsonl",
} | {name: f"data/selections/{name}.jsonl" for name in SELECTIONS}
DESCRIBED |= {name: f"data/published/{name}.jsonl" for name in P.names("fetch.published")}


rule describe:
    """Describe the data sets."""
    input:
        code=code("describe"),
        sets=list(DESCRIBED.values()),
    output:
        metrics="results/metrics/quality.json",
        categories="results/plots/categories.csv",
        marks="results/plots/marks.csv",
        lengths="results/plots/lengths.csv",
        wording="results/plots/wording.csv",
    log:
        "logs/describe.log",
    container:
        IMAGES["data"]
    resources:
        **needs("describe"),
    params:
        sets=[f"{name}={path}" for name, path in DESCRIBED.items()],
        confidence=P("summarize.confidence"),
    shell:
        "python -m scripts.describe --sets {params.sets:q} --confidence {params.confidence} --json {output.metrics}"
        " --categories {output.categories} --marks {output.marks} --lengths {output.lengths} --wording {output.wording}"
        " 2>&1 | tee {log}"
