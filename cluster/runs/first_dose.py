"""The stage of a run that finds the dose which agents dose start from, before the first epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cluster.pools.recognition import recognised
from cluster.pools.stored import is_stored, stored_folder
from rlcas.batches.composition import first_composition
from rlcas.config import RunConfig
from rlcas.console import say
from rlcas.errors import UserError
from rlcas.jsonable import jsonable
from rlcas.runs.context import RunContext
from rlcas.runs.stages import stage
from rlcas.storage.atomic import read_facts, write_json
from rlcas.training.feature_search import search_doses
from rlcas.training.feature_space import FeatureSpace
from rlcas.training.out_of_fold import NUM_FOLDS, out_of_fold, train_folds
from rlcas.types import Float64, Int64
from synth.pool import SyntheticPool

SEARCH_EPOCHS = 6
"""Steps of the search. Longer ones follow benefits that are smaller than what the held-out images can show."""


def dose_to_start_from(context: RunContext, pool: SyntheticPool) -> tuple[Int64, Float64] | None:
    """Return [C] the dose to start from and [C] the probabilities of its benefit; None where none is looked for.

    It is looked for once, in feature space or by what a classifier of the real images recognises; a resumed run reads
    it from its folder.

    Raises:
        UserError: the search in feature space cannot use the pool, as it was made from real images.
    """
    sampler, path = context.config.sampler, context.folder.dose
    if not (sampler.fold_epochs or sampler.start_share) or sampler.replay is not None:
        return None
    if not path.exists():
        check_search(context.config)
        find, title = (
            (_searched, f"Looking for a dose in the features of {NUM_FOLDS} classifiers")
            if sampler.fold_epochs
            else (_recognised, "Looking for a dose by the images that are recognised")
        )
        with stage(context.folder, title, "dose_search"):
            write_json(path, jsonable(find(context, pool)))
    facts = read_facts(path)
    counts_C = np.array(facts["counts_C"], np.int64)
    say(_described(counts_C, context.data.class_names))
    return counts_C, np.array(facts["benefit_probability_C"], np.float64)


def check_search(config: RunConfig) -> None:
    """Check that no image of the pool can be made of a training image that the search holds out.

    Raises:
        UserError: the pool is to be made from real images, or was.
    """
    if not config.sampler.fold_epochs:
        return
    start: Any = config.synth.generation.start
    if config.pool is not None:
        start = (
            SyntheticPool(stored_folder(config)).manifest["source"].get("start") if is_stored(config) else None
        )
    if start == "image":
        raise UserError(
            f"sampler.fold_epochs {config.sampler.fold_epochs} holds out training images, but the pool's are made from "
            "them (synth.generation.start image): set it to 0, or use a pool that starts from noise"
        )


def _recognised(context: RunContext, pool: SyntheticPool) -> dict[str, Any]:
    """Return a dose of the classes whose images are recognised, evenly."""
    config, data = context.config, context.data
    probability_C = recognised(context, pool)
    least = config.sampler.benefit_probability
    assert least is not None, "agents dose have it"
    counts_C = first_composition(config, data.train.class_counts(data.num_classes), probability_C > least)
    return {"counts_C": counts_C, "benefit_probability_C": probability_C}


def _searched(context: RunContext, pool: SyntheticPool) -> dict[str, Any]:
    """Return the dose that is found in feature space, with what is known of it."""
    config, data = context.config, context.data
    assert config.sampler.fold_epochs is not None
    networks = train_folds(data, config, epochs=config.sampler.fold_epochs, device=context.device)
    folds = out_of_fold(networks, data.train, lambda kept_N: pool, seed=config.seed)
    space = FeatureSpace(
        folds,
        data.num_classes,
        config.classifier.batch_size,
        synthetic_weight=config.sampler.synthetic_weight,
    )
    class_counts_C = data.train.class_counts(data.num_classes)
    found = search_doses(space, config.sampler, class_counts_C, seed=config.seed, epochs=SEARCH_EPOCHS)
    return dataclasses.asdict(found)


def _described(counts_C: Int64, class_names: tuple[str, ...]) -> str:
    counts = [f"{name} {count}" for name, count in zip(class_names, counts_C.tolist(), strict=True) if count]
    return f"dose to start from: {', '.join(counts) or 'none, as no benefit is probable'}"
