"""Sweeps by Ray Tune: what is searched, what a trial may take, how trials run."""
