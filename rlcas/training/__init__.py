"""Training of classifiers: one epoch, a run without agents, and saved classifiers."""
