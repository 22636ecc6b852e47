# benign: harmless look-alikes of the final data set, against over-refusal (paper 4.3, appendix E; STAR-benign-915).
#
# in:  data/star1.jsonl
# out: data/benign/rewritten.jsonl   question rewritten to look alike and be harmless; original: the question it came from
#      data/benign/cot.jsonl         + response, by the teacher on the bare question
#      data/benign/scored.jsonl      + score: {criterion: 1 to 5}
#      data/benign/benign.jsonl      the rows with full marks
#      data/quarantine/benign_*.jsonl rows without a readable reply, each with its reason
#      results/costs/benign_*.json    what the replies cost and took; not in git


rule benign_rewrite:
    """Rewrite with {params.endpoint}."""
    input:
        code=code("benign_rewrite"),
        policy=inputs.prompts("benign_rewrite"),
        published=inputs.replayed_rows("rewriter"),
        rows="data/star1.jsonl",
    output:
        rows="data/benign/rewritten.jsonl",
        quarantine="data/quarantine/benign_rewrite.jsonl",
        costs="results/costs/benign_rewrite.json",
    log:
        "logs/benign_rewrite.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.turns("rewriter"),
        **needs("benign_rewrite"),
    params:
        endpoint=inputs.endpoint("rewriter"),
        sampling=P("benign.rewrite.sampling"),
        coverage=P("benign.rewrite.coverage"),
        limit=P("benign.limit"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.benign_rewrite --input {input.rows} --output {output.rows} --quarantine {output.quarantine}"
        " --replies data/replies/benign_rewrite.jsonl --costs {output.costs} --policy policies/{params.pack} --endpoint {params.endpoint:q}"
        " --sampling {params.sampling:q} --coverage {params.coverage} --limit {params.limit} 2>&1 | tee {log}"


rule benign_reason:
    """Answer with {params.endpoint}."""
    input:
        code=code("benign_reason"),
        policy=inputs.prompts("benign_reason"),
        published=inputs.replayed_rows("teacher"),
        rows="data/benign/rewritten.jsonl",
    output:
        rows="data/benign/cot.jsonl",
        quarantine="data/quarantine/benign_reason.jsonl",
        costs="results/costs/benign_reason.json",
    log:
        "logs/benign_reason.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.turns("teacher"),
        **needs("benign_reason"),
    params:
        endpoint=inputs.endpoint("teacher"),
        sampling=P("benign.reason.sampling"),
        coverage=P("benign.reason.coverage"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.benign_reason --input {input.rows} --output {output.rows} --quarantine {output.quarantine}"
        " --replies data/replies/benign_reason.jsonl --costs {output.costs} --policy policies/{params.pack} --endpoint {params.endpoint:q}"
        " --sampling {params.sampling:q} --coverage {params.coverage} 2>&1 | tee {log}"


rule benign_score:
    """Score with {params.endpoint}."""
    input:
        code=code("benign_score"),
        policy=inputs.prompts("benign_score"),
        published=inputs.replayed_rows("scorer"),
        rows="data/benign/cot.jsonl",
    output:
        rows="data/benign/scored.jsonl",
        quarantine="data/quarantine/benign_score.jsonl",
        costs="results/costs/benign_score.json",
    log:
        "logs/benign_score.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.turns("scorer"),
        **needs("benign_score"),
    params:
        endpoint=inputs.endpoint("scorer"),
        sampling=P("benign.score.sampling"),
        coverage=P("benign.score.coverage"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.benign_score --input {input.rows} --output {output.rows} --quarantine {output.quarantine}"
        " --replies data/replies/benign_score.jsonl --costs {output.costs} --policy policies/{params.pack} --endpoint {params.endpoint:q}"
        " --sampling {params.sampling:q} --coverage {params.coverage} 2>&1 | tee {log}"


rule benign_keep:
    """Keep the benign rows with full marks."""
    input:
        code=code("benign_keep"),
        policy=f"{inputs.pack}/policy.yaml",
        rows="data/benign/scored.jsonl",
    output:
        "data/benign/benign.jsonl",
    log:
        "logs/benign_keep.log",
    container:
        IMAGES["data"]
    resources:
        **needs("benign_keep"),
    params:
        pack=P("policy.pack"),
    shell:
        "python -m scripts.benign_keep --input {input.rows} --output {output} --policy policies/{params.pack} 2>&1 | tee {log}"
