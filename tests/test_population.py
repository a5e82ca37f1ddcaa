"""Population-based training over the counts: Tune's scheduler against a plain loop over one trainer."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from test_controls import rlcas, timeless
from trivial import TiedTrainer, TrivialTrainer

from rlcas import settings
from rlcas.batches.composition import KEEP, apply_actions
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.reinforce import draw_actions
from rlcas.runs import epoch_log
from rlcas.seeding import rng_for
from rlcas.types import EpochRecord, Incumbent

NUM_CLASSES, K, EPOCHS, SEED = 4, 3, 3, 5
SAMPLER = SamplerConfig(k=K, epochs=EPOCHS, agents="pbt")


def train(folder: Path, tell: Any = None, faults: Any = None) -> tuple[list[EpochRecord], Incumbent]:
    """Return what a population told of its epochs, and the classifier that it kept."""
    from cluster.population.tune_runner import train_population

    told: list[EpochRecord] = []
    best = train_population(
        functools.partial(TrivialTrainer, num_classes=NUM_CLASSES, faults=faults or {}),
        SAMPLER,
        ClusterConfig(),
        num_classes=NUM_CLASSES,
        seed=SEED,
        folder=folder,
        tell=tell or told.append,
    )
    return told, best


@pytest.fixture(scope="module")
def population(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[EpochRecord], Incumbent]:
    return train(tmp_path_factory.mktemp("a home") / "population")


@pytest.mark.medium
def test_the_worst_quarter_takes_over_the_best_and_moves_the_others_go_on(population: Any) -> None:
    told, best = population
    trainer = TrivialTrainer(num_classes=NUM_CLASSES)
    start = trainer.initial(np.full(NUM_CLASSES, 2))
    parents = [start] * K
    moved = set(range(K))
    kept, best_f1 = start, -1.0
    for epoch, record in enumerate(told, start=1):
        assert [report.episode_index for report in record.reports] == list(range(K))
        left = []
        for j, (report, parent) in enumerate(zip(record.reports, parents, strict=True)):
            assert j in moved or (report.actions_C == KEEP).all()
            counts_C = apply_actions(parent.counts_C, report.actions_C, step=2, max_count=16)
            result = trainer.train_epoch(parent, counts_C, episode_index=j)
            np.testing.assert_array_equal(report.counts_C, counts_C)
            assert (report.epoch, report.result.metrics["f1"]) == (epoch, result.metrics["f1"])
            left.append(trainer.trained())
        f1_K = [report.result.metrics["f1"] for report in record.reports]
        worst, *_, first = sorted(range(K), key=lambda j: f1_K[j])
        assert f1_K[record.winner] == max(f1_K)
        if max(f1_K) > best_f1:
            kept, best_f1 = left[record.winner], max(f1_K)
        assert (record.best_metric, record.best_epoch) == (best_f1, kept.epoch)
        parents, moved = left, {worst}
        parents[worst] = left[first]
    np.testing.assert_array_equal(best.arrays["float32"], kept.arrays["float32"])
    np.testing.assert_array_equal(best.counts_C, kept.counts_C)


@pytest.mark.medium
def test_it_begins_as_k_episodes_of_uniform_agents_do_and_says_that_nothing_learns(population: Any) -> None:
    told, _ = population
    third_C3 = np.full((NUM_CLASSES, 3), 1 / 3)
    for j, report in enumerate(told[0].reports):
        np.testing.assert_array_equal(report.actions_C, draw_actions(third_C3, rng_for(SEED, "actions", 1, j)))
    assert len(told) == EPOCHS
    for record in told:
        np.testing.assert_array_equal(record.probabilities_C3, third_C3)
        assert record.baseline == 0.0


@pytest.mark.medium
def test_the_same_seed_gives_the_same_bits_and_nothing_is_left_behind(population: Any, tmp_path: Path) -> None:
    import ray

    state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    ctrl_c = signal.getsignal(signal.SIGINT)
    told, best = train(tmp_path / "population")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == (state, numpy_state)
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    assert [record.reports for record in told] == [record.reports for record in population[0]]
    assert best.arrays["float32"].tobytes() == population[1].arrays["float32"].tobytes()
    assert list(tmp_path.iterdir()) == []
    assert {group["state"] for group in ray.util.placement_group_table().values()} <= {"REMOVED"}


@pytest.mark.medium
def test_a_member_that_fails_ends_it_with_its_traceback(ray_session: None, tmp_path: Path) -> None:
    from cluster.episodes.selection import EpisodeError

    with pytest.raises(
        EpisodeError, match=r"(?s)epoch 1: member 1 of the population failed \(exception\).*told to fail"
    ):
        train(tmp_path / "population", faults={(1, 1): "exception"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.medium
def test_a_fault_in_telling_an_epoch_is_shown_as_it_is(ray_session: None, tmp_path: Path) -> None:
    def tell(record: EpochRecord) -> None:
        raise UserError("epochs.jsonl cannot be written: make room")

    with pytest.raises(UserError, match=r"^epochs.jsonl cannot be written: make room$"):
        train(tmp_path / "population", tell=tell)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.medium
def test_in_process_it_gives_the_bits_of_tunes_workers(population: Any, tmp_path: Path) -> None:
    from cluster.population.local_runner import train_population_in_process

    told: list[EpochRecord] = []
    best = train_population_in_process(
        functools.partial(TrivialTrainer, num_classes=NUM_CLASSES),
        SAMPLER,
        ClusterConfig(),
        num_classes=NUM_CLASSES,
        seed=SEED,
        folder=tmp_path,
        tell=told.append,
    )
    assert [record.reports for record in told] == [record.reports for record in population[0]]
    assert best.arrays["float32"].tobytes() == population[1].arrays["float32"].tobytes()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.medium
def test_ties_go_to_less_validation_loss_then_the_lower_index_in_both(
    ray_session: None, tmp_path: Path
) -> None:
    from cluster.population.local_runner import train_population_in_process
    from cluster.population.tune_runner import train_population

    told: list[list[EpochRecord]] = []
    for train_it in (train_population, train_population_in_process):
        told.append([])
        train_it(
            functools.partial(TiedTrainer, num_classes=NUM_CLASSES),
            SAMPLER.model_copy(update={"k": 6, "epochs": 4}),
            ClusterConfig(),
            num_classes=NUM_CLASSES,
            seed=SEED,
            folder=tmp_path / "population",
            tell=told[-1].append,
        )
    losses_TK = [[report.result.val_loss for report in record.reports] for record in told[0]]
    assert 1 < len(set(losses_TK[0])) < 6, "some members have one loss, some differ"
    for (before, after), losses_K in zip(itertools.pairwise(told[0]), losses_TK, strict=False):
        best_first = sorted(range(6), key=lambda j: (losses_K[j], j))
        moved = {j for j, report in enumerate(after.reports) if (report.actions_C != KEEP).any()}
        assert moved <= set(best_first[-2:]), "the worst two"
        parents = [before.reports[best] for best in best_first[:2]]
        for j in moved:
            report = after.reports[j]
            assert any(
                (
                    report.counts_C == apply_actions(parent.counts_C, report.actions_C, step=2, max_count=16)
                ).all()
                for parent in parents
            )
    assert [record.reports for record in told[0]] == [record.reports for record in told[1]]


def test_in_process_a_member_that_fails_ends_it_with_its_traceback(tmp_path: Path) -> None:
    from cluster.episodes.selection import EpisodeError
    from cluster.population.local_runner import train_population_in_process

    with pytest.raises(
        EpisodeError, match=r"(?s)epoch 2: member 1 of the population failed \(exception\).*told to fail"
    ):
        train_population_in_process(
            functools.partial(TrivialTrainer, num_classes=NUM_CLASSES, faults={(2, 1): "exception"}),
            SAMPLER,
            ClusterConfig(),
            num_classes=NUM_CLASSES,
            seed=SEED,
            folder=tmp_path,
            tell=lambda record: None,
        )


@pytest.mark.parametrize(("num_members", "moved"), [(2, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_quarter_of_the_members_move_rounded_up(num_members: int, moved: int) -> None:
    from cluster.population.local_runner import exchanged

    trainer = TrivialTrainer(num_classes=NUM_CLASSES)
    members = [trainer.initial(np.full(NUM_CLASSES, j)) for j in range(num_members)]
    parents, actions_KC = exchanged(members, [(j, 0.0) for j in range(num_members)], NUM_CLASSES, SEED)
    assert [parent is member for parent, member in zip(parents, members, strict=True)] == [False] * moved + [
        True
    ] * (num_members - moved)
    assert all(int(parent.counts_C[0]) >= num_members - moved for parent in parents[:moved])
    assert all((actions_C == KEEP).all() for actions_C in actions_KC[moved:])


@pytest.mark.parametrize(
    ("keys", "worst", "best"),
    [
        ([(0.5, -0.2), (0.5, -0.3), (0.5, -0.1)], 1, 2),
        ([(0.5, -0.2), (0.5, -0.2), (0.5, -0.2)], 2, 0),
        ([(0.4, -0.1), (0.5, -0.3), (0.5, -0.2)], 0, 2),
    ],
)
def test_of_equal_members_less_loss_is_better_then_the_lower_index(
    keys: list[tuple[float, float]], worst: int, best: int
) -> None:
    from cluster.population.local_runner import exchanged

    trainer = TrivialTrainer(num_classes=NUM_CLASSES)
    members = [trainer.initial(np.full(NUM_CLASSES, j)) for j in range(3)]
    parents, _ = exchanged(members, keys, NUM_CLASSES, SEED)
    expected = list(members)
    expected[worst] = members[best]
    assert all(parent is member for parent, member in zip(parents, expected, strict=True))


def test_an_incumbent_is_read_as_it_was_written(tmp_path: Path) -> None:
    from cluster.episodes.incumbent_file import read_incumbent, write_incumbent

    trainer = TrivialTrainer(num_classes=NUM_CLASSES)
    result = trainer.train_epoch(
        trainer.initial(np.array([0, 2, 4, 6])), np.array([0, 2, 4, 6]), episode_index=0
    )
    incumbent = dataclasses.replace(trainer.trained(), result=result)
    write_incumbent(incumbent, tmp_path / "epoch/member.safetensors")
    again = read_incumbent(tmp_path / "epoch/member.safetensors")
    np.testing.assert_equal(dataclasses.asdict(again), dataclasses.asdict(incumbent))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"k": 1}, r"sampler.agents pbt is a population of sampler.k 1 members: raise sampler.k"),
        ({"replay": "run"}, r"sampler.agents pbt beside sampler.replay .*run: leave one out"),
        ({"entropy_bonus": 0.1}, r"sampler.entropy_bonus 0.1 has no effect on sampler.agents pbt"),
    ],
)
def test_settings_that_a_population_cannot_have_are_refused(sampler: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings.of({"sampler": {"agents": "pbt", **sampler}})


def test_a_population_is_no_rllib_algorithm() -> None:
    from cluster import RLCASConfig

    config = RLCASConfig().training(agents="pbt").episodes(trainer_factory=TrivialTrainer, num_classes=4)
    with pytest.raises(UserError, match=r"sampler.agents pbt is no RLlib algorithm: use `rlcas train`"):
        config.validate()


@pytest.mark.slow
def test_a_run_of_a_population_is_as_any_other_and_starts_again_where_it_was_killed(tmp_path: Path) -> None:
    from PIL import Image

    with np.load(small_run.write_npz(tmp_path / "shapes.npz")) as arrays:
        images, labels = arrays["val_images"], arrays["val_labels"].ravel()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "own" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "own" / str(label) / f"{i}.png")
    small = small_run.flags(synth__scoring__extractor="pixels", synth__scoring__pool_only_epochs=0)
    words = ["--data", "npz:shapes.npz", "--pool", "folder:own", *small, "--sampler.agents", "pbt"]
    done = rlcas("train", *words, *small_run.IN_PROCESS, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    lines, model = epoch_log.read_epochs(run), (run / "model.safetensors").read_bytes()
    assert [np.shape(line["compositions"]) for line in lines] == [(2, 3), (2, 3)]
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    assert (run / "report.html").exists() and not (run / "population").exists()
    for name in ("metrics.json", "report.html", "model.safetensors"):
        (run / name).unlink()
    epoch_log.keep_epochs(run, 1)
    config = settings.load(run)
    by_tune = config.cluster.model_copy(update={"episode_runner": "actors"})
    settings.save(config.model_copy(update={"cluster": by_tune}), run)
    (run / "population/epoch-0001").mkdir(parents=True)
    done = rlcas("resume", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert timeless(epoch_log.read_epochs(run)) == timeless(lines)
    assert (run / "model.safetensors").read_bytes() == model
    assert not (run / "population").exists()
