"""What the commands of `rlcas` do, a module a family; the table of them is in `rlcas/cli.py`."""
