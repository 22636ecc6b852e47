"""Judge a model's answers to benchmarks: a verdict per answer and judge, or the reason why there is none."""

from star1.calls import call_flags
from star1.endpoints import read_named, read_settings
from star1.errors import run
from star1.judge_settings import Grader, Judges, Use
from star1.judges import calls_of, check_coverage, judge_all, judgements, read_benchmarks, read_paths, tally
from star1.policies import load_pack
from star1.records import write_json, write_rows
from star1.sandbox import Sandbox


def main() -> None:
    """Read flags, benchmarks and generations, judge, write."""
    parser = call_flags(__doc__, single=False)
    parser.add_argument("--model", required=True, help="name of the model whose answers are judged")
    parser.add_argument("--benchmarks", nargs="+", required=True, metavar="NAME=ROWS:GENERATIONS:JUDGEMENTS")
    parser.add_argument("--judges", required=True, help="judges by name, JSON")
    parser.add_argument("--use", required=True, help="judges by purpose of the benchmark, the primary one first, JSON")
    parser.add_argument("--grader", default="{}", help="how reasoning is graded, JSON")
    parser.add_argument("--sandbox", default="{}", help="how programs that a model wrote are run; JSON")
    flags = parser.parse_args()
    paths = read_paths("--benchmarks", flags.benchmarks)
    judges, use = read_settings("--judges", flags.judges, Judges).root, read_settings("--use", flags.use, Use)
    calls = calls_of(judges, read_named("--endpoints", flags.endpoints), flags.replies, flags.coverage)
    how = read_settings("--grader", flags.grader, Grader), read_settings("--sandbox", flags.sandbox, Sandbox)
    benchmarks = read_benchmarks(paths, how[1])
    found = judge_all(benchmarks, judges, use, load_pack(flags.policy), calls)
    write_rows(flags.quarantine, (row for one in found.values() for row in one.outcome.quarantined))
    check_coverage(list(found.values()), flags.coverage)
    judged = {one.name: judgements(one, [found[name] for name in use.of(one.purpose)], *how) for one in benchmarks}
    for name, rows in judged.items():
        write_rows(paths[name][2], rows)
    write_json(flags.costs, {name: one.outcome.costs for name, one in found.items()})
    told = (f"{flags.model} on {name}: {tally(rows)}" for name, rows in judged.items())
    print(*(one.outcome.summary() for one in found.values()), *told, sep="; ")


if __name__ == "__main__":
    run(main)
