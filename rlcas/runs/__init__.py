"""A run's folder: its places and paths, its log of epochs, stages, replay."""
