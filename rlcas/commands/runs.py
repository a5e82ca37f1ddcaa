"""The commands of one run, from `rlcas demo` to its report; slow imports are inside the commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlcas.commands.command import Parser
from rlcas.commands.compare import is_comparison, resume_comparison
from rlcas.errors import UserError
from rlcas.storage.remote import address_of

if TYPE_CHECKING:
    from rlcas.config import RunConfig

USEFULNESS = "synth.scoring.usefulness"


def demo(arguments: argparse.Namespace) -> int:
    """Run both phases on phantoms; a second call shows the finished run."""
    from rlcas.settings.presets import DEMO

    config = _settings(arguments, {"out": "runs/demo", **DEMO})
    from cluster.runs.run import run_or_show

    if arguments.dry_run:
        return _dry_run(config)
    run_or_show(config)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run both phases on one data set."""
    return _run(_settings(arguments), arguments)


def train(arguments: argparse.Namespace) -> int:
    """Run phase two alone, with an existing pool."""
    from rlcas.runs.paths import require_pool

    require_pool(config := _settings(arguments))
    return _run(config, arguments)


def synth_train(arguments: argparse.Namespace) -> int:
    """Train the synthesiser alone."""
    config = _settings(arguments)
    from cluster.runs.run import synthesise

    if arguments.dry_run:
        return _dry_run(config)
    synthesise(config)
    return 0


def synth_sample(arguments: argparse.Namespace) -> int:
    """Make the pool of a run whose synthesiser is trained."""
    check_is_run(arguments.folder)
    from cluster.runs.run import sample

    sample(arguments.folder, arguments.given)
    return 0


def synth_score(arguments: argparse.Namespace) -> int:
    """Score the pool of a run."""
    check_is_run(arguments.folder)
    from cluster.runs.run import score

    score(arguments.folder, _with_usefulness(arguments) if arguments.usefulness else arguments.given)
    return 0


def _with_usefulness(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the given settings with what --usefulness stands for.

    Raises:
        UserError: this is set in both ways.
    """
    if USEFULNESS in arguments.given:
        raise UserError(f"--usefulness beside --{USEFULNESS} {arguments.given[USEFULNESS]}: leave one out")
    return {**arguments.given, USEFULNESS: "true"}


def score_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas synth score`."""
    text = "also train small classifiers with the pool and with as many repeated real images "
    parser.add_argument("--usefulness", action="store_true", help=f"{text}({USEFULNESS})")
    return "[--usefulness]"


def resume(arguments: argparse.Namespace) -> int:
    """Continue an interrupted run or comparison, or train a run for more epochs."""
    if is_comparison(arguments.folder):
        return resume_comparison(arguments.folder, arguments.given)
    check_is_run(arguments.folder)
    from cluster.runs.run import resume as resume_run

    resume_run(arguments.folder, arguments.given)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate a run's classifier on the test images of a data set."""
    check_is_run(arguments.folder)
    from cluster.runs.evaluation import evaluate_data

    evaluate_data(arguments.folder, arguments.given)
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the report of a run, a sweep or a comparison again."""
    from rlcas.reports.report import report as report_on

    print(report_on(arguments.folder))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Check the installation, or the nodes of a cluster.

    Raises:
        UserError: --out or --data is wrong, or without --cluster.
    """
    from rlcas.doctor import main_report, report

    if arguments.cluster:
        from cluster.doctor import examine_cluster
        from rlcas.data import check_name
        from rlcas.runs.paths import absolute_data

        if arguments.out and (address := address_of(arguments.out)):
            raise UserError(
                f"--out {address} is an address, which only the calling process writes to: leave it out"
            )
        if arguments.data:
            check_name(arguments.data)
        out = (arguments.out or Path("runs")).expanduser().absolute()
        if out.is_file():
            raise UserError(f"--out {out} is a file: name the folder of the runs")
        return report(examine_cluster(out, arguments.data and absolute_data(arguments.data)))
    if arguments.out or arguments.data:
        raise UserError("--out and --data need --cluster: add it, or leave them out")
    return main_report(deep=arguments.deep)


def doctor_arguments(parser: Parser) -> str:
    """Add the arguments of `rlcas doctor`."""
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--deep", action="store_true", help="also start Ray")
    nodes = "check every node of the cluster at RAY_ADDRESS instead of this machine"
    kinds.add_argument("--cluster", action="store_true", help=nodes)
    out = "with --cluster: the folder of runs, which every node must reach [runs]"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    data = "with --cluster: a data set that every node must have"
    parser.add_argument("--data", metavar="DATA", help=data)
    return "[--deep | --cluster [--out DIR] [--data DATA]]"


def _settings(arguments: argparse.Namespace, base: dict[str, Any] | None = None) -> RunConfig:
    from rlcas.runs.replay import base_settings
    from rlcas.settings import resolve, stated

    given, file = arguments.given, arguments.config
    # A replayed run's settings are the base, under the file and the flags.
    return resolve(given=given, file=file, base=base or base_settings(stated(given=given, file=file)))


def check_is_run(folder: Path) -> None:
    """Raise UserError if `folder` is not a run's, before torch and Ray are imported."""
    from rlcas.settings import load

    load(folder)


def _run(config: RunConfig, arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _dry_run(config)
    from cluster.runs.run import run as run_both_phases

    run_both_phases(config)
    return 0


def _dry_run(config: RunConfig) -> int:
    from cluster.runs.dry_run import describe

    print(describe(config))
    return 0
