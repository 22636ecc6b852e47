"""The body of every DVC stage: let Snakemake run exactly one rule, for the outputs of one job; or see to dvc.yaml."""

import os
import sys
import time

from star1.errors import run

BEGAN = time.time()
STAGE_DIGEST = "STAR1_STAGE_DIGEST"


def main() -> None:
    """Replace this process by Snakemake restricted to one rule. Arguments: rule, digest of the job, its outputs."""
    if sys.argv[1:] == ["--in-step"]:
        from star1.workflow import basis, dvcfile

        run(lambda: basis.write(dvcfile.check(BEGAN)))
        return
    rule, digest, *outputs = sys.argv[1:]
    os.environ[STAGE_DIGEST] = digest
    options = ["--nolock", "--force", "--allowed-rules", rule, "--quiet", "all", "--", *outputs]
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *options])  # noqa: S606


if __name__ == "__main__":
    main()
