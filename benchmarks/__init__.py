"""What the parts of the pipeline cost, measured beside other ways to the same result."""
