"""TensorBoard's charts of an epoch: the tag and meaning of each value, and the layout of the charts on a page.

The run's own TensorBoard events and those of Ray Tune use the same tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcas.types import EpochRecord

MOST_SCALAR_CLASSES = 32
"""More classes than this are shown as histograms."""
ACTION_NAMES = ("less", "same", "more")

MEANINGS: dict[str, str] = {
    r"metrics/best": "Best validation metric of the survivors so far; its weights are kept.",
    r"metrics/(many|medium|few)": "Mean validation recall of the {}-shot classes, of the survivor.",
    r"metrics/(val|train)_loss": "Mean loss of the survivor's epoch ({}).",
    r"metrics/(\w+)": "Validation {} of the survivor.",
    r"reward/episode_(\d+)": "Reward of episode {}; a gap where it failed.",
    r"reward/advantage_(\d+)": "Advantage of episode {}, mean over the agents: the weight of its actions.",
    r"reward/mean": "Mean reward of the valid episodes.",
    r"reward/baseline": "B of eq. 2, after this epoch's rewards.",
    r"reward/winner": "Number of the episode that survived; a gap where the episodes were merged.",
    r"composition/sum": "Synthetic images in a mini-batch of the survivor, all classes.",
    r"composition/drawn": "Synthetic images that the survivor drew from the pool in this epoch.",
    r"composition/clamped": "Agents, over the K episodes, whose action ran into 0 or sampler.max_count.",
    r"composition/(.+)": "Synthetic images of this class in a mini-batch of the survivor.",
    r"policy/entropy": "Mean entropy of the agents' policies, in nats; ln 3 = 1.0986 is uniform.",
    r"policy/distance_from_uniform": "Largest |p - 1/3| of any agent and action; near 0 the search is random.",
    r"policy/(.+)/(less|same|more)": "Probability that the agent of {} takes its action '{}'.",
    r"faults/failed": "Episodes that failed: exception, out of memory, loss not finite, or dead; they cannot win.",
    r"faults/retries": "How often an episode was retried because its worker or its node died.",
    r"images/trained": "Images that all episodes of this epoch trained on, real and synthetic.",
    r"time/epoch_seconds": "Wall time of the epoch.",
    r"time/episode_(\d+)_seconds": "Seconds of episode {}, on its worker.",
    r"time/(\w+)_seconds": "Seconds of the epoch's part '{}'.",
}
"""Pattern of a tag -> what its chart shows; the first pattern that matches counts."""


def scalars(record: EpochRecord, class_tags: Sequence[str]) -> dict[str, float]:
    """Return tag -> value of one epoch; up to MOST_SCALAR_CLASSES classes have their own values."""
    valid = [report for report in record.reports if report.valid]
    return {
        **{f"metrics/{name}": value for name, value in record.incumbent.metrics.items()},
        "metrics/best": record.best_metric,
        "metrics/val_loss": record.incumbent.val_loss,
        "metrics/train_loss": record.incumbent.train_loss,
        **{f"reward/episode_{report.episode_index}": report.reward for report in valid},
        **{f"reward/advantage_{report.episode_index}": report.advantage for report in valid},
        "reward/mean": float(np.mean([report.reward for report in valid])),
        "reward/baseline": record.baseline,
        **({} if record.winner is None else {"reward/winner": record.winner}),
        "composition/sum": int(record.counts_C.sum()),
        "composition/drawn": record.num_synthetic,
        "composition/clamped": sum(report.num_clamped for report in record.reports),
        "policy/entropy": float(record.entropy_C.mean()),
        "policy/distance_from_uniform": record.distance_from_uniform,
        "faults/failed": len(record.reports) - len(valid),
        "faults/retries": record.retries,
        "images/trained": sum(report.result.num_images for report in valid if report.result),
        "time/epoch_seconds": record.seconds,
        **{f"time/{part}_seconds": seconds for part, seconds in record.seconds_by_part.items()},
        **{f"time/episode_{report.episode_index}_seconds": report.seconds for report in valid},
        **_of_classes(record, class_tags),
    }


def histograms(record: EpochRecord) -> dict[str, NDArray[Any]]:
    """Return tag -> [C] values of one epoch, if there are too many classes for scalars of each."""
    counts_C = record.counts_C
    if len(counts_C) <= MOST_SCALAR_CLASSES:
        return {}
    by_action = dict(zip(ACTION_NAMES, record.probabilities_C3.T, strict=True))
    return {
        "composition/counts": counts_C,
        **{f"policy/{action}": probabilities_C for action, probabilities_C in by_action.items()},
    }


def meaning(tag: str) -> str:
    """Return a sentence about the chart of `tag`; an empty text for a tag that is not about an epoch."""
    for pattern, text in MEANINGS.items():
        if match := re.fullmatch(pattern, tag):
            return text.format(*match.groups())
    return ""


def layout(metric: str, class_tags: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the layout of TensorBoard's page Custom Scalars: page -> title -> chart and its tags."""
    shown = class_tags[:MOST_SCALAR_CLASSES] if len(class_tags) <= MOST_SCALAR_CLASSES else []
    # TensorBoard matches these patterns from the start of a tag only, hence the $ at their ends. Class tags are
    # escaped because they may contain a dot.
    pages = {
        "1 Does it help?": {
            f"validation {metric}: the survivor's, and the best so far": [
                rf"metrics/{metric}$",
                "metrics/best$",
            ],
            "recall by shots: many, medium, few": ["metrics/(many|medium|few)$"],
            "losses": ["metrics/(val|train)_loss$"],
        },
        "2 What goes into a mini-batch?": {
            "synthetic images by class": [rf"composition/{re.escape(tag)}$" for tag in shown],
            "synthetic images in all": ["composition/sum$"],
            "actions clamped at a limit": ["composition/clamped$"],
        },
        "3 Do the agents learn?": {
            "distance from uniform (0: a random search)": ["policy/distance_from_uniform$"],
            "entropy in nats (1.0986: uniform)": ["policy/entropy$"],
            "probability of more, by class": [rf"policy/{re.escape(tag)}/more$" for tag in shown],
            "probability of less, by class": [rf"policy/{re.escape(tag)}/less$" for tag in shown],
        },
        "4 What are they taught by?": {
            "rewards of the episodes, and the baseline": [r"reward/episode_\d+$", "reward/baseline$"],
            "advantages: the weights of the actions": [r"reward/advantage_\d+$"],
            "which episode survived": ["reward/winner$"],
        },
        "5 Does it run well?": {
            "failed episodes, and retries of dead workers": ["faults/(failed|retries)$"],
            "seconds": ["time/.*seconds$"],
            "images trained on": ["images/trained$"],
        },
    }
    return {
        page: {title: ["Multiline", tags] for title, tags in charts.items() if tags}
        for page, charts in pages.items()
    }


def _of_classes(record: EpochRecord, class_tags: Sequence[str]) -> Mapping[str, float]:
    if len(class_tags) > MOST_SCALAR_CLASSES:
        return {}
    counts_C = record.counts_C.tolist()
    values: dict[str, float] = {}
    for tag, count, p_3 in zip(class_tags, counts_C, record.probabilities_C3.tolist(), strict=True):
        values[f"composition/{tag}"] = count
        values |= {f"policy/{tag}/{action}": p for action, p in zip(ACTION_NAMES, p_3, strict=True)}
    return values
