"""TensorBoard and the live view of a run's epochs."""
