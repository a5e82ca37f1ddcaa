"""The table of the commands of `rlcas`; every heavy import is inside its command, so that `--help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rlcas.commands import deploy, runs
from rlcas.commands.command import ALL, Command, parse
from rlcas.commands.compare import compare, compare_arguments
from rlcas.commands.submit import submit, submit_arguments
from rlcas.commands.sweep import sweep, sweep_arguments
from rlcas.errors import RunError, UserError
from rlcas.storage.atomic import mend_of
from rlcas.storage.remote import BULKY, address_of, local, publish

DESCRIPTION = "Long-tailed image classification: agents dose synthetic images, class by class."
OF_SCORING = ("synth.scoring.", "device")
OF_DATA = ("data", "dataset.", "shots.", "device")
OF_PREDICTING = ("dataset.window", "device")
INTERRUPTED = "interrupted; `rlcas resume DIR` goes on, of a sweep `rlcas sweep --resume DIR`"
OF_SAMPLING = ("cluster.sampling_", "cluster.gpus_per_sampler", "cluster.start_timeout_seconds", "device")

COMMANDS: dict[str, Command] = {
    "demo": Command("both phases on ultrasound phantoms, in minutes, without a download", runs.demo, ALL),
    "doctor": Command(
        "check the installation and say how to mend each fault", runs.doctor, own=runs.doctor_arguments
    ),
    "run": Command("both phases on your data: synthesiser, pool, agents, report", runs.run, ALL),
    "train": Command("phase two alone, with a pool of synthetic images that is there", runs.train, ALL),
    "sweep": Command("try settings side by side: grid, random, ASHA or PBT", sweep, ALL, own=sweep_arguments),
    "compare": Command(
        "train every compared method under every seed: the paper's Tables 1 and 2",
        compare,
        ALL,
        own=compare_arguments,
    ),
    "submit": Command("run another command as a job on a Ray cluster", submit, own=submit_arguments),
    "synth train": Command("train the synthesiser alone", runs.synth_train, ALL),
    "synth sample": Command(
        "make the pool with a run's trained synthesiser",
        runs.synth_sample,
        OF_SAMPLING,
        folder="the run's folder",
    ),
    "synth score": Command(
        "fidelity and copies of a run's pool, class by class",
        runs.synth_score,
        OF_SCORING,
        folder="the run's folder",
    ),
    "resume": Command("go on with an interrupted run or comparison", runs.resume, folder="the folder"),
    "evaluate": Command(
        "test figures of a run's classifier", runs.evaluate, OF_DATA, folder="the run's folder", without=BULKY
    ),
    "predict": Command(
        "class and probabilities of new images, as a table",
        deploy.predict,
        OF_PREDICTING,
        folder="the run's folder",
        without=BULKY,
        own=deploy.predict_arguments,
    ),
    "export": Command(
        "the classifier as TorchScript, .pt2 or ONNX, which need no rlcas",
        deploy.export,
        folder="the run's folder",
        without=BULKY,
        own=deploy.export_arguments,
    ),
    "report": Command(
        "write the page of a run, sweep or comparison from its folder",
        runs.report,
        folder="the folder",
        without=BULKY,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 success, 2 what the user got wrong, 1 the rest."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = name_of(words)
    if name not in COMMANDS:
        return _overview(words)
    arguments = parse(name, COMMANDS[name], words[len(name.split()) :])
    try:
        return _act(COMMANDS[name], arguments)
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
    except KeyboardInterrupt as interrupt:
        print(f"rlcas: {interrupt if interrupt.args else INTERRUPTED}", file=sys.stderr)
        return 130


def name_of(words: Sequence[str]) -> str:
    """Return the name of the command that the words begin with, of one word or two."""
    return " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else " ".join(words[:1])


def _act(command: Command, arguments: argparse.Namespace) -> int:
    """Do what a command does; a run's address stands for a local folder meanwhile."""
    if command.folder is None or address_of(arguments.folder) is None:
        return command.action(arguments)
    arguments.folder = local(arguments.folder, without=command.without)
    status = command.action(arguments)
    publish(arguments.folder)
    return status


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


if __name__ == "__main__":
    sys.exit(main())
