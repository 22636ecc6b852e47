"""The STAR-1 pipeline as a library: one module per noun of the pipeline, rows in and rows out."""

__version__ = "0.1.0"
