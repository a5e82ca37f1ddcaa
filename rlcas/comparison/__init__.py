"""What a comparison found: its cells, their statistics, tables, figures and page. Nothing here trains."""
