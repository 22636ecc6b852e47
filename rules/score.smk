# score: mark each response on the three criteria of the rubric, 0 to 10 (paper 2.3; the result is STAR-41K).
#
# in:  data/cot.jsonl
# out: data/scored.jsonl             + score: {criterion: integer}
#      data/quarantine/score.jsonl   rows without readable marks, each with its reason
#      results/costs/score.json      what the replies cost and took; not in git


rule score:
    """Score with {params.endpoint}."""
    input:
        code=code("score"),
        policy=inputs.prompts("score"),
        published=inputs.replayed_rows("scorer"),
        rows="data/cot.jsonl",
    output:
        rows="data/scored.jsonl",
        quarantine="data/quarantine/score.jsonl",
        costs="results/costs/score.json",
    log:
        "logs/score.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.turns("scorer"),
        **needs("score"),
    params:
        endpoint=inputs.endpoint("scorer"),
        sampling=P("score.sampling"),
        coverage=P("score.coverage"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.score --input {input.rows} --output {output.rows} --quarantine {output.quarantine}"
        " --replies data/replies/score.jsonl --costs {output.costs} --policy policies/{params.pack} --endpoint {params.endpoint:q}"
        " --sampling {params.sampling:q} --coverage {params.coverage} 2>&1 | tee {log}"
