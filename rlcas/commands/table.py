"""All commands but `submit`, by name."""

from __future__ import annotations

from collections.abc import Sequence

from rlcas.commands import deploy, runs
from rlcas.commands.command import ALL, Command
from rlcas.commands.compare import compare, compare_arguments
from rlcas.commands.sweep import sweep, sweep_arguments
from rlcas.storage.remote import BULKY

OF_SCORING = ("synth.scoring.", "device")
OF_DATA = ("data", "dataset.", "shots.", "device")
OF_RESUMING = ("sampler.epochs",)
OF_PREDICTING = ("dataset.window", "dataset.frame", "dataset.masks", "device")
OF_SAMPLING = ("cluster.sampling_", "cluster.gpus_per_sampler", "cluster.start_timeout_seconds", "device")

COMMANDS: dict[str, Command] = {
    "demo": Command("both phases on ultrasound phantoms, in minutes, without a download", runs.demo, ALL),
    "doctor": Command(
        "check the installation and say how to fix each fault", runs.doctor, own=runs.doctor_arguments
    ),
    "run": Command("both phases on your data: synthesiser, pool, agents, report", runs.run, ALL),
    "train": Command("phase two alone, with an existing pool of synthetic images", runs.train, ALL),
    "sweep": Command("try settings in parallel: grid, random, ASHA or PBT", sweep, ALL, own=sweep_arguments),
    "compare": Command(
        "train every compared method under every seed: the paper's Tables 1 and 2",
        compare,
        ALL,
        own=compare_arguments,
    ),
    "synth train": Command("train the synthesiser alone", runs.synth_train, ALL),
    "synth sample": Command(
        "make the pool with a run's trained synthesiser",
        runs.synth_sample,
        OF_SAMPLING,
        folder="the run's folder",
    ),
    "synth score": Command(
        "fidelity, copies and usefulness of a run's pool, class by class",
        runs.synth_score,
        OF_SCORING,
        folder="the run's folder",
        own=runs.score_arguments,
    ),
    "resume": Command(
        "continue an interrupted run or comparison, or train a run for more epochs",
        runs.resume,
        OF_RESUMING,
        folder="the folder",
    ),
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
        "write the report of a run, sweep or comparison from its folder",
        runs.report,
        folder="the folder",
        without=BULKY,
    ),
}


def name_of(words: Sequence[str]) -> str:
    """Return the command name at the start of `words`, which is one word or two."""
    return " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else " ".join(words[:1])
