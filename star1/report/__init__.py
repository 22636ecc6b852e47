"""The report: one static page about a run, opened from disk (docs/report.md)."""
