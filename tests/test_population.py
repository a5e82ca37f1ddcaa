"""Population-based training over the counts, against a plain loop over one trainer."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import held_run
import numpy as np
import pytest
import small_run
from test_chaos import write_own_pool
from test_controls import rlcas, timeless
from test_trials import held, left_behind
from trivial import TiedTrainer, TrivialTrainer

from cluster.runtime.interrupts import ENDING_NOTICE
from rlcas import settings
from rlcas.batches.composition import KEEP, apply_actions
from rlcas.config import ClusterConfig, SamplerConfig
from rlcas.errors import UserError
from rlcas.reinforce import draw_actions
from rlcas.runs import epoch_log
from rlcas.seeding import rng_for
from rlcas.storage.atomic import read_facts, sha256_of, write_json
from rlcas.types import EpochRecord, Incumbent

NUM_CLASSES, K, EPOCHS, SEED = 4, 3, 3, 5
SAMPLER = SamplerConfig(k=K, epochs=EPOCHS, agents="pbt")


def build(trainer: Any = TrivialTrainer, faults: Any = None, runner: str = "in_process", **sampler: Any) -> Any:
    from cluster.population.population import Population

    return Population(
        functools.partial(trainer, num_classes=NUM_CLASSES, faults=faults or {}),
        SAMPLER.model_copy(update=sampler),
        ClusterConfig(episode_runner=runner, episode_retries=1),
        num_classes=NUM_CLASSES,
        seed=SEED,
    )


def train(num_epochs: int = EPOCHS, **options: Any) -> tuple[list[EpochRecord], Incumbent]:
    """Return the records of a population's epochs, and the classifier that was best."""
    population = build(**options)
    try:
        return epochs_of(population, num_epochs), population.best
    finally:
        population.stop()


def epochs_of(population: Any, epochs: int) -> list[EpochRecord]:
    records = []
    for _ in range(epochs):
        population.train()
        records.append(population.record)
    return records


def bits(records: list[EpochRecord], best: Incumbent) -> Any:
    """Return what must be the same: all but the seconds."""
    without_time = [
        (record.reports, record.winner, record.best_metric, record.best_epoch) for record in records
    ]
    return without_time, best.arrays["float32"].tobytes(), best.counts_C.tolist()


@pytest.fixture(scope="module")
def population() -> tuple[list[EpochRecord], Incumbent]:
    return train()


def test_the_worst_quarter_takes_over_the_best_and_moves_the_others_go_on(population: Any) -> None:
    records, best = population
    trainer = TrivialTrainer(num_classes=NUM_CLASSES)
    start = trainer.initial(np.full(NUM_CLASSES, 2))
    parents = [start] * K
    moved = set(range(K))
    best_so_far, best_f1 = start, -1.0
    for epoch, record in enumerate(records, start=1):
        assert [report.episode_index for report in record.reports] == list(range(K))
        trained = []
        for j, (report, parent) in enumerate(zip(record.reports, parents, strict=True)):
            assert j in moved or (report.actions_C == KEEP).all()
            counts_C = apply_actions(parent.counts_C, report.actions_C, step=2, max_count=16)
            result = trainer.train_epoch(parent, counts_C, episode_index=j)
            np.testing.assert_array_equal(report.counts_C, counts_C)
            assert (report.epoch, report.result.metrics["f1"]) == (epoch, result.metrics["f1"])
            trained.append(trainer.trained())
        f1_K = [report.result.metrics["f1"] for report in record.reports]
        worst, *_, first = sorted(range(K), key=lambda j: f1_K[j])
        assert f1_K[record.winner] == max(f1_K)
        if max(f1_K) > best_f1:
            best_so_far, best_f1 = trained[record.winner], max(f1_K)
        assert (record.best_metric, record.best_epoch) == (best_f1, best_so_far.epoch)
        parents, moved = trained, {worst}
        parents[worst] = trained[first]
    np.testing.assert_array_equal(best.arrays["float32"], best_so_far.arrays["float32"])
    np.testing.assert_array_equal(best.counts_C, best_so_far.counts_C)


def test_it_begins_as_k_episodes_of_uniform_agents_do_and_says_that_nothing_learns(population: Any) -> None:
    records, _ = population
    third_C3 = np.full((NUM_CLASSES, 3), 1 / 3)
    for j, report in enumerate(records[0].reports):
        np.testing.assert_array_equal(report.actions_C, draw_actions(third_C3, rng_for(SEED, "actions", 1, j)))
    assert len(records) == EPOCHS
    for record in records:
        np.testing.assert_array_equal(record.probabilities_C3, third_C3)
        assert record.baseline == 0.0


