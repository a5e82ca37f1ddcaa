from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import config, write_npz

from rlcas.data import load, open_prepared, prepare
from rlcas.errors import UserError
from rlcas.types import TrainingData


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    patients = np.array([f"p{i}" for i in range(12)])
    return load(config(write_npz(tmp_path, train_patients=patients), imbalance_factor=2))


def test_prepared_data_are_opened_mapped_and_unchanged(data: TrainingData, tmp_path: Path) -> None:
    prepare(data, tmp_path / "prepared")
    found = open_prepared(tmp_path / "prepared")
    assert isinstance(found.train.images_NCHW, np.memmap) and not found.train.images_NCHW.flags.writeable
    assert (found.name, found.class_names, found.notes) == (data.name, data.class_names, data.notes)
    for a, b in ((found.train, data.train), (found.val, data.val)):
        np.testing.assert_array_equal(a.images_NCHW, b.images_NCHW)
        np.testing.assert_array_equal(a.labels_N, b.labels_N)
    assert found.train.patients_N is not None and found.val.patients_N is None
    np.testing.assert_array_equal(found.train.patients_N, data.train.patients_N)


def test_the_facts_are_plain_json(data: TrainingData, tmp_path: Path) -> None:
    prepare(data, tmp_path)
    facts = json.loads((tmp_path / "data.json").read_text())
    assert facts["class_counts"] == {"train": [6, 3], "val": [2, 2]}
    assert facts["image_shape_CHW"] == [1, 8, 8] and facts["class_names"] == ["0", "1"]


def test_an_interrupted_preparation_does_not_count(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(data, tmp_path / "prepared")
    calls: list[object] = []

    def broken(*arguments: object, **_: object) -> None:
        calls.append(arguments)
        raise OSError("no space left")

    monkeypatch.setattr("rlcas.data.prepared.write_array", broken)
    with pytest.raises(OSError, match="no space left"):
        prepare(data, tmp_path / "prepared")
    assert len(calls) == 1
    with pytest.raises(UserError, match=r"prepared has no data.json: prepare the data again"):
        open_prepared(tmp_path / "prepared")


def test_altered_prepared_data_are_refused(data: TrainingData, tmp_path: Path) -> None:
    prepare(data, tmp_path)
    labels = tmp_path / "val_labels.npy"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-8])
    with pytest.raises(UserError, match=r"val_labels.npy is missing, truncated or altered"):
        open_prepared(tmp_path)
    np.save(labels, np.zeros(3, np.int64))
    with pytest.raises(UserError, match=r"the val arrays do not match data.json: prepare the data again"):
        open_prepared(tmp_path)
    (tmp_path / "data.json").write_text('{"name": ')
    with pytest.raises(UserError, match=r"data.json is truncated or altered"):
        open_prepared(tmp_path)
