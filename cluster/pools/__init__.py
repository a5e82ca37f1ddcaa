"""A run's pool of synthetic images: made or opened, marked for copies, scored."""