def test_the_bits_are_those_of_the_population_that_tunes_scheduler_trained() -> None:
    """The figures are of the version whose members were trials under Tune's PopulationBasedTraining."""
    from cluster.population.population import Population

    population = Population(
        TrivialTrainer,
        SAMPLER.model_copy(update={"k": 2, "epochs": 7}),
        ClusterConfig(episode_runner="in_process"),
        num_classes=NUM_CLASSES,
        seed=1,
    )
    records = epochs_of(population, 7)
    counts_TK = [[report.counts_C.tolist() for report in record.reports] for record in records]
    assert counts_TK == [
        [[2, 2, 2, 2], [0, 2, 2, 0]],
        [[2, 2, 2, 2], [4, 4, 4, 4]],
        [[2, 6, 2, 2], [4, 4, 4, 4]],
        [[4, 4, 6, 4], [4, 4, 4, 4]],
        [[6, 6, 4, 2], [4, 4, 4, 4]],
        [[2, 4, 2, 6], [4, 4, 4, 4]],
        [[2, 4, 2, 6], [4, 6, 2, 4]],
    ]
    assert [record.winner for record in records] == [0, 1, 1, 1, 1, 0, 0]
    assert population.best.epoch == 6


@pytest.mark.medium
def test_actors_give_the_bits_of_the_process_itself_and_nothing_is_left_behind(
    ray_session: None, population: Any, tmp_path: Path
) -> None:
    import ray

    before = held()
    faults = {(2, 1): str(tmp_path / "died")}
    assert bits(*train(runner="actors", faults=faults)) == bits(*population), "with a process that died once"
    assert (tmp_path / "died").exists()
    assert left_behind(before) == set()
    assert {group["state"] for group in ray.util.placement_group_table().values()} <= {"REMOVED"}


@pytest.mark.medium
def test_a_member_that_fails_ends_it_with_its_traceback_on_actors(ray_session: None) -> None:
    from cluster.episodes.selection import EpisodeError

    before = held()
    with pytest.raises(
        EpisodeError, match=r"(?s)epoch 1: member 1 of the population failed \(exception\).*set to fail"
    ):
        train(runner="actors", faults={(1, 1): "exception"})
    assert left_behind(before) == set()


def test_a_member_that_fails_ends_it_with_its_traceback() -> None:
    from cluster.episodes.selection import EpisodeError

    with pytest.raises(
        EpisodeError, match=r"(?s)epoch 2: member 1 of the population failed \(exception\).*set to fail"
    ):
        train(faults={(2, 1): "exception"})


def test_ties_go_to_less_validation_loss_then_the_lower_index() -> None:
    records, _ = train(4, trainer=TiedTrainer, k=6, epochs=4)
    losses_TK = [[report.result.val_loss for report in record.reports] for record in records]
    assert 1 < len(set(losses_TK[0])) < 6, "some members have one loss, some differ"
    for (before, after), losses_K in zip(itertools.pairwise(records), losses_TK, strict=False):
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


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_it_resumes_from_any_checkpoint_to_the_same_bits(tmp_path: Path, epoch: int) -> None:
    from cluster.episodes.checkpoint import load_into, save

    expected = train(6, k=5, epochs=6)
    stopped = build(k=5, epochs=6)
    records = epochs_of(stopped, epoch)
    save(stopped, tmp_path)
    resumed = build(k=5, epochs=6)
    assert load_into(resumed, tmp_path) == resumed.epoch == epoch
    records += epochs_of(resumed, 6 - epoch)
    assert bits(records, resumed.best) == bits(*expected)


@pytest.mark.medium
def test_on_actors_it_resumes_to_the_same_bits(ray_session: None, tmp_path: Path, population: Any) -> None:
    from cluster.episodes.checkpoint import load_into, save

    stopped, resumed = build(runner="actors"), build(runner="actors")
    try:
        records = epochs_of(stopped, 2)
        save(stopped, tmp_path)
        assert load_into(resumed, tmp_path) == 2
        records += epochs_of(resumed, EPOCHS - 2)
        assert bits(records, resumed.best) == bits(*population)
    finally:
        stopped.stop()
        resumed.stop()


def test_members_that_continue_from_one_classifier_are_written_once(tmp_path: Path) -> None:
    from cluster.episodes.checkpoint import save

    population = build()
    population.train()
    checkpoint = save(population, tmp_path)
    files = [checkpoint / f"parent-{member}.safetensors" for member in range(K)]
    assert len({file.stat().st_ino for file in [*files, checkpoint / "best.safetensors"]}) == K - 1


@pytest.mark.parametrize("actions", [None, [], [[0, 1, 2, 3]] * K, [[0, 1, 2]] * K, "moved"])
def test_a_checkpoint_with_other_actions_is_not_usable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], actions: Any
) -> None:
    from cluster.episodes.checkpoint import DIGESTS, STATE, load_into, save

    population = build()
    for _ in range(2):
        population.train()
        checkpoint = save(population, tmp_path)
    state, digests = read_facts(checkpoint / STATE), read_facts(checkpoint / DIGESTS)
    write_json(checkpoint / STATE, {**state, "actions": actions})
    write_json(checkpoint / DIGESTS, {**digests, STATE: sha256_of(checkpoint / STATE)})
    assert load_into(build(), tmp_path) == 1
    assert "epoch-0002 is not usable (its actions are not those of the population)" in capsys.readouterr().out


