"""The sampler as any Algorithm of RLlib under Ray Tune: restored, and its checkpoints kept, by their own means."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from trivial import METRIC_OF, PriorTrainer, TrivialTrainer

NUM_CLASSES, EPOCHS = 4, 5

pytestmark = [
    pytest.mark.medium,
    pytest.mark.skipif(
        " " in sys.executable,
        reason="Ray 2.60 starts a trial's worker by a shell line that splits paths with spaces",
    ),
]


def make_config(faults: dict[tuple[int, int], str] | None = None, **cluster: Any) -> Any:
    from cluster import RLCASConfig

    factory = functools.partial(TrivialTrainer, num_classes=NUM_CLASSES, faults=faults or {})
    return (
        RLCASConfig()
        .training(k=2, epochs=EPOCHS, lr=0.05)
        .episodes(trainer_factory=factory, num_classes=NUM_CLASSES, episode_retries=0, **cluster)
        .debugging(seed=5)
    )


def state(algorithm: Any) -> tuple[Any, ...]:
    """Return the bits of the policy, the baseline and both incumbents."""
    arrays = algorithm.on_learner(lambda learner: learner.arrays())
    incumbents = (algorithm.incumbent, algorithm.best)
    return (
        {name: array.tobytes() for name, array in arrays.items()},
        [(one.epoch, one.counts_C.tobytes(), one.arrays["float32"].tobytes()) for one in incumbents],
    )


def test_a_tuner_is_restored_to_the_bits_of_a_run_without_a_fault(ray_session: None, tmp_path: Path) -> None:
    from ray import tune

    from cluster import RLCAS

    config = make_config(
        {(4, episode_index): str(tmp_path / f"died-{episode_index}") for episode_index in range(2)}
    )
    kept = tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=1, checkpoint_score_attribute="metric")
    run_config = tune.RunConfig(storage_path=str(tmp_path), name="raw", verbose=0, checkpoint_config=kept)
    results = tune.Tuner(RLCAS, param_space=config, run_config=run_config).fit()
    assert "epoch 4: none of the" in str(results.errors[0])

    f1_of = {figures["training_iteration"]: figures["metric"] for _, figures in results[0].best_checkpoints}
    assert max(f1_of.values()) == results[0].metrics["rlcas"]["metrics"]["best"]
    best = max(f1_of, key=lambda epoch: f1_of[epoch])
    on_disk = {folder.name for folder in (tmp_path / "raw").glob("*/checkpoint_*")}
    assert on_disk >= {f"checkpoint_{best - 1:06d}", "checkpoint_000002"}, "the best and the last are kept"

    path = str(tmp_path / "raw")
    assert tune.Tuner.can_restore(path)
    tuner = tune.Tuner.restore(path, trainable=RLCAS, resume_errored=True, param_space=config)
    (result,) = tuner.fit()
    assert result.error is None and result.metrics["training_iteration"] == EPOCHS

    plain = make_config(episode_runner="in_process").build_algo()
    for _ in range(EPOCHS):
        plain.train()
    restored = RLCAS.from_checkpoint(result.checkpoint.path)
    try:
        assert state(restored) == state(plain)
    finally:
        plain.stop()
        restored.stop()


@pytest.mark.parametrize("runner", ["actors", "in_process"])
def test_the_settings_of_an_algorithm_reach_a_trainer_of_ones_own(ray_session: None, runner: str) -> None:
    from cluster import RLCASConfig

    for prior, metric in METRIC_OF.items():
        algorithm = (
            RLCASConfig()
            .training(k=2, prior=prior, batch_mode="fixed_total")
            .episodes(trainer_factory=PriorTrainer, num_classes=NUM_CLASSES, episode_runner=runner)
            .build_algo()
        )
        try:
            assert algorithm.train()["metric"] == metric
        finally:
            algorithm.stop()


def test_a_search_over_the_prior_reaches_a_trainer_of_ones_own(ray_session: None, tmp_path: Path) -> None:
    from ray import tune

    from cluster import RLCAS, RLCASConfig

    config = (
        RLCASConfig()
        .training(k=1, epochs=1, prior=tune.grid_search(list(METRIC_OF)))
        .episodes(trainer_factory=PriorTrainer, num_classes=NUM_CLASSES)
    )
    run_config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
    results = tune.Tuner(RLCAS, param_space=config, run_config=run_config).fit()
    assert not results.errors
    assert {result.config["prior"]: result.metrics["metric"] for result in results} == METRIC_OF


def test_a_search_is_read_back_as_the_docs_say(ray_session: None, tmp_path: Path) -> None:
    from ray import tune

    from cluster import RLCAS

    config = make_config()
    kept = tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=1, checkpoint_score_attribute="metric")
    again = tune.FailureConfig(max_failures=1)
    run_config = tune.RunConfig(
        storage_path=str(tmp_path), name="raw", verbose=0, checkpoint_config=kept, failure_config=again
    )
    (result,) = tune.Tuner(RLCAS, param_space=config, run_config=run_config).fit()
    # If this no longer raises, docs/sampler.md need not name another way.
    with pytest.raises(KeyError, match="checkpoint_dir_name"):
        tune.Result.from_path(result.path)
    results = tune.Tuner.restore(str(tmp_path / "raw"), trainable=RLCAS, param_space=config).get_results()
    algorithm = RLCAS.from_checkpoint(results.get_best_result("metric", "max").checkpoint.path)
    try:
        assert algorithm.best.result.metrics["f1"] == max(
            figures["metric"] for _, figures in result.best_checkpoints
        )
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("name", "part", "settings", "message"),
    [
        ("RunConfig", None, {}, "'str' object has no attribute 'value'"),
        ("FailureConfig", "failure_config", {"max_failures": 1}, "max_failures must be 0 if fail_fast=True"),
        ("CheckpointConfig", "checkpoint_config", {"num_to_keep": 2}, "unsupported operand type"),
    ],
)
# A search that Tune breaks off leaves its own log open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tune_itself_fails_by_the_classes_of_ray_train(
    name: str, part: str | None, settings: dict[str, int], message: str, ray_session: None, tmp_path: Path
) -> None:
    """What docs/sampler.md quotes; RLCAS is not asked anything before."""
    from ray import train, tune
    from ray.util.annotations import RayDeprecationWarning

    from cluster import RLCAS

    wrong = getattr(train, name)(**settings)
    with (
        pytest.warns(RayDeprecationWarning, match=f"`{name}` class should be imported from `ray.tune`"),
        pytest.raises(Exception, match=re.escape(message)),
    ):
        run_config = tune.RunConfig(storage_path=str(tmp_path), verbose=0, **{part: wrong}) if part else wrong
        tune.Tuner(RLCAS, param_space=make_config(), run_config=run_config).fit()
