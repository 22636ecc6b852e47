"""Rewrite each harmful prompt as a harmless question that looks alike."""

from star1.benign import rewrite, row_limit
from star1.calls import call_flags, read_calls, settle
from star1.errors import run
from star1.policies import load_pack
from star1.records import read_rows


def main() -> None:
    """Read flags and rows, ask, write."""
    parser = call_flags(__doc__)
    parser.add_argument("--limit", type=row_limit, help="only the first so many rows; null, or no flag, for all")
    flags = parser.parse_args()
    rows = read_rows(flags.input, ["id", "question", "source", "category"])[: flags.limit]
    outcome = rewrite(rows, load_pack(flags.policy), read_calls(flags))
    print(settle(outcome, flags.output, flags.quarantine, flags.coverage))


if __name__ == "__main__":
    run(main)
