"""ProCo against scipy's Bessel functions, quadrature and its own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import gammaln, ive
from tiny import tiny_config, tiny_data

from rlcas.batches.batch_maker import MiniBatch
from rlcas.classifiers.meta import ClassifierMeta
from rlcas.losses import balanced_softmax
from rlcas.methods.proco import ProbabilisticContrast, contrastive_logits
from rlcas.methods.von_mises_fisher import MAX_KAPPA, ClassDirections, log_scaled_bessel

COUNTS = torch.tensor([20, 14, 7])
KAPPAS = np.geomspace(0.1, 1e4, 200)
DIM = 32


def exact(kappa: np.ndarray, order: float) -> np.ndarray:
    """Return log I_v(κ) - v log κ."""
    return np.log(ive(order, kappa)) + kappa - order * np.log(kappa)


@pytest.mark.parametrize(("order", "error"), [(63.0, 1e-7), (31.0, 1e-6), (7.0, 1e-4)])
def test_the_bessel_function_is_scipys(order: float, error: float) -> None:
    kappa = KAPPAS[order / 10 < KAPPAS]  # scipy's underflows below
    found = log_scaled_bessel(torch.from_numpy(kappa) ** 2, order).numpy()
    np.testing.assert_allclose(found, exact(kappa, order), rtol=0, atol=error)


def test_at_0_the_bessel_function_has_its_limit() -> None:
    found = log_scaled_bessel(torch.zeros((), dtype=torch.float64), 63.0).item()
    assert found == pytest.approx(-63 * math.log(2) - gammaln(64), abs=1e-7)


def test_its_derivative_is_the_ratio_of_neighbouring_bessel_functions() -> None:
    kappa = torch.from_numpy(KAPPAS[KAPPAS > 7]).requires_grad_()
    (slope,) = torch.autograd.grad(log_scaled_bessel(kappa**2, 63.0).sum(), kappa)
    expected = ive(64, kappa.detach().numpy()) / ive(63, kappa.detach().numpy())
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-7)
    assert slope.min() > 0 and slope.max() < 1


def test_its_gradient_is_that_of_finite_differences() -> None:
    squared = torch.tensor([1e-3, 1.0, 400.0, 1e6], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: log_scaled_bessel(x, 63.0), squared)


@pytest.mark.parametrize("kappa", [3.0, 80.0, 600.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_contrastive_logit_is_the_log_of_the_expected_similarity(kappa: float, side: float) -> None:
    """At z = ±μ the expectation is over t = μᵀz', whose density is ∝ (1 - t²)^((p-3)/2) exp(κ t)."""
    t, tau = np.linspace(-1, 1, 200_001)[1:-1], 0.1
    log_density = 0.5 * (DIM - 3) * np.log1p(-(t**2)) + kappa * t
    expected = np.logaddexp.reduce(log_density + side * t / tau) - np.logaddexp.reduce(log_density)
    mean = torch.eye(DIM, dtype=torch.float64)[:1]
    found = contrastive_logits(side * mean.float(), kappa * mean, tau)
    assert found.item() == pytest.approx(expected, abs=2e-5)


def test_contrastive_logits_are_the_same_under_autocast_and_finite_without_bounds_on_kappa() -> None:
    generator = torch.Generator().manual_seed(0)
    z_NP = torch.nn.functional.normalize(torch.randn(6, DIM, generator=generator), dim=1).requires_grad_()
    scaled_means_CP = MAX_KAPPA * torch.nn.functional.normalize(
        torch.randn(3, DIM, generator=generator).double()
    )
    plain = contrastive_logits(z_NP, scaled_means_CP, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_logits(z_NP, scaled_means_CP, 0.1), plain)
    plain.sum().backward()
    assert plain.isfinite().all() and z_NP.grad is not None and z_NP.grad.isfinite().all()


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z_NP = torch.nn.functional.normalize(torch.randn(40, DIM, generator=generator), dim=1)
    return z_NP, torch.arange(40) % 3


def test_after_one_pass_in_any_batches_the_mean_is_the_mean_of_the_images(features) -> None:
    z_NP, labels_N = features
    directions = ClassDirections(4, DIM)
    before = directions.mean_CP.clone()
    for batch in torch.arange(40).split([1, 16, 16, 7]):
        directions.update(z_NP[batch], labels_N[batch])
    for c in range(3):
        torch.testing.assert_close(directions.mean_CP[c], z_NP[labels_N == c].double().mean(0))
    assert torch.equal(directions.mean_CP[3], before[3])
    assert directions.count_C.tolist() == [14, 13, 13, 0]


