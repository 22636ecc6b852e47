"""Score each response on the criteria of a rubric of the policy pack."""

from star1.calls import call_flags, read_calls, settle
from star1.deliberation import score
from star1.errors import run
from star1.policies import load_pack
from star1.records import read_rows


def main() -> None:
    """Read flags and rows, ask, write."""
    flags = call_flags(__doc__).parse_args()
    rows = read_rows(flags.input, ["id", "question", "category", "response"])
    outcome = score(rows, load_pack(flags.policy), read_calls(flags))
    print(settle(outcome, flags.output, flags.quarantine, flags.coverage))


if __name__ == "__main__":
    run(main)
