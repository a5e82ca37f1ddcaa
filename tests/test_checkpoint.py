import contextlib
import json
import resource
import threading

import numpy as np
import pytest

from cluster.episodes import checkpoint_writer
from cluster.episodes.checkpoint import DIGESTS, STATE, Snapshot, load_into, save
from cluster.episodes.checkpoint_writer import CheckpointWriter
from rlcas.errors import UserError
from rlcas.types import EpochResult, Incumbent

BEST, INCUMBENT, LEARNER = "best.safetensors", "incumbent.safetensors", "learner.safetensors"
FILES = (STATE, INCUMBENT, BEST, LEARNER)
"""Of a run's checkpoint, beside the digests."""


class Algorithm:
    """The part of an RLCAS that a checkpoint reads and writes, without Ray; the real one is in test_engine.py."""

    def __init__(self, epoch, num_classes=3):
        rng = np.random.default_rng(epoch)
        result = EpochResult(
            metrics={"f1": rng.random(), "few": float("nan")},
            val_loss=rng.random(),
            train_loss=rng.random(),
            per_class={"recall": np.array([0.1, float("nan"), 1.0]), "f1": rng.random(3)},
            num_images=10,
            finite=True,
        )
        self.best = self.incumbent = Incumbent(
            epoch=epoch,
            arrays={"float32": rng.random(9, np.float32), "int64": np.arange(3)},
            counts_C=np.full(num_classes, 2),
            positions_C=np.arange(num_classes),
            result=result,
        )
        self.learner_arrays = {"baseline": rng.random(1), "policy/logits_C3": rng.random((3, 3), np.float32)}

    @property
    def epoch(self):
        return self.incumbent.epoch

    def snapshot(self):
        incumbents = {"incumbent": self.incumbent, "best": self.best}
        return Snapshot(incumbents=incumbents, arrays={"learner": self.learner_arrays})

    def resume(self, snapshot):
        self.incumbent, self.best = snapshot.incumbent("incumbent"), snapshot.incumbent("best")
        self.learner_arrays = snapshot.arrays["learner"]


def assert_same(one, other):
    assert one.incumbent.arrays.keys() == other.incumbent.arrays.keys()
    for name, array in one.incumbent.arrays.items():
        assert array.tobytes() == other.incumbent.arrays[name].tobytes()
    for name, array in one.learner_arrays.items():
        assert array.tobytes() == other.learner_arrays[name].tobytes()
    assert repr(one.incumbent.result) == repr(other.incumbent.result)
    assert one.incumbent.positions_C.tolist() == other.incumbent.positions_C.tolist()


def test_what_is_loaded_is_what_was_saved(tmp_path):
    algorithm, other = Algorithm(3), Algorithm(0)
    assert save(algorithm, tmp_path) == tmp_path / "epoch-0003"
    assert load_into(other, tmp_path) == 3
    assert_same(algorithm, other)


def test_a_checkpoint_has_the_files_and_fields_that_it_always_had(tmp_path):
    path = save(Algorithm(3), tmp_path)
    assert sorted(file.name for file in path.iterdir()) == sorted([*FILES, DIGESTS])
    assert json.loads((path / DIGESTS).read_text()).keys() == set(FILES)
    state = json.loads((path / STATE).read_text())
    assert state.keys() == {"incumbent", "best"}
    assert state["incumbent"].keys() == {"epoch", "counts_C", "positions_C", "result"}


def test_the_last_two_are_kept_and_nothing_half_written(tmp_path):
    for epoch in (1, 2, 10):
        save(Algorithm(epoch), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002", "epoch-0010"]


def test_without_a_checkpoint_the_algorithm_stays_as_it_is(tmp_path):
    algorithm = Algorithm(0)
    assert load_into(algorithm, tmp_path) == 0
    assert_same(algorithm, Algorithm(0))


@pytest.mark.parametrize("name", [*FILES, DIGESTS])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_corrupt_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, capsys, name, damage):
    save(Algorithm(1), tmp_path)
    damaged(save(Algorithm(2), tmp_path) / name, damage)
    algorithm = Algorithm(0)
    assert load_into(algorithm, tmp_path) == 1
    assert_same(algorithm, Algorithm(1))
    line = capsys.readouterr().out
    assert "epoch-0002 is not usable (" in line and "resuming from the one before" in line


def damaged(path, damage):
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x01
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)


def test_more_than_9999_epochs_are_sorted_by_number(tmp_path):
    for epoch in (9999, 10000):
        save(Algorithm(epoch), tmp_path)
    assert load_into(Algorithm(0), tmp_path) == 10000


