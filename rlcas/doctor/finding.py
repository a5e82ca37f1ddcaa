"""What a check of the doctor comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `diagnose` puts the check's name on it."""

    verdict: Verdict
    found: str
    mend: str = ""
    """What to do about it; empty where the verdict is ok."""
    name: str = ""


def ok(found: str) -> Finding:
    """Return a finding with nothing to mend."""
    return Finding("ok", found)


def warn(found: str, mend: str) -> Finding:
    """Return a finding with which runs work, but slower or not for long."""
    return Finding("warn", found, mend)


def fault(found: str, mend: str) -> Finding:
    """Return a finding with which runs fail."""
    return Finding("fault", found, mend)
