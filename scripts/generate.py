"""Let a model answer benchmarks: `results/generations/{model}/{benchmark}.jsonl`."""

import argparse
from pathlib import Path

import orjson

from star1 import engine_vllm, engines, generations, threads
from star1.errors import run


def main() -> None:
    """Parse flags, generate for all benchmarks with one load of the model, write them and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model in results")
    parser.add_argument("--decoded-as", metavar="MODEL", help="whose values of --sampling-of hold; by default its own")
    parser.add_argument("--checkpoint", help="manifest of its checkpoint; engine openai can do without")
    parser.add_argument("--engine", required=True, help="transformers, vllm or openai")
    parser.add_argument("--benchmarks", required=True, nargs="+", action="extend", help="NAME=INPUT:OUTPUT each")
    parser.add_argument("--sampling", required=True, type=orjson.loads, help="fields of star1.decoding.Sampling")
    parser.add_argument("--sampling-of", type=orjson.loads, default={}, help="what differs by benchmark and model")
    parser.add_argument("--bos", choices=["one", "doubled"], default="one", help="how often a prompt starts")
    parser.add_argument("--options", type=orjson.loads, default={}, help="options of the engine, as JSON")
    parser.add_argument("--work", default=".work/generate", help="folder for finished rows of a job that was killed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = parser.parse_args()
    if args.engine == "vllm":
        engine_vllm.go_where_vllm_is("scripts.generate")
    threads.use(args.threads)
    model = engines.open_model(args.model, args.checkpoint, args.engine)
    benchmarks = [generations.parse_benchmark(text) for text in args.benchmarks]
    work = Path(args.work) / args.model / "rows.jsonl"
    how = (args.sampling, args.sampling_of, args.options)
    rows = generations.generate_benchmarks(model, args.engine, benchmarks, *how, work, args.decoded_as, args.bos)
    print(f"generate {args.model}: {generations.summary(rows)}")


if __name__ == "__main__":
    run(main)
