"""A run's folder: what lies in it, its log of epochs, stages, replay."""
