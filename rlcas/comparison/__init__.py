"""Results of a comparison: its cells, their statistics and tables. Nothing here trains."""
