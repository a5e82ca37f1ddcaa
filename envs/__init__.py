"""The batch-composition environment and its views."""
