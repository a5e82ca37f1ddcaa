"""The commands of `rlcas`; every heavy import is inside its command, so that `--help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rlcas.errors import RunError, UserError
from rlcas.files import mend_of

if TYPE_CHECKING:
    from rlcas.config import RunConfig
    from rlcas.settings import Flag

DESCRIPTION = "Long-tailed image classification: agents dose synthetic images, class by class."
ALL = ("",)
OF_SCORING = ("synth.scoring.", "device")
OF_DATA = ("data", "dataset.", "shots.", "device")
OF_SAMPLING = ("cluster.sampling_", "cluster.gpus_per_sampler", "cluster.start_timeout_seconds", "device")
NOT_SETTINGS = ("command", "config", "dry_run", "folder", "deep", "resume")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line and whose flags are never abbreviated."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with status 2."""
        self.exit(2, f"rlcas: {message}\n")


@dataclass(frozen=True, slots=True)
class Command:
    """One verb: its line in the help, what it does, and what it takes."""

    help: str
    action: Callable[[argparse.Namespace], int]
    settings: tuple[str, ...] = ()
    """Which settings it takes, by the start of their names; ("",) is all, with --config and --dry-run."""
    folder: str | None = None
    """Help of the positional run folder, where the command takes one."""


def demo(arguments: argparse.Namespace) -> int:
    """Both phases on phantoms; a second call shows the finished run."""
    from rlcas.presets import DEMO

    config = _settings(arguments, {"out": "runs/demo", **DEMO})
    from cluster.run import run_or_show

    if arguments.dry_run:
        return _dry_run(config)
    run_or_show(config)
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Both phases on one data set."""
    return _run(_settings(arguments), arguments)


def train(arguments: argparse.Namespace) -> int:
    """Phase two alone, on a pool that is there."""
    config = _settings(arguments)
    if config.pool is None:
        raise UserError("pool is not given: name one with --pool DIR or --pool folder:PATH, or use `rlcas run`")
    return _run(config, arguments)


def sweep(arguments: argparse.Namespace) -> int:
    """Phase one once, then a trial a point of the search space; status 1 where a trial failed."""
    from rlcas.settings import stated

    given = _given(arguments)
    _check_resumes_alone(arguments, given, "sweep")
    settings = stated(given=given, file=arguments.config)
    from cluster import sweep as sweeps

    if arguments.dry_run:
        print(sweeps.describe(settings))
        return 0
    done = sweeps.sweep(settings) if arguments.resume is None else sweeps.resume(arguments.resume)
    return int(any(trial.status == "failed" for trial in done.trials))


def compare(arguments: argparse.Namespace) -> int:
    """Train every compared method under every seed; status 1 where a cell failed."""
    from rlcas.settings import stated

    given = _given(arguments)
    _check_resumes_alone(arguments, given, "comparison")
    settings = stated(given=given, file=arguments.config)
    from cluster import compare as comparisons

    if arguments.dry_run:
        print(comparisons.describe(settings))
        return 0
    if arguments.resume is not None:
        return _compared(comparisons.resume(arguments.resume))
    return _compared(comparisons.compare(settings))


def _compared(folder: Path) -> int:
    from cluster.compare import cells_in

    return int(any(cell.status == "failed" for cell in cells_in(folder)))


def synth_train(arguments: argparse.Namespace) -> int:
    """Train the synthesiser alone."""
    config = _settings(arguments)
    from cluster.run import synthesise

    if arguments.dry_run:
        return _dry_run(config)
    synthesise(config)
    return 0


def synth_sample(arguments: argparse.Namespace) -> int:
    """Make the pool of a run whose synthesiser is trained."""
    _check_is_run(arguments.folder)
    from cluster.run import sample

    sample(arguments.folder, _given(arguments))
    return 0


def synth_score(arguments: argparse.Namespace) -> int:
    """Score the pool of a run."""
    _check_is_run(arguments.folder)
    from cluster.run import score

    score(arguments.folder, _given(arguments))
    return 0


def resume(arguments: argparse.Namespace) -> int:
    """Go on with an interrupted run or comparison."""
    if _is_comparison(arguments.folder):
        from cluster.compare import resume as resume_comparison

        return _compared(resume_comparison(arguments.folder))
    _check_is_run(arguments.folder)
    from cluster.run import resume as resume_run

    resume_run(arguments.folder)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Read the test images of a data set with a run's classifier."""
    _check_is_run(arguments.folder)
    from cluster.run import evaluate_data

    evaluate_data(arguments.folder, _given(arguments))
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write the page of a run, a sweep or a comparison again."""
    if _is_comparison(arguments.folder):
        from cluster.compare import write_results

        print(write_results(arguments.folder))
        return 0
    if (arguments.folder / "sweep.json").exists():
        from rlcas.report.sweep import write_sweep_report

        print(write_sweep_report(arguments.folder))
        return 0
    _check_is_run(arguments.folder)
    from rlcas.report import write_report

    print(write_report(arguments.folder))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Check the installation."""
    from rlcas.doctor import main_report

    return main_report(deep=arguments.deep)


