"""Judge a model's answers to benchmarks: a verdict per answer, or the reason why there is none."""

from star1.calls import call_flags, check_coverage, read_calls
from star1.endpoints import read_settings
from star1.errors import run
from star1.judges import Prompts, judge, judgements, read_benchmark, read_paths, tally
from star1.policies import load_pack
from star1.records import write_rows
from star1.sandbox import Sandbox


def main() -> None:
    """Read flags, benchmarks and generations, judge, write."""
    parser = call_flags(__doc__, single=False)
    parser.add_argument("--model", required=True, help="name of the model whose answers are judged")
    parser.add_argument("--benchmarks", nargs="+", required=True, metavar="NAME=ROWS:GENERATIONS:JUDGEMENTS")
    parser.add_argument("--prompts", required=True, help="how answers are judged, by purpose of the benchmark; JSON")
    parser.add_argument("--sandbox", default="{}", help="how programs that a model wrote are run; JSON")
    flags = parser.parse_args()
    paths = read_paths("--benchmarks", flags.benchmarks)
    prompts = read_settings("--prompts", flags.prompts, Prompts)
    sandbox = read_settings("--sandbox", flags.sandbox, Sandbox)
    calls = read_calls(flags)
    benchmarks = [read_benchmark(name, rows, generations) for name, (rows, generations, _) in paths.items()]
    outcome = judge(benchmarks, prompts, load_pack(flags.policy), calls)
    judged = {one.name: judgements(one, prompts, outcome, calls.endpoint.label, sandbox) for one in benchmarks}
    write_rows(flags.quarantine, outcome.quarantined)
    if outcome.kept or outcome.quarantined:  # with no answer to judge there is nothing that the judge failed at
        check_coverage(outcome, flags.coverage)
    for name, rows in judged.items():
        write_rows(paths[name][2], rows)
    print(outcome.summary(), *(f"{flags.model} on {name}: {tally(rows)}" for name, rows in judged.items()), sep="; ")


if __name__ == "__main__":
    run(main)
