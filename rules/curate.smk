# curate: keep full marks, then balance sources and categories down to the final data set (paper 2.3; 41K -> 1,000).
#
# in:  data/scored.jsonl
# out: data/full_score.jsonl       the rows with full marks
#      data/star1.jsonl            the final data set
#      data/curate_dropped.jsonl   every other row, with its reason


rule curate:
    """Keep {params.size} of the rows with full marks."""
    input:
        code=code("curate"),
        policy=f"{inputs.pack}/policy.yaml",
        rows="data/scored.jsonl",
    output:
        full_score="data/full_score.jsonl",
        rows="data/star1.jsonl",
        dropped="data/curate_dropped.jsonl",
    log:
        "logs/curate.log",
    container:
        IMAGES["data"]
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        size=P("curate.size"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.curate --input {input.rows} --policy policies/{params.pack} --size {params.size}"
        " --full-score {output.full_score} --output {output.rows} --dropped {output.dropped} 2>&1 | tee {log}"
