"""One DAG, two engines: Snakemake's rules are the source, DVC's file and lock are kept in step with them."""