def epochs_with_one_best(*epochs):
    """Return an algorithm after each epoch, all with the best classifier of the first."""
    algorithms = [Algorithm(epoch) for epoch in epochs]
    for algorithm in algorithms:
        algorithm.best = algorithms[0].best
    return algorithms


def test_an_unchanged_best_is_written_twice_at_most_and_neighbours_share_no_file(tmp_path):
    inodes = []
    with CheckpointWriter(tmp_path) as writer:
        for algorithm in epochs_with_one_best(1, 2, 3, 4):
            writer.save(algorithm)
            writer._writes[-1].result()
            inodes.append((tmp_path / f"epoch-{algorithm.epoch:04d}" / BEST).stat().st_ino)
    assert inodes[0] == inodes[2] != inodes[1] == inodes[3]
    damaged(tmp_path / "epoch-0004" / BEST, "flip")
    algorithm = Algorithm(0)
    assert load_into(algorithm, tmp_path) == 3
    assert algorithm.best.arrays["float32"].tobytes() == Algorithm(1).best.arrays["float32"].tobytes()


def test_a_damaged_best_is_not_blessed_by_the_checkpoint_that_names_it_again(tmp_path):
    first, second, third = epochs_with_one_best(1, 2, 3)
    with CheckpointWriter(tmp_path) as writer:
        for algorithm in (first, second):
            writer.save(algorithm)
            writer._writes[-1].result()
        damaged(tmp_path / "epoch-0001" / BEST, "flip")
        writer.save(third)
    assert (tmp_path / "epoch-0003").exists()
    assert load_into(Algorithm(0), tmp_path) == 2


@contextlib.contextmanager
def largest_file(num_bytes):
    """Let the system refuse files above a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_without_room_leaves_nothing_and_says_what_to_do(tmp_path):
    algorithm = Algorithm(2)
    save(Algorithm(1), tmp_path)
    with (
        largest_file(300),
        pytest.raises(UserError, match=r"epoch-0002 cannot be written \(.*\): free disk space, then"),
    ):
        save(algorithm, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001"]
    save(algorithm, tmp_path)
    assert load_into(Algorithm(0), tmp_path) == 2


def test_a_classifier_that_is_the_best_so_far_is_written_once(tmp_path):
    checkpoint = save(Algorithm(1), tmp_path)
    assert (checkpoint / BEST).samefile(checkpoint / INCUMBENT)


def test_a_slow_disk_holds_up_no_epoch_and_the_newest_checkpoint_is_written(tmp_path, monkeypatch):
    may_write, write = threading.Event(), checkpoint_writer.write
    monkeypatch.setattr(checkpoint_writer, "write", lambda *words: may_write.wait() and write(*words))
    with CheckpointWriter(tmp_path) as writer:
        writer.save(Algorithm(1))
        while writer._waiting:
            pass
        for epoch in (2, 3, 4):
            writer.save(Algorithm(epoch))
            assert len(writer._waiting) == 1
        assert not list(tmp_path.iterdir())
        may_write.set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0001", "epoch-0004"]


def test_what_befell_the_writer_is_raised_at_the_next_checkpoint_and_at_the_end(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.write_text("a file in the way")
    writer = CheckpointWriter(folder)
    writer.save(Algorithm(1))
    with pytest.raises(NotADirectoryError):
        writer._writes[0].exception()
        writer.save(Algorithm(2))
    writer.save(Algorithm(3))
    with pytest.raises(NotADirectoryError), writer:
        pass


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_writer(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.write_text("a file in the way")
    with pytest.raises(RuntimeError, match="the epoch's own"), CheckpointWriter(folder) as writer:
        writer.save(Algorithm(1))
        raise RuntimeError("the epoch's own")


def test_a_pickle_in_place_of_weights_is_not_read(tmp_path):
    checkpoint = save(Algorithm(1), tmp_path)
    (checkpoint / "learner.safetensors").write_bytes(b"\x80\x04\x95\x00")
    with pytest.raises(UserError, match=r"none of its 1 checkpoints is usable: start a new run"):
        load_into(Algorithm(0), tmp_path)


def test_a_checkpoint_of_other_classes_is_refused(tmp_path):
    save(Algorithm(1, num_classes=5), tmp_path)
    with pytest.raises(UserError, match=r"is of 5 classes, the data has 3: resume with the run's own data"):
        load_into(Algorithm(0), tmp_path)
