"""`rlcas doctor`: checks of an installation, and how to fix what is wrong with it.

It needs none of the packages that it checks: one that is absent or broken is a finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rlcas.credentials import without_credentials
from rlcas.doctor import access, data, machine, packages, ray_folders
from rlcas.doctor.finding import Finding, Verdict, fault

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Finding", "diagnose", "main_report"]

Checks = Mapping[str, Callable[[], Finding]]

CHECKS: Checks = {
    "Python": packages.python,
    "dependencies": packages.dependencies,
    "gymnasium for Ray": packages.gymnasium,
    "torch build": packages.torch_build,
    "torchvision": packages.torchvision_import,
    "diffusers": packages.diffusers_import,
    "byte code": packages.byte_code,
    "GPU": machine.gpu,
    "cores": machine.cores,
    "memory": machine.memory,
    "disk here": machine.disk_here,
    "disk for temporary files": machine.disk_temporary,
    "shared memory": machine.shared_memory,
    "data": data.data,
    "Ray's folders": ray_folders.ray_folders,
    "Ray's token": access.ray_token,
}
DEEP_CHECKS: Checks = {"Ray starts": packages.ray_start}

COLOURS: Mapping[Verdict, str] = {"ok": "green", "warn": "yellow", "fault": "bold red"}


def diagnose(*, deep: bool) -> list[Finding]:
    """Return a finding for every check; `deep` starts Ray too. A check that raises becomes a finding."""
    return list(examine(_checks(deep)))


def main_report(*, deep: bool) -> int:
    """Print each finding as soon as it is made; return the exit status: 0 without a fault, else 1."""
    return report(examine(_checks(deep)))


def examine(checks: Checks) -> Iterator[Finding]:
    """Run the checks in turn; one that raises is a fault with the error's text."""
    for name, check in checks.items():
        try:
            finding = check()
        except Exception as error:  # a broken package can raise anything, and the other checks must still run
            text = " ".join(f"{type(error).__name__}: {error}".split())
            finding = fault(f"the check failed: {text}", "fix the other faults, or install rlcas again")
        # Findings quote errors and variables of the environment, which may hold an address with a password.
        yield replace(
            finding,
            name=name,
            found=without_credentials(finding.found),
            fix=without_credentials(finding.fix),
        )


def report(findings: Iterable[Finding]) -> int:
    """Print findings, as rows on a terminal, else as lines; return 0 without a fault, else 1."""
    show, say = _printers()
    counts = Counter[Verdict]()
    for finding in findings:
        show(finding)
        counts[finding.verdict] += 1
    say(f"{counts['fault']} at fault, {counts['warn']} with a warning, {counts['ok']} ok")
    return int(counts["fault"] > 0)


def _checks(deep: bool) -> Checks:
    return {**CHECKS, **DEEP_CHECKS} if deep else CHECKS


def _printers() -> tuple[Callable[[Finding], None], Callable[[str], None]]:
    try:
        from rlcas.console import console, say
    except ImportError:  # rich or numpy is absent, which is one of the findings
        return lambda finding: print(_line(finding)), print
    if console().is_terminal:
        return lambda finding: console().print(_row(finding)), say
    return lambda finding: say(_line(finding)), say


def _line(finding: Finding) -> str:
    fix = f"\n       fix: {finding.fix}" if finding.fix else ""
    return f"{finding.verdict:<6} {finding.name}: {finding.found}{fix}"


def _row(finding: Finding) -> Table:
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 2))
    for width in (max(map(len, COLOURS)), max(map(len, _checks(deep=True))), None):
        row.add_column(width=width)
    fix = f"\nfix: {finding.fix}" if finding.fix else ""
    # Text, because rich reads [extra] in a requirement as markup.
    row.add_row(Text(finding.verdict, COLOURS[finding.verdict]), finding.name, Text(finding.found + fix))
    return row
