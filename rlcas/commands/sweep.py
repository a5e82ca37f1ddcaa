"""`rlcas sweep`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rlcas.commands.command import Gathered, Parser, add_flags, check_resumes_alone


def sweep(arguments: argparse.Namespace) -> int:
    """Run phase one once, then a trial for each point of the search space; the status is 1 if a trial failed."""
    from rlcas.settings import stated

    check_resumes_alone(arguments, "sweep")
    settings = stated(given=arguments.given, file=arguments.config)
    # After the flags are parsed: Ray takes seconds to import.
    from cluster.sweeps import sweep as sweeps

    if arguments.dry_run:
        print(sweeps.describe(settings))
        return 0
    done = sweeps.sweep(settings) if arguments.resume is None else sweeps.resume(arguments.resume)
    return int(any(trial.status == "failed" for trial in done.trials))


def sweep_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas sweep` other than the settings of a run."""
    from rlcas.config import SweepConfig
    from rlcas.settings import flags

    parser.add_argument("--resume", type=Path, metavar="SWEEP", help="continue an interrupted sweep")
    group = parser.add_argument_group("sweep settings")
    over, *others = flags(SweepConfig, "sweep.")
    text = f"{over.help} [{', '.join(over.default)}]"
    options: dict[str, Any] = {"dest": over.key, "action": _Over, "default": argparse.SUPPRESS}
    group.add_argument("--over", f"--{over.key}", metavar="SETTING=VALUES", help=text, **options)
    add_flags(group, others)
    return "[--over SETTING=VALUES ...]"


class _Over(Gathered):
    form = "write SETTING=VALUES, as in --over sampler.k=1,3"
    again = "is swept twice: list all its values in one --over"
