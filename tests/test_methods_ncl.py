"""NCL against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_config, tiny_data

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import balanced_softmax
from rlcas.methods.ncl import NestedCollaboration, hard_classes, mutual_divergence

COUNTS = torch.tensor([20, 14, 7])


def objective(**ncl: object) -> NestedCollaboration:
    torch.manual_seed(0)
    config = tiny_config(method={"ncl": ncl}, classifier={"method": "ncl"})
    return NestedCollaboration(ClassifierMeta.of(tiny_data(), config)).eval()


def batch() -> MiniBatch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(10, 1, 16, 16, generator=generator)
    return MiniBatch(views=(images,), labels_N=torch.randint(3, (10,), generator=generator))


def test_the_hard_classes_are_the_label_and_the_largest_others() -> None:
    logits_NC = torch.tensor([[5.0, 1, 4, 3, 2], [5, 1, 4, 3, 2]])
    found = hard_classes(logits_NC, torch.tensor([1, 0]), share=0.6)
    assert found.int().tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]]


@pytest.mark.parametrize(("num_classes", "number"), [(2, 2), (3, 2), (8, 2), (10, 3), (100, 30)])
def test_three_tenths_of_the_classes_are_hard_and_two_at_least(num_classes: int, number: int) -> None:
    logits_NC = torch.randn(6, num_classes, generator=torch.Generator().manual_seed(0))
    assert hard_classes(logits_NC, torch.arange(6) % num_classes, 0.3).sum(1).tolist() == [number] * 6


def test_experts_that_agree_have_nothing_to_learn_from_each_other() -> None:
    same_KNC = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0)).expand(3, 5, 4)
    assert mutual_divergence(same_KNC).item() == pytest.approx(0, abs=1e-6)


def divergence(logits_KNC: np.ndarray) -> float:
    """Return Σ_{i≠j} KL(p_j ‖ p_i) / (K - 1), the mean over images, where p is 0 too."""
    p_KNC = np.exp(logits_KNC)
    p_KNC /= p_KNC.sum(axis=2, keepdims=True)
    total = 0.0
    for i in range(len(p_KNC)):
        for j in range(len(p_KNC)):
            held = p_KNC[j] > 0
            total += (p_KNC[j][held] * np.log(p_KNC[j][held] / p_KNC[i][held])).sum()
    return total / (len(p_KNC) - 1) / logits_KNC.shape[1]


def test_the_divergence_is_that_of_the_definition_with_gradients_on_both_sides() -> None:
    logits_KNC = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert mutual_divergence(logits_KNC).item() == pytest.approx(divergence(logits_KNC.numpy()))
    logits_KNC.requires_grad_()
    assert torch.autograd.gradcheck(mutual_divergence, logits_KNC)


def reference_loss(model: NestedCollaboration, fill: float) -> float:
    """Return the loss by the definition for N = 2 of 3 classes, image by image."""
    with torch.no_grad():
        raw_KNC = torch.stack([expert(batch().images_NCHW) for expert in model.experts]).double().numpy()
    balanced_KNC = raw_KNC + np.log(COUNTS.numpy())
    nested_KNC, labels_N = balanced_KNC.copy(), batch().labels_N.numpy()
    for n, label in enumerate(labels_N):
        easiest = min((c for c in range(3) if c != label), key=lambda c: raw_KNC[0, n, c])
        nested_KNC[:, n, easiest] = fill

    def cross_entropy(logits_KNC: np.ndarray) -> float:
        own_KN = logits_KNC[:, range(10), labels_N]
        return float((np.log(np.exp(logits_KNC).sum(axis=2)) - own_KN).mean(axis=1).sum())

    return (
        cross_entropy(balanced_KNC)
        + 0.5 * cross_entropy(nested_KNC)
        + 0.7 * divergence(balanced_KNC)
        + 0.3 * divergence(nested_KNC)
    )


@pytest.mark.parametrize(("hcm_fill", "fill"), [("zero", 0.0), ("minus_infinity", -np.inf)])
def test_the_loss_is_that_of_the_definition(hcm_fill: str, fill: float) -> None:
    weights = {"hcm_weight": 0.5, "distillation": 0.7, "hcm_distillation": 0.3}
    model = objective(hcm_fill=hcm_fill, **weights)
    loss = model.loss(batch(), COUNTS)
    assert loss.item() == pytest.approx(reference_loss(model, fill), rel=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("hcm_fill", ["zero", "minus_infinity"])
def test_where_all_classes_are_hard_both_parts_are_the_same(hcm_fill: str) -> None:
    alone = {"distillation": 0.0, "hcm_distillation": 0.0}
    once = objective(hcm_share=1.0, hcm_fill=hcm_fill, hcm_weight=0.0, **alone).loss(batch(), COUNTS)
    twice = objective(hcm_share=1.0, hcm_fill=hcm_fill, hcm_weight=1.0, **alone).loss(batch(), COUNTS)
    torch.testing.assert_close(twice, 2 * once)


def test_without_collaboration_the_experts_learn_balanced_softmax_each_for_itself() -> None:
    model = objective(hcm_weight=0.0, distillation=0.0, hcm_distillation=0.0)
    losses = [
        balanced_softmax(expert(batch().images_NCHW), batch().labels_N, COUNTS) for expert in model.experts
    ]
    torch.testing.assert_close(model.loss(batch(), COUNTS), sum(losses))


def test_the_mean_of_the_raw_logits_predicts_and_no_expert_is_another() -> None:
    model, images = objective(), batch().images_NCHW
    logits_KNC = [expert(images) for expert in model.experts]
    assert len(logits_KNC) == 3
    torch.testing.assert_close(model(images), sum(logits_KNC) / 3)
    assert not torch.allclose(logits_KNC[0], logits_KNC[1]) and not torch.allclose(logits_KNC[1], logits_KNC[2])
    assert model.validation_loss(model(images), batch().labels_N, COUNTS).item() == pytest.approx(
        F.cross_entropy(model(images) + COUNTS.log(), batch().labels_N).item()
    )


def test_the_number_of_experts_is_the_number_of_passes() -> None:
    from rlcas.methods import METHODS

    config = tiny_config(method={"ncl": {"experts": 5}})
    assert METHODS["ncl"].passes(config) == len(objective(experts=5).experts) == 5
