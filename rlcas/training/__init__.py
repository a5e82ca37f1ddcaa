"""The classifier's trainer, fits of several epochs, saved classifiers."""
