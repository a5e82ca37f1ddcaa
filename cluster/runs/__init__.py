"""Whole runs: both phases, their checks before anything starts, dry runs, resuming."""
