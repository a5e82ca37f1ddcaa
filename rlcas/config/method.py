"""Settings of the compared methods: what is a method's own, with its authors' defaults."""

from __future__ import annotations

from rlcas.config.values import Settings


class MethodConfig(Settings):
    """What each compared method has of its own."""