def test_concentrations_follow_the_length_of_the_mean() -> None:
    directions = ClassDirections(3, DIM)
    unseen = directions.scaled_means().norm(dim=1)
    torch.testing.assert_close(unseen, torch.full((3,), DIM * 90 / 19, dtype=torch.float64))
    e = torch.eye(DIM)
    directions.update(torch.stack([e[0], e[0], e[1]]), torch.tensor([0, 1, 1]))
    alone, two, _ = directions.scaled_means()
    torch.testing.assert_close(alone, MAX_KAPPA * e[0].double())
    expected = DIM * math.sqrt(0.5) / (1 - 0.5) * (e[0] + e[1]).double() / math.sqrt(2)
    torch.testing.assert_close(two, expected)


def objective(**proco: object) -> ProbabilisticContrast:
    torch.manual_seed(0)
    config = tiny_config(
        method={"proco": {"projection_dim": DIM, **proco}}, classifier={"method": "proco", "precision": "fp32"}
    )
    return ProbabilisticContrast(ClassifierMeta.of(tiny_data(), config)).eval()


def batch(num_images: int = 10) -> MiniBatch:
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(num_images, 1, 16, 16, generator=generator) for _ in range(3))
    return MiniBatch(views=views, labels_N=torch.arange(num_images) % 3)


def reference_loss(model: ProbabilisticContrast, alpha: float, tau: float) -> float:
    """Return the loss by the definition, class by class, for a batch that no class is missing from."""
    log_prior = (COUNTS / COUNTS.sum()).log().double()
    labels_N = batch().labels_N
    with torch.no_grad():
        loss = balanced_softmax(model(batch().views[0]), labels_N, COUNTS).item()
        seen: list[torch.Tensor] = []
        for view in batch().views[1:]:
            z_NP = model.projection(model.backbone(view)).double()
            z_NP = z_NP / z_NP.norm(dim=1, keepdim=True)
            seen.append(z_NP)
            logits = torch.empty(10, 3, dtype=torch.float64)
            for c in range(3):
                mean = torch.cat([z[labels_N == c] for z in seen]).mean(0)
                kappa = DIM * mean.norm() / (1 - mean.norm() ** 2)
                moved = (kappa * mean / mean.norm() + z_NP / tau).norm(dim=1)
                order = DIM / 2 - 1
                logits[:, c] = torch.from_numpy(exact(moved.numpy(), order) - exact(kappa.numpy(), order))
            contrast = torch.nn.functional.cross_entropy(logits + log_prior, labels_N)
            loss += alpha / 2 * contrast.item()
    return loss


@pytest.mark.parametrize(("alpha", "tau"), [(1.0, 0.1), (0.5, 0.2), (0.0, 0.1)])
def test_the_loss_is_that_of_the_definition(alpha: float, tau: float) -> None:
    model = objective(alpha=alpha, temperature=tau)
    assert model.loss(batch(), COUNTS).item() == pytest.approx(reference_loss(model, alpha, tau), rel=1e-5)


def test_an_epoch_continues_the_last_ones_estimate_and_starts_a_new_one() -> None:
    model = objective()
    model.start_epoch(0, 3)
    model.loss(batch(), COUNTS)
    estimated = model.next_directions.mean_CP.clone()
    assert model.directions.count_C.tolist() == model.next_directions.count_C.tolist() == [8, 6, 6]
    model.start_epoch(1, 3)
    assert torch.equal(model.directions.mean_CP, estimated)
    assert model.directions.count_C.tolist() == [8, 6, 6]
    assert model.next_directions.count_C.tolist() == [0, 0, 0]
    torch.testing.assert_close(model.next_directions.mean_CP.norm(dim=1), torch.full((3,), 0.9).double())
    model.loss(batch(), COUNTS)
    assert model.directions.count_C.tolist() == [16, 12, 12]


def test_no_gradient_flows_into_the_densities_but_all_that_is_trained_has_one() -> None:
    model = objective().train()
    model.loss(batch(), COUNTS).backward()
    assert not model.directions.mean_CP.requires_grad
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_linear_layer_alone_predicts() -> None:
    model, images = objective(), batch().views[0]
    torch.testing.assert_close(model(images), model.fc(model.backbone(images)))
    before = model(images)
    for parameter in model.projection.parameters():
        torch.nn.init.normal_(parameter)
    model.start_epoch(1, 3)
    assert torch.equal(model(images), before)


def test_a_batch_of_one_image_has_a_loss_in_training() -> None:
    assert objective().train().loss(batch(1), COUNTS).isfinite()
