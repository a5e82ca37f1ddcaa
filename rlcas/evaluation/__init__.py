"""Test metrics of a trained classifier, their confidence intervals, and features of images."""
