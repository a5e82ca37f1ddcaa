"""The commands of `rlcas`, one module for each family; they are listed in `table.py`."""
