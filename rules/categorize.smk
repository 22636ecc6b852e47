# categorize: name the categories of harm of each prompt (paper 2.2).
#
# in:  data/collection.jsonl
# out: data/categorized.jsonl              + category: list of names of the policy pack
#      data/quarantine/categorize.jsonl    rows without a readable reply, each with its reason
#      results/costs/categorize.json       what the replies cost and took; not in git
# The replies lie in data/replies/, which is no output: what was answered once is not asked again.


rule categorize:
    """Categorize with {params.endpoint}."""
    input:
        code=code("categorize"),
        policy=inputs.prompts("categorize"),
        published=inputs.replayed_rows("classifier"),
        rows="data/collection.jsonl",
    output:
        rows="data/categorized.jsonl",
        quarantine="data/quarantine/categorize.jsonl",
        costs="results/costs/categorize.json",
    log:
        "logs/categorize.log",
    container:
        IMAGES["data"]
    resources:
        **inputs.turns("classifier"),
        **needs("categorize"),
    params:
        endpoint=inputs.endpoint("classifier"),
        sampling=P("categorize.sampling"),
        coverage=P("categorize.coverage"),
        pack=P("policy.pack"),
    shell:
        "python -m scripts.categorize --input {input.rows} --output {output.rows} --quarantine {output.quarantine}"
        " --replies data/replies/categorize.jsonl --costs {output.costs} --policy policies/{params.pack} --endpoint {params.endpoint:q}"
        " --sampling {params.sampling:q} --coverage {params.coverage} 2>&1 | tee {log}"
