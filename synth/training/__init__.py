"""How every network of a generator is trained: steps, checkpoints, averages, workers."""
