import logging

import numpy as np
import pytest

from cluster.checkpoint import DIGESTS, FILES, load_into, save
from rlcas.errors import UserError
from rlcas.types import EpochResult, Incumbent


class Algorithm:
    """What of an RLCAS a checkpoint reads and writes, without Ray; the real one is in test_engine.py."""

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
        self.epoch = epoch
        self.best = self.incumbent = Incumbent(
            epoch=epoch,
            arrays={"float32": rng.random(9, np.float32), "int64": np.arange(3)},
            counts_C=np.full(num_classes, 2),
            positions_C=np.arange(num_classes),
            result=result,
        )
        self.learner_arrays = {"baseline": rng.random(1), "policy/logits_C3": rng.random((3, 3), np.float32)}

    def on_learner(self, function):
        return function(self)

    def arrays(self):
        return self.learner_arrays

    def resume(self, incumbent, best, learner_arrays):
        self.incumbent, self.best, self.learner_arrays = incumbent, best, learner_arrays


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
def test_a_corrupt_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, caplog, name, damage):
    save(Algorithm(1), tmp_path)
    path = save(Algorithm(2), tmp_path) / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x01
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else content)
    algorithm = Algorithm(0)
    with caplog.at_level(logging.WARNING):
        assert load_into(algorithm, tmp_path) == 1
    assert_same(algorithm, Algorithm(1))
    assert "epoch-0002 is not usable" in caplog.text


def test_a_pickle_in_place_of_weights_is_not_read(tmp_path):
    checkpoint = save(Algorithm(1), tmp_path)
    (checkpoint / "learner.safetensors").write_bytes(b"\x80\x04\x95\x00")
    with pytest.raises(UserError, match=r"none of its 1 checkpoints is usable: start a new run"):
        load_into(Algorithm(0), tmp_path)


def test_a_checkpoint_of_other_classes_is_refused(tmp_path):
    save(Algorithm(1, num_classes=5), tmp_path)
    with pytest.raises(UserError, match=r"is of 5 classes, the data has 3: resume with the run's own data"):
        load_into(Algorithm(0), tmp_path)
