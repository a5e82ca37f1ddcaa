"""Checks of a comparison's settings and images before anything is made or started."""

from __future__ import annotations

import dataclasses

from cluster.comparison.cell_plan import cells_of
from cluster.comparison.plan import ComparisonPlan
from cluster.pools.make import check_phase_one
from cluster.runs.checks import check_data_fits
from rlcas import data as datasets
from rlcas.devices import choose_device
from rlcas.errors import UserError
from rlcas.evaluation.features import require_weights
from rlcas.types import SplitRecord, TrainingData


def load_checked(planned: ComparisonPlan) -> TrainingData:
    """Check the settings and load the images, which are checked too; return these.

    Raises:
        UserError: a setting, a file or an image is wrong.
    """
    config = planned.config
    choose_device(config.device)
    if planned.pools:
        require_weights(config.synth.scoring)
    data = datasets.load(config, progress=True)
    # Reads no test image: only whether there will be some, which would otherwise show after all training.
    datasets.require_test(config)
    assert data.record is not None, "the images were read from their source"
    check_pools(planned, data, data.record)
    # First, as its errors name no row: most are the same in all rows.
    notes = check_data_fits(config, data)
    # For the errors that it raises: the cells are planned again where they are trained.
    cells_of(planned, data)
    return dataclasses.replace(data, notes=data.notes + notes)


def check_pools(planned: ComparisonPlan, data: TrainingData, record: SplitRecord) -> None:
    """Check the pools' settings before anything is made.

    Raises:
        UserError: a pool cannot be made or used; the line names it.
    """
    for name, pool in planned.pools.items():
        try:
            check_phase_one(pool, data, record)
        except UserError as error:
            raise UserError(f"pool {name}: {error}") from None
