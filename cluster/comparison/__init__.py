"""Comparisons of methods: what is trained, where each cell runs, and what pools the cells share."""