COMMANDS: dict[str, Command] = {
    "demo": Command("both phases on ultrasound phantoms, in minutes, without a download", demo, ALL),
    "doctor": Command("check the installation and say how to mend each fault", doctor),
    "run": Command("both phases on your data: synthesiser, pool, agents, report", run, ALL),
    "train": Command("phase two alone, with a pool of synthetic images that is there", train, ALL),
    "sweep": Command("try settings side by side: grid, random, ASHA or PBT", sweep, ALL),
    "compare": Command(
        "train every compared method under every seed: the paper's Tables 1 and 2", compare, ALL
    ),
    "synth train": Command("train the synthesiser alone", synth_train, ALL),
    "synth sample": Command(
        "make the pool with a run's trained synthesiser", synth_sample, OF_SAMPLING, folder="the run's folder"
    ),
    "synth score": Command(
        "fidelity and copies of a run's pool, class by class",
        synth_score,
        OF_SCORING,
        folder="the run's folder",
    ),
    "resume": Command("go on with an interrupted run or comparison", resume, folder="the folder"),
    "evaluate": Command("test figures of a run's classifier", evaluate, OF_DATA, folder="the run's folder"),
    "report": Command(
        "write the page of a run, sweep or comparison from its folder", report, folder="the folder"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 success, 2 what the user got wrong, 1 the rest."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else " ".join(words[:1])
    if name not in COMMANDS:
        return _overview(words)
    arguments = _parse(name, words[len(name.split()) :])
    try:
        return COMMANDS[name].action(arguments)
    except UserError as error:
        print(f"rlcas: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"rlcas: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        mend = mend_of(error)
        if mend is None:
            raise
        print(f"rlcas: {error}: {mend}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "rlcas: interrupted; `rlcas resume RUN`, or `rlcas sweep --resume SWEEP`, goes on", file=sys.stderr
        )
        return 130


def _overview(words: list[str]) -> int:
    """Answer `--help`, `--version` and unknown commands."""
    from rlcas import __version__

    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    if words in (["--version"], ["-V"]):
        print(f"rlcas {__version__}")
        return 0
    if words and words[0] != "synth":
        del words[1:]
    if words and words[-1] not in ("-h", "--help"):
        known = ", ".join(COMMANDS)
        print(f"rlcas: unknown command {' '.join(words[:2])!r}: use one of {known}", file=sys.stderr)
        return 2
    print(f"usage: rlcas COMMAND ...\n\n{DESCRIPTION}\n\ncommands:\n{listing}\n")
    print("`rlcas COMMAND --help` lists its settings. Not a medical device.")
    return 0


def _parse(name: str, words: Sequence[str]) -> argparse.Namespace:
    command = COMMANDS[name]
    takes = ["RUN"] * bool(command.folder) + ["[--SETTING VALUE ...]"] * bool(command.settings)
    description = f"{command.help[0].upper()}{command.help[1:]}."
    parser = Parser(prog=f"rlcas {name}", usage=" ".join(["rlcas", name, *takes]), description=description)
    if command.folder:
        parser.add_argument("folder", type=Path, metavar="RUN", help=command.folder)
    if name == "doctor":
        parser.add_argument("--deep", action="store_true", help="also start Ray")
    if command.settings == ALL:
        parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with the same settings")
        parser.add_argument(
            "--dry-run", action="store_true", help="print settings, demand and estimate; start nothing"
        )
    if not command.settings:
        return parser.parse_args(words)
    if name == "sweep":
        _add_sweep(parser)
    if name == "compare":
        _add_compare(parser)
    _add_settings(parser, command.settings)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        parser.error(_unknown(name, unknown[0].partition("=")[0].lstrip("-")))
    return arguments


def _add_sweep(parser: Parser) -> None:
    """Add what `rlcas sweep` takes beside the settings of a run."""
    from rlcas.config import SweepConfig
    from rlcas.settings import flags

    parser.add_argument("--resume", type=Path, metavar="SWEEP", help="go on with an interrupted sweep's folder")
    group = parser.add_argument_group("sweep settings")
    over, *others = flags(SweepConfig, "sweep.")
    text = f"{over.help} [{', '.join(over.default)}]"
    options: dict[str, Any] = {"dest": over.key, "action": _Over, "default": argparse.SUPPRESS}
    group.add_argument("--over", f"--{over.key}", metavar="SETTING=VALUES", help=text, **options)
    _add_flags(group, others)


def _add_compare(parser: Parser) -> None:
    """Add what `rlcas compare` takes beside the settings of a run."""
    from rlcas.config import CompareConfig
    from rlcas.settings import flags

    text = "go on with an interrupted comparison's folder"
    parser.add_argument("--resume", type=Path, metavar="COMPARISON", help=text)
    group = parser.add_argument_group("comparison settings")
    known = {flag.key: flag for flag in flags(CompareConfig, "compare.")}
    methods, pools = known.pop("compare.methods"), known.pop("compare.pools")
    options: dict[str, Any] = {"dest": methods.key, "default": argparse.SUPPRESS, "metavar": "VALUE"}
    group.add_argument("--methods", f"--{methods.key}", help=f"{methods.help} [all]", **options)
    options = {"action": _Pools, "default": argparse.SUPPRESS, "metavar": "NAME=DIR"}
    group.add_argument(f"--{pools.key}", help=pools.help, **options)
    _add_flags(group, list(known.values()))


class _Gathered(argparse.Action):
    """Gathers KEY=VALUE of every use of a flag in one dict."""

    form: str
    """What to write."""
    again: str
    """What to tell of a key that is there."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        gathered = dict(getattr(namespace, self.dest, {}))
        for given in self.divided(str(values)):
            key, equals, text = given.partition("=")
            if not equals:
                parser.error(f"{option_string} {given}: {self.form}")
            if key in gathered:
                parser.error(f"{option_string} {given}: {key} {self.again}")
            gathered[key] = text
        setattr(namespace, self.dest, gathered)

    def divided(self, values: str) -> list[str]:
        """Return what one use of the flag gives."""
        return [values]


class _Over(_Gathered):
    form = "write SETTING=VALUES, as in --over sampler.k=1,3"
    again = "is swept twice: give all its values in one --over"


class _Pools(_Gathered):
    form = "write NAME=DIR, as in --compare.pools sketch=runs/mine"
    again = "is given twice: leave one out"

    def divided(self, values: str) -> list[str]:
        """Return NAME=DIR of each pool; commas stand between them."""
        return values.split(",")


def _unknown(name: str, key: str) -> str:
    """Return the line that answers a setting that the command does not take."""
    from rlcas.config import StatedConfig
    from rlcas.settings import flags, unknown_setting

    known = key in (flag.key for flag in flags(StatedConfig))
    if COMMANDS[name].settings == ALL and known:
        return f"{key} is a setting of `rlcas {key.partition('.')[0]}` alone: leave it out"
    if known:
        return f"{key} is no setting of `rlcas {name}`, which keeps the run's own: see `rlcas {name} --help`"
    return unknown_setting(key)


def _add_settings(parser: Parser, starts: tuple[str, ...]) -> None:
    """Add the settings whose names start so as dotted flags, a group a section."""
    from rlcas.settings import flags

    groups: dict[str, Any] = {}
    for flag in flags():
        if not flag.key.startswith(starts):
            continue
        section = flag.key.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings" if section else "settings")
        _add_flags(groups[section], [flag])


def _add_flags(group: Any, flags: Sequence[Flag]) -> None:
    for flag in flags:
        text = f"{flag.help} [{flag.default}]".replace("%", "%%")
        group.add_argument(f"--{flag.key}", default=argparse.SUPPRESS, metavar="VALUE", help=text)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(arguments).items() if key not in NOT_SETTINGS}


def _settings(arguments: argparse.Namespace, base: dict[str, Any] | None = None) -> RunConfig:
    from rlcas.replay import base_settings
    from rlcas.settings import resolve, stated

    given, file = _given(arguments), arguments.config
    return resolve(given=given, file=file, base=base or base_settings(stated(given=given, file=file)))


def _check_resumes_alone(arguments: argparse.Namespace, given: dict[str, Any], what: str) -> None:
    """Refuse settings beside --resume, which goes on with the folder's own."""
    if arguments.resume is not None and (given or arguments.config or arguments.dry_run):
        raise UserError(
            f"--resume {arguments.resume} goes on with the {what}'s own settings: leave out --"
            f"{next(iter(given), 'config' if arguments.config else 'dry-run')}"
        )


def _is_comparison(folder: Path) -> bool:
    from rlcas.settings import COMPARE_CONFIG_FILE

    return (folder / COMPARE_CONFIG_FILE).is_file()


def _check_is_run(folder: Path) -> None:
    """Refuse what is not a run's folder before anything heavy is imported."""
    from rlcas.settings import load

    load(folder)


def _run(config: RunConfig, arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _dry_run(config)
    from cluster.run import run as run_both_phases

    run_both_phases(config)
    return 0


def _dry_run(config: RunConfig) -> int:
    from cluster.estimate import describe

    print(describe(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
