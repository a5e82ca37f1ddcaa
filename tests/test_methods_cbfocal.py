"""CBFocal against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_config, tiny_data, tiny_trainer

from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import class_balanced_focal, class_balanced_softmax_focal, class_balanced_weights
from rlcas.methods.cbfocal import ClassBalancedFocal

BREAST_LT_8 = torch.tensor([2351.0, 1350, 776, 446, 256, 147, 85, 49])


def objective(**cbfocal: object) -> ClassBalancedFocal:
    config = tiny_config(method={"cbfocal": cbfocal}, classifier={"method": "cbfocal"})
    return ClassBalancedFocal(ClassifierMeta.of(tiny_data(), config))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999])
def test_weights_sum_to_the_number_of_classes(beta: float) -> None:
    assert class_balanced_weights(BREAST_LT_8, beta).sum().item() == pytest.approx(8, rel=1e-6)


def test_weights_go_from_even_to_inverse_frequency() -> None:
    even, inverse = torch.ones(8), 1 / BREAST_LT_8
    torch.testing.assert_close(class_balanced_weights(BREAST_LT_8, 0.0), even)
    almost_one = class_balanced_weights(BREAST_LT_8.double(), 1 - 1e-9)
    torch.testing.assert_close(almost_one, (8 * inverse / inverse.sum()).double(), rtol=1e-4, atol=0)


def test_weights_of_two_classes_by_hand() -> None:
    """One and two images at β = 1/2 are 1 and 3/2 effective ones: the weights go as 1 to 2/3, and sum to 2."""
    weights_C = class_balanced_weights(torch.tensor([1.0, 2.0]), 0.5)
    torch.testing.assert_close(weights_C, torch.tensor([1.2, 0.8]))


def test_the_softmax_kind_is_the_weighted_cross_entropy_times_the_missing_probability() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NC = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    labels_N = torch.randint(8, (20,), generator=generator)
    counts_C = BREAST_LT_8.double()
    effective = [(1 - 0.99 ** float(n)) / (1 - 0.99) for n in counts_C]
    scale = 8 / sum(1 / number for number in effective)
    expected = 0.0
    for row, label in zip(logits_NC.numpy(), labels_N.tolist(), strict=True):
        p = np.exp(row[label]) / np.exp(row).sum()
        expected -= scale / effective[label] * (1 - p) ** 2 * np.log(p) / 20
    found = class_balanced_softmax_focal(logits_NC, labels_N, counts_C, beta=0.99, gamma=2.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [class_balanced_focal, class_balanced_softmax_focal])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_gradient_is_finite_at_full_certainty(loss, gamma: float) -> None:
    logits_NC = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss(logits_NC, torch.tensor([0, 0]), torch.tensor([9, 1]), gamma=gamma).backward()
    assert logits_NC.grad is not None and logits_NC.grad.isfinite().all()


def test_the_settings_reach_the_loss() -> None:
    logits_NC, labels_N = torch.tensor([[1.0, -1.0, 0.5]]), torch.tensor([1])
    counts_C = torch.tensor([20, 14, 7])
    sigmoid = objective(beta=0.9, gamma=2.0).validation_loss(logits_NC, labels_N, counts_C)
    expected = class_balanced_focal(logits_NC, labels_N, counts_C, beta=0.9, gamma=2.0)
    torch.testing.assert_close(sigmoid, expected)
    unfocused = objective(kind="softmax", beta=0.0, gamma=0.0).validation_loss(logits_NC, labels_N, counts_C)
    torch.testing.assert_close(unfocused, F.cross_entropy(logits_NC, labels_N))


def test_outputs_start_at_the_probability_of_one_class_in_c() -> None:
    bias_C = objective().classifier.fc.bias
    torch.testing.assert_close(bias_C.sigmoid(), torch.full((3,), 1 / 3))
    assert bias_C[0].item() == pytest.approx(-math.log(2))


def test_the_last_bias_has_no_weight_decay_and_every_parameter_is_trained_once() -> None:
    model = objective()
    decayed, undecayed = model.parameter_groups(0.3)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.3, 0.0)
    assert [id(p) for p in undecayed["params"]] == [id(model.classifier.fc.bias)]
    grouped = [id(p) for group in (decayed, undecayed) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert len(objective(kind="softmax").parameter_groups(0.3)) == 1


def test_the_trainers_optimiser_has_the_group_without_decay() -> None:
    config = tiny_config(classifier={"method": "cbfocal", "weight_decay": 0.1})
    groups = tiny_trainer(config)._optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
