"""The result of one of the doctor's checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `diagnose` adds the check's name."""

    verdict: Verdict
    found: str
    fix: str = ""
    """What to do about it; empty where the verdict is ok."""
    name: str = ""


def ok(found: str) -> Finding:
    """Return a finding with nothing to fix."""
    return Finding("ok", found)


def warn(found: str, fix: str) -> Finding:
    """Return a finding with which runs work, but slowly, unsafely or not for long."""
    return Finding("warn", found, fix)


def fault(found: str, fix: str) -> Finding:
    """Return a finding with which runs fail."""
    return Finding("fault", found, fix)