def test_a_checkpoint_of_fewer_members_is_refused(tmp_path: Path) -> None:
    from cluster.episodes.checkpoint import load_into, save

    population = build()
    population.train()
    save(population, tmp_path)
    with pytest.raises(UserError, match=r"none of its 1 checkpoints is usable: start a new run"):
        load_into(build(k=4), tmp_path)


@pytest.mark.parametrize(("num_members", "moved"), [(2, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_quarter_of_the_members_move_rounded_up(num_members: int, moved: int) -> None:
    from cluster.population.exchange import exchanged

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
    from cluster.population.exchange import exchanged

    trainer = TrivialTrainer(num_classes=NUM_CLASSES)
    members = [trainer.initial(np.full(NUM_CLASSES, j)) for j in range(3)]
    parents, _ = exchanged(members, keys, NUM_CLASSES, SEED)
    expected = list(members)
    expected[worst] = members[best]
    assert all(parent is member for parent, member in zip(parents, expected, strict=True))


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


def test_a_population_is_not_an_rllib_algorithm() -> None:
    from cluster import RLCASConfig

    config = RLCASConfig().training(agents="pbt").episodes(trainer_factory=TrivialTrainer, num_classes=4)
    with pytest.raises(UserError, match=r"sampler.agents pbt is not an RLlib algorithm: use `rlcas train`"):
        config.validate()


PBT = ("--sampler.agents", "pbt", "--sampler.epochs", "3")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, images of one's own, a loss that can be held up, and a finished run of a population."""
    home = tmp_path_factory.mktemp("home")
    write_own_pool(home)
    (home / "held.py").write_text(held_run.LOSS)
    with pytest.MonkeyPatch.context() as patch:
        held_run.find_loss(home, patch)
        done = rlcas(*held_run.words("run"), *PBT, *small_run.IN_PROCESS, cwd=home)
        assert done.returncode == 0, done.stderr
        yield home


@pytest.fixture
def run(home: Path) -> Path:
    """The folder of the finished run, which is only read."""
    return home / "run"


def unfinished(run: Path, path: Path, **changes: Any) -> Path:
    """Return a copy of a run's folder as it was before its epochs ended, with other settings of the cluster."""
    shutil.copytree(run, path)
    for name in ("metrics.json", "report.html", "model.safetensors"):
        (path / name).unlink()
    config = settings.load(path)
    cluster = config.cluster.model_copy(update=changes)
    settings.save(config.model_copy(update={"cluster": cluster}), path)
    return path


def assert_resumed(path: Path, run: Path) -> subprocess.CompletedProcess[str]:
    done = rlcas("resume", path, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    assert timeless(epoch_log.read_epochs(path)) == timeless(epoch_log.read_epochs(run))
    assert (path / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    return done


@pytest.mark.slow
def test_a_run_of_a_population_is_as_any_other(run: Path) -> None:
    lines = epoch_log.read_epochs(run)
    assert [np.shape(line["compositions"]) for line in lines] == [(2, 3)] * 3
    assert list((run / "tensorboard").rglob("events.out.tfevents.*"))
    assert (run / "report.html").exists()
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["epoch-0002", "epoch-0003"]


@pytest.mark.slow
def test_it_resumes_from_a_checkpoint_and_its_log_is_cut_back_to_it(run: Path, tmp_path: Path) -> None:
    path = unfinished(run, tmp_path / "resumed")
    shutil.rmtree(path / "checkpoints/epoch-0003")
    assert "Resuming after epoch 2" in assert_resumed(path, run).stdout


@pytest.mark.slow
def test_a_run_begun_before_populations_had_checkpoints_starts_its_epochs_again(
    run: Path, tmp_path: Path
) -> None:
    """On actors, where the first one trained in its own process."""
    path = unfinished(run, tmp_path / "older", episode_runner="actors")
    shutil.rmtree(path / "checkpoints")
    epoch_log.keep_epochs(path, 1)
    (path / "population/epoch-0001").mkdir(parents=True)
    assert "Resuming after" not in assert_resumed(path, run).stdout
    assert not (path / "population").exists()


@pytest.mark.slow
def test_a_run_that_is_interrupted_and_then_killed_resumes_to_the_same_bits(home: Path, run: Path) -> None:
    path = home / "stopped"
    with held_run.started(home, *held_run.words("stopped"), *PBT) as process:
        os.killpg(process.pid, signal.SIGINT)
        held_run.read_until(ENDING_NOTICE, process)
        held_run.release(home)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error.splitlines()[-1] == (
        f"rlcas: interrupted after epoch 1, which is saved; `rlcas resume {path}` continues"
    )
    assert [checkpoint.name for checkpoint in (path / "checkpoints").iterdir()] == ["epoch-0001"]
    with held_run.started(home, "resume", "stopped") as process:
        process.kill()
    held_run.release(home)
    assert "Resuming after epoch 1" in assert_resumed(path, run).stdout
