"""The report: one static page of what a run made, with its data beside it."""
