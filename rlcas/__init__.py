"""rlcas: long-tailed image classification; RL agents choose how many synthetic images of each class to train on.

The commands of the command line are functions here, imported when they are first used, so that `import rlcas` is fast:

    import rlcas

    config = rlcas.settings_of({"data": "breastmnist", "preset": "quick", "sampler": {"k": 5}})
    folder = rlcas.run(config)
    figures = rlcas.evaluate(folder)

Folders are given as text or as paths.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "run": "cluster.runs.run:run",
    "resume": "cluster.comparison.resume:resume",
    "train": "cluster.runs.run:train",
    "synthesise": "cluster.runs.run:synthesise",
    "sample": "cluster.runs.run:sample",
    "score": "cluster.runs.run:score",
    "sweep": "cluster.sweeps.sweep:sweep",
    "compare": "cluster.comparison.compare:compare",
    "evaluate": "cluster.runs.evaluation:evaluate_data",
    "evaluate_data": "cluster.runs.evaluation:evaluate_data",
    "predict": "rlcas.deploy.predict:predict",
    "export": "rlcas.deploy.export:export",
    "describe": "cluster.runs.dry_run:describe",
    "report": "rlcas.reports.report:report",
    "write_report": "rlcas.reports:write_report",
    "diagnose": "rlcas.doctor:diagnose",
    "settings_of": "rlcas.settings:of",
    "RunConfig": "rlcas.config:RunConfig",
    "UserError": "rlcas.errors:UserError",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, _, attribute = _PUBLIC[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if importlib.util.find_spec(f"rlcas.{name}"):
        return importlib.import_module(f"rlcas.{name}")
    raise AttributeError(f"module 'rlcas' has no attribute {name!r}: it has {', '.join(_PUBLIC)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
