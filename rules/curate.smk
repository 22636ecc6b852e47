# curate: keep full marks, then balance sources and categories down to the final data set (paper 2.3; 41K -> 1,000).
#
# in:  data/scored.jsonl
# out: data/full_score.jsonl              the rows with full marks
#      data/star1.jsonl                   the final data set
#      data/curate_dropped.jsonl          every other row, with its reason
#      data/selections/{selection}.jsonl  other choices of the scored rows, as curate.selections names them
#      results/tables/stability.{json,md}, results/metrics/stability.json
#                                         how much of the final data set hangs on single marks, thresholds and the order of rows


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
        **needs("curate"),
    params:
        size=P("curate.size"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.curate --input {input.rows} --policy policies/{params.pack} --size {params.size}"
        " --full-score {output.full_score} --output {output.rows} --dropped {output.dropped} 2>&1 | tee {log}"


rule curate_select:
    """Select {wildcards.selection}: {params.selection}."""
    input:
        code=code("curate_select"),
        policy=f"{inputs.pack}/policy.yaml",
        rows="data/scored.jsonl",
    output:
        "data/selections/{selection}.jsonl",
    log:
        "logs/curate_select/{selection}.log",
    container:
        IMAGES["data"]
    resources:
        **needs("curate_select"),
    params:
        selection=P("curate.selections.{selection}"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.curate_select --name {wildcards.selection} --selection {params.selection:q} --input {input.rows}"
        " --policy policies/{params.pack} --output {output} 2>&1 | tee {log}"


rule curate_perturb:
    """Select {params.size} rows anew under noise, thresholds and orders: {params.noise}."""
    input:
        code=code("curate_perturb"),
        policy=f"{inputs.pack}/policy.yaml",
        rows="data/scored.jsonl",
    output:
        json="results/tables/stability.json",
        markdown="results/tables/stability.md",
        metrics="results/metrics/stability.json",
    log:
        "logs/curate_perturb.log",
    container:
        IMAGES["data"]
    resources:
        **needs("curate_perturb"),
    params:
        size=P("curate.size"),
        noise=P("curate.stability"),
        confidence=P("summarize.confidence"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.curate_perturb --input {input.rows} --policy policies/{params.pack} --size {params.size}"
        " --noise {params.noise:q} --confidence {params.confidence} --json {output.json} --markdown {output.markdown}"
        " --metrics {output.metrics} 2>&1 | tee {log}"
