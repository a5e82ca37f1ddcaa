import numpy as np
import pytest
import torch
from tiny import tiny_config

from rlcas.classifiers import build_classifier, snapshot
from rlcas.errors import UserError
from rlcas.training.trainer import build_optimizer

OPTIMIZERS = ("adamw", "sgd")


def fresh(optimizer: str = "adamw", width: int = 16, seed: int = 0):
    config = tiny_config(classifier={"optimizer": optimizer, "width": width}).classifier
    torch.manual_seed(seed)
    model = build_classifier(config, channels=1, num_classes=3, size_px=16)
    model = model.to(memory_format=torch.channels_last)
    made = build_optimizer(config, model.parameters())
    snapshot.materialise(made)
    return model, made


def step(model, optimizer) -> None:
    optimizer.zero_grad()
    model(torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_snapshot_is_the_one_taken(name):
    source, target = fresh(name), fresh(name, seed=1)
    step(*source)
    arrays = snapshot.take(*source)
    snapshot.restore(*target, arrays)
    for key, array in snapshot.take(*target).items():
        np.testing.assert_array_equal(array, arrays[key], strict=True)
    step(*source)
    step(*target)
    for key, tensor in source[0].state_dict().items():
        assert torch.equal(tensor, target[0].state_dict()[key]), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_from_materialised_state_equals_torchs_first_step(name):
    materialised, plain = fresh(name), fresh(name)
    plain[1].state.clear()
    step(*materialised)
    step(*plain)
    for key, tensor in plain[0].state_dict().items():
        assert torch.equal(tensor, materialised[0].state_dict()[key]), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_layout_is_all_of_a_used_optimiser_s_state(name):
    model, optimizer = fresh(name)
    step(model, optimizer)
    numel = sum(v.numel() for state in optimizer.state_dict()["state"].values() for v in state.values())
    numel += sum(tensor.numel() for tensor in model.state_dict().values())
    assert sum(array.size for array in snapshot.take(model, optimizer).values()) == numel


def test_batch_norm_s_counters_stay_integers():
    model, optimizer = fresh()
    step(model, optimizer)
    arrays = snapshot.take(model, optimizer)
    assert {name: array.dtype for name, array in arrays.items()} == {
        "float32": np.float32,
        "int64": np.int64,
    }
    assert (arrays["int64"] == 1).all()


def test_a_snapshot_is_a_copy():
    model, optimizer = fresh()
    arrays = snapshot.take(model, optimizer)
    before = arrays["float32"].copy()
    step(model, optimizer)
    np.testing.assert_array_equal(arrays["float32"], before)


def test_the_state_dict_of_a_snapshot_is_the_model_s():
    model, optimizer = fresh()
    step(model, optimizer)
    with torch.device("meta"):
        shapes, _ = fresh()
    state = snapshot.to_state_dict(snapshot.take(model, optimizer), shapes)
    assert list(state) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_the_state_of_another_classifier_is_refused():
    arrays = snapshot.take(*fresh(width=32))
    with pytest.raises(UserError, match=r"continue with the classifier settings that it was saved with"):
        snapshot.restore(*fresh(width=16), arrays)
