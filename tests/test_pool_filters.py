"""Filters of a pool: closed forms on planted figures, marks beside those of copies, one image left of every class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_judging import CPU, DATA, new_images, of_class, write_pool
from tiny import tiny_config

from cluster.pools.filters import mark_pool
from cluster.pools.judge import real_classifier
from cluster.pools.scores import score_pool
from cluster.pools.stored import run_pool
from rlcas import settings
from rlcas.batches.sources import all_images
from rlcas.config import RunConfig
from rlcas.errors import UserError
from rlcas.reports.score_table import score_notes
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.training.saved_classifier import predict
from synth.manifest import pool_digests
from synth.pool import FILTERED_FILE, SyntheticPool, mark_copies, mark_filtered
from synth.quality.filters import confidences, distances, kept_by

NO_COPIES = np.zeros(4, bool)


def config(**filters: object) -> RunConfig:
    scoring = {"pool_only_epochs": 0, "extractor": "pixels"}
    return tiny_config(sampler={"epochs": 1}, synth={"scoring": scoring, "filter": filters})


@pytest.fixture
def pool(tmp_path: Path) -> SyntheticPool:
    """Class a has a copy, number 2."""
    first = np.concatenate([new_images(0, 2), of_class(0)[:1], new_images(0, 9)[2:]])
    return write_pool(tmp_path / "pool", [first, new_images(1, 8), new_images(2, 7)])


def test_confidences_outside_of_the_range_are_left_out_and_its_ends_are_kept() -> None:
    labels_N = np.array([0, 0, 1, 1])
    probabilities_NC = np.array([[0.3, 0.7], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]])
    measured = confidences(probabilities_NC, labels_N, (0.3, 0.9))
    assert kept_by([measured], labels_N, NO_COPIES).tolist() == [True, False, True, False]


def test_distances_are_kept_between_the_percentiles_of_those_among_the_real_images_of_the_class() -> None:
    # On a line: nearest neighbours of class 0 are 1, 1, 2, 3, 4 apart; of class 1 always 10.
    real = [[0.0], [1.0], [3.0], [6.0], [10.0], *([100.0 + 10.0 * i] for i in range(5))]
    labels_M = np.repeat([0, 1], 5)
    made = np.array([[10.5], [12.0], [14.5], [150.0]])  # 0.5, 2 and 4.5 from class 0; 10 from class 1
    labels_N = np.array([0, 0, 0, 1])
    measured = distances(made, labels_N, np.array(real), labels_M, (0.0, 100.0))
    assert measured.values_N.tolist() == [0.5, 2.0, 4.5, 10.0]
    assert measured.low_N.tolist() == [1.0, 1.0, 1.0, 10.0] and measured.high_N.tolist() == [4.0] * 3 + [10.0]
    assert kept_by([measured], labels_N, NO_COPIES).tolist() == [False, True, False, True]
    narrower = distances(made, labels_N, np.array(real), labels_M, (5.0, 75.0))
    assert narrower.high_N[0] == 3.0 and narrower.low_N[0] == 1.0


def test_a_class_of_few_real_images_takes_the_distances_of_all_classes() -> None:
    real, labels_M = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [50.0]]), np.array([0] * 5 + [1])
    measured = distances(np.array([[51.0], [60.0]]), np.array([1, 1]), real, labels_M, (0.0, 100.0))
    assert measured.values_N.tolist() == [1.0, 10.0] and measured.low_N[0] == measured.high_N[0] == 1.0
    # Without two images of any class nothing is left out.
    alone = distances(np.array([[51.0]]), np.array([1]), real[4:], labels_M[4:], (5.0, 95.0))
    assert alone.gaps_N.tolist() == [0.0]


def test_the_image_nearest_to_the_range_is_left_where_none_is_within_and_it_is_no_copy() -> None:
    labels_N = np.zeros(4, np.int64)
    measured = confidences(np.array([[0.1], [0.28], [0.99], [0.25]]), labels_N, (0.3, 0.9))
    assert kept_by([measured], labels_N, NO_COPIES).tolist() == [False, True, False, False]
    copies_N = np.array([False, True, False, False])
    assert kept_by([measured], labels_N, copies_N).tolist() == [False, False, False, True]
    within = confidences(np.array([[0.1], [0.5], [0.99], [0.25]]), labels_N, (0.3, 0.9))
    assert kept_by([within], labels_N, copies_N).tolist() == [False, True, False, True]


def test_a_run_uses_and_reports_what_the_filters_leave(
    pool: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = RunContext(RunFolder(tmp_path), config(confidence=(0.0, 0.5)), DATA, CPU)
    judge = real_classifier(context)
    made = all_images(pool)
    own_N = predict(judge, made.images_NCHW)[np.arange(len(made)), made.labels_N]
    middle = float(np.median(own_N[made.labels_N == 0]))
    settings_of = config(confidence=(0.0, middle), distance=(0.0, 100.0))
    context = replace(context, config=settings_of)
    mark_pool(context, pool)
    said = [line for line in capsys.readouterr().out.splitlines() if "synth.filter" in line]
    assert len(said) == 1 and said[0].startswith("note: synth.filter leaves out images of the pool: a ")
    kept = run_pool(context.folder, settings_of, pool.folder)
    left = all_images(kept)
    facts = json.loads((tmp_path / "pool" / FILTERED_FILE).read_text())
    for c, found in enumerate(facts["per_class"]):
        assert found["outside"]["confidence"] == (own_N[made.labels_N == c] > middle).sum()
        assert found["left_out"] == len(facts["filtered"][c])
    assert facts["per_class"][0]["outside"]["confidence"] == 5
    own_left_N = predict(judge, left.images_NCHW)[np.arange(len(left)), left.labels_N]
    outside = sum(found["kept_outside"] for found in facts["per_class"])
    assert (own_left_N > middle + 1e-6).sum() <= outside
    figures = score_pool(context, kept, None)
    assert figures["n_synthetic"] == len(left) and figures["filter"]["per_class"] == facts["per_class"]
    assert figures["filter"]["settings"]["confidence"] == [0.0, middle]
    assert any("synth.filter leaves out images of the pool: a " in note for note in score_notes(figures))
    assert pool_digests(pool.folder).keys() > {FILTERED_FILE}


def test_without_filters_all_are_kept_and_other_filters_mark_anew(
    pool: SyntheticPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = RunFolder(tmp_path / "run"), tmp_path / "run/pool" / FILTERED_FILE
    none, strict, lax = config(), config(confidence=(0.0, 1e-9)), config(confidence=(0.0, 1.0))

    def marked(settings_of: RunConfig) -> list[int]:
        mark_pool(RunContext(folder, settings_of, DATA, CPU), pool)
        return run_pool(folder, settings_of, pool.folder).class_sizes_C.tolist()

    everything = marked(none)
    assert not path.exists()
    assert marked(strict) == [1, 1, 1]
    assert "7 of 7 (" not in (said := capsys.readouterr().out)
    assert "c 6 of 7 (7 by confidence; the nearest one is kept, as none is within)" in said
    before = path.read_bytes()
    assert marked(strict) == [1, 1, 1] and path.read_bytes() == before
    assert "synth.filter" not in capsys.readouterr().out
    assert marked(none) == everything
    assert marked(lax) == everything
    # The marks of a pool from elsewhere are the run's own.
    assert not (pool.folder / FILTERED_FILE).exists()
    kept_copies = strict.model_copy(
        update={"synth": strict.synth.model_copy(update={"scoring": config().synth.scoring})}
    )
    assert marked(kept_copies) == [1, 1, 1]


def test_marks_that_leave_out_a_whole_class_are_refused(pool: SyntheticPool) -> None:
    mark_copies(pool.folder, [np.arange(4), np.arange(0), np.arange(0)], {})
    mark_filtered(pool.folder, [np.arange(4, 10), np.arange(0), np.arange(0)], {})
    with pytest.raises(
        UserError, match=r"filtered.json and copies.json beside it leave out all images of a class"
    ):
        SyntheticPool(pool.folder)
    assert SyntheticPool(pool.folder, with_copies=True).class_sizes_C.tolist() == [4, 8, 7]
    assert SyntheticPool(pool.folder, with_filtered=True).class_sizes_C.tolist() == [6, 8, 7]
    mark_filtered(pool.folder, [np.array([10]), np.arange(0), np.arange(0)], {})
    with pytest.raises(UserError, match=r"filtered.json marks the images of another pool than"):
        SyntheticPool(pool.folder)


def test_ranges_that_keep_nothing_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"synth.filter.confidence is 0.9,0.3: the first must be below the second"
    ):
        settings.resolve(given={"synth.filter.confidence": "0.9,0.3"})
    with pytest.raises(UserError, match=r"synth.filter.distance is 5,5: the first must be below the second"):
        settings.resolve(given={"synth.filter.distance": "5,5"})
    with pytest.raises(
        UserError, match=r"synth.filter.distance is .*: input should be less than or equal to 100"
    ):
        settings.resolve(given={"synth.filter.distance": "5,950"})
    assert settings.resolve(given={"synth.filter.distance": "5,95"}).synth.filter.distance == (5.0, 95.0)


def test_torch_draws_nothing_for_the_filters(pool: SyntheticPool, tmp_path: Path) -> None:
    context = RunContext(RunFolder(tmp_path), config(confidence=(0.2, 0.9), distance=(5.0, 95.0)), DATA, CPU)
    mark_pool(context, pool)
    once = (tmp_path / "pool" / FILTERED_FILE).read_bytes()
    (tmp_path / "pool" / FILTERED_FILE).unlink()
    torch.manual_seed(5)
    mark_pool(context, pool)
    assert (tmp_path / "pool" / FILTERED_FILE).read_bytes() == once
