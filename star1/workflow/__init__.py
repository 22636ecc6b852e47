"""One DAG, two engines: Snakemake's rules are the source, and DVC's file and lock are made from and kept in step with them."""
