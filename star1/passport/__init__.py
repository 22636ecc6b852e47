"""Where a figure or a row comes from: from a cell of a table back to the source file, every step with its evidence."""
