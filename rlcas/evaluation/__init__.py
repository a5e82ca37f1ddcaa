"""Test figures of a trained classifier, their intervals, and features of images."""
