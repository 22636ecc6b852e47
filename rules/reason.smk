# reason: answer each prompt with reasoning over the policies of its categories (paper 2.2).
#
# in:  data/categorized.jsonl
# out: data/cot.jsonl                 + response: <think>...</think> and the answer
#      data/quarantine/reason.jsonl   rows without a trace, each with its reason
#      results/costs/reason.json      what the replies cost and took; not in git


rule reason:
    """Reason with {params.endpoint}."""
    input:
        code=code("reason"),
        policy=inputs.prompts("reason"),
        published=inputs.replayed_rows("teacher"),
        rows="data/categorized.jsonl",
    output:
        rows="data/cot.jsonl",
        quarantine="data/quarantine/reason.jsonl",
        costs="results/costs/reason.json",
    log:
        "logs/reason.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.turns("teacher"),
        **needs("reason"),
    params:
        endpoint=inputs.endpoint("teacher"),
        sampling=P("reason.sampling"),
        coverage=P("reason.coverage"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.reason --input {input.rows} --output {output.rows} --quarantine {output.quarantine}"
        " --replies data/replies/reason.jsonl --costs {output.costs} --policy policies/{params.pack} --endpoint {params.endpoint:q}"
        " --sampling {params.sampling:q} --coverage {params.coverage} 2>&1 | tee {log}"
