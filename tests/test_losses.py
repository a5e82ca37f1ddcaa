import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rlcas.losses import LOSSES, class_balanced_focal

COUNTS = torch.tensor([2351, 400, 49])


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20, 3, generator=generator), torch.randint(3, (20,), generator=generator)


def test_balanced_softmax_is_minus_the_log_of_the_count_weighted_softmax(batch):
    logits, labels = batch
    weighted = COUNTS * logits.double().exp()
    expected = -(weighted[range(20), labels] / weighted.sum(1)).log().mean()
    torch.testing.assert_close(LOSSES["balanced_softmax"](logits, labels, COUNTS).double(), expected)


def test_logit_adjustment_equals_balanced_softmax(batch):
    adjusted, balanced = (LOSSES[name](*batch, COUNTS) for name in ("logit_adjust", "balanced_softmax"))
    torch.testing.assert_close(adjusted, balanced)


def test_equal_counts_make_balanced_softmax_the_cross_entropy(batch):
    equal = torch.full((3,), 7)
    torch.testing.assert_close(LOSSES["balanced_softmax"](*batch, equal), LOSSES["ce"](*batch, equal))


def test_cross_entropy_of_two_known_logits():
    loss = LOSSES["ce"](torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([0]), torch.tensor([1, 1]))
    assert loss.item() == pytest.approx(np.log(4.0), rel=1e-6)


def test_class_balanced_focal_follows_the_definition_image_by_image(batch):
    logits, labels = batch
    weights = [(1 - 0.9999) / (1 - 0.9999 ** int(n)) for n in COUNTS]
    weights = [3 * w / sum(weights) for w in weights]
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        for c, z in enumerate(row.tolist()):
            p_true = 1 / (1 + np.exp(-z if c == label else z))
            total -= weights[label] * (1 - p_true) * np.log(p_true)
    assert LOSSES["cb_focal"](logits, labels, COUNTS).item() == pytest.approx(total / 20, rel=1e-5)


def test_focal_without_modulation_is_the_weighted_binary_cross_entropy(batch):
    logits, labels = batch
    equal = torch.full((3,), 50)
    expected = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 3).float(), reduction="sum") / 20
    torch.testing.assert_close(class_balanced_focal(logits, labels, equal, gamma=0.0), expected)


@pytest.mark.parametrize(("label", "weight"), [(0, 1.413), (1, 0.587)])
def test_class_balanced_weights_of_breastmnist_at_beta_0_999(label, weight):
    # Logits of 0 and gamma 0 leave weight x C x ln 2.
    counts, labels = torch.tensor([147, 399]), torch.tensor([label])
    loss = class_balanced_focal(torch.zeros(1, 2), labels, counts, beta=0.999, gamma=0.0)
    assert loss.item() / (2 * np.log(2)) == pytest.approx(weight, abs=5e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_finite_with_a_finite_gradient_at_large_logits(name):
    logits = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 0.0]], requires_grad=True)
    loss = LOSSES[name](logits, torch.tensor([1, 1]), COUNTS)
    loss.backward()
    assert loss.shape == () and loss.isfinite() and logits.grad.isfinite().all()
