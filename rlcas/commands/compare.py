"""`rlcas compare`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcas.commands.command import Gathered, Parser, add_flags, check_resumes_alone


def compare(arguments: argparse.Namespace) -> int:
    """Train every compared method under every seed; the status is 1 if a cell failed."""
    from rlcas.methods import weight_settings
    from rlcas.settings import stated

    check_resumes_alone(arguments, "comparison", weight_settings())
    settings = stated(given=arguments.given, file=arguments.config)
    if arguments.dry_run:
        from cluster.comparison.dry_run import describe

        print(describe(settings))
        return 0
    if arguments.resume is not None:
        return resume_comparison(arguments.resume, arguments.given)
    from cluster.comparison.compare import compare as compare_methods

    return _status(compare_methods(settings))


def resume_comparison(folder: Path, weights: Mapping[str, str] | None = None) -> int:
    """Continue a comparison; `weights` name weight files for rows that were left out without them."""
    from cluster.comparison.compare import resume

    return _status(resume(folder, weights or {}))


def is_comparison(folder: Path) -> bool:
    """Return whether a folder is a comparison's."""
    from rlcas.settings import COMPARE_CONFIG_FILE

    return (folder / COMPARE_CONFIG_FILE).is_file()


def compare_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas compare` other than the settings of a run."""
    from rlcas.config import CompareConfig
    from rlcas.settings import flags

    text = "continue an interrupted comparison; missing weight files may be named with it"
    parser.add_argument("--resume", type=Path, metavar="COMPARISON", help=text)
    group = parser.add_argument_group("comparison settings")
    known = {flag.key: flag for flag in flags(CompareConfig, "compare.")}
    pools = known.pop("compare.pools")
    add_flags(group, [known.pop("compare.methods")], "--methods")
    options: dict[str, Any] = {"action": _Pools, "default": argparse.SUPPRESS, "metavar": "NAME=DIR"}
    group.add_argument(f"--{pools.key}", help=pools.help, **options)
    add_flags(group, list(known.values()))
    return "[--methods NAMES]"


def _status(folder: Path) -> int:
    from rlcas.comparison.folder import read_comparison

    return int(any(cell.status == "failed" for cell in read_comparison(folder).cells))


class _Pools(Gathered):
    form = "write NAME=DIR, as in --compare.pools sketch=runs/mine"
    again = "is set twice: leave one out"

    def parts(self, values: str) -> list[str]:
        """Return NAME=DIR of each pool; commas stand between them."""
        return values.split(",")
