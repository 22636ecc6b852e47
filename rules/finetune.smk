# finetune: supervised fine-tuning of a base model on the final data set, loss on thinking and answer (paper 3.1). One job
# for each seed of a run, whose model is then called NAME-seed1 and so on.
#
# in:  models/base/{base}/, data/star1.jsonl and whatever else the run names
# out: models/{run}/                          a checkpoint; its manifest.json lists the files
#      results/metrics/finetune-{run}.json    loss, rate and tokens of each update
#      results/plots/finetune-{run}.csv       the same for `dvc plots show`
#      results/costs/finetune-{run}.json      time, memory, energy, and on what; not in git, since no two runs agree
# With `processes` above 1 or a `sharding`, the script starts itself that often (star1/launching.py, docs/training.md); with `nodes`
# above 1, on as many machines of a Slurm allocation (star1/nodes.py).


rule finetune:
    """Fine-tune {input.base} on {input.data} with {params.settings}."""
    input:
        code=code("finetune"),
        base=inputs.base,
        data=inputs.training_data,
    output:
        checkpoint="models/{run}/manifest.json",
        metrics="results/metrics/finetune-{run}.json",
        plot=plot("results/plots/finetune-{run}.csv", x="update", y="loss"),
        costs="results/costs/finetune-{run}.json",
    log:
        "logs/finetune/{run}.log",
    container:
        IMAGES["finetune"]
    # Processes that the script starts: a thread and, unless the base model is a tiny one, a GPU each.
    threads: inputs.processes
    resources:
        # With several machines, each has these; the script is a launcher there, and calls srun itself.
        **needs("finetune", processes=inputs.processes, on_gpu=inputs.run_on_gpu, nodes=inputs.nodes),
    params:
        run=inputs.run(),
        settings=P("finetune.settings"),
        lora=inputs.lora(),
        trackers=P("finetune.trackers"),
    shell:
        "python -m scripts.finetune --run {wildcards.run} --base {input.base} --data {input.data} --choices {params.run:q}"
        " --settings {params.settings:q} --lora {params.lora:q} --threads {threads} --metrics {output.metrics} --plot {output.plot}"
        " --costs {output.costs} --trackers {params.trackers:q} --output {output.checkpoint}"
        " 2>&1 | tee {log}"
