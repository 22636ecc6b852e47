#!/bin/sh
# The command of every DVC stage: stage.sh RULE DIGEST OUTPUT...  Snakemake makes these outputs by this one rule.
# The project's own environment comes first, so that `.venv/bin/dvc repro` works without activating it.
PATH="$PWD/.venv/bin:$PATH"
export PATH
exec python -m star1.workflow.stage "$@"
