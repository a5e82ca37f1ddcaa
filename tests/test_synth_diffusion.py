from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from rlcas.config import DenoiserConfig
from synth.ldm import diffusion
from synth.training.ema import Ema


def test_the_schedules_are_the_published_ones() -> None:
    linear = diffusion.noise_schedule(DenoiserConfig(schedule="linear"))
    np.testing.assert_allclose(linear, np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000)), rtol=1e-4)
    scaled = diffusion.noise_schedule(DenoiserConfig(schedule="scaled_linear"))
    betas = np.linspace(math.sqrt(8.5e-4), math.sqrt(1.2e-2), 1000) ** 2
    np.testing.assert_allclose(scaled, np.cumprod(1 - betas), rtol=1e-4)
    cosine = diffusion.noise_schedule(DenoiserConfig(schedule="squaredcos_cap_v2"))
    angle = np.cos((np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine[:990], angle[:990] / math.cos(0.008 / 1.008 * np.pi / 2) ** 2, rtol=1e-3)


def test_noise_and_targets_are_the_papers_by_hand() -> None:
    z0, noise, abar = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 2.0), torch.tensor([0.36])
    assert diffusion.noised(z0, noise, abar).item() == pytest.approx(0.6 * 3 + 0.8 * 2)
    assert diffusion.target_of("epsilon", z0, noise, abar).item() == 2.0
    assert diffusion.target_of("v_prediction", z0, noise, abar).item() == pytest.approx(0.6 * 2 - 0.8 * 3)


def test_min_snr_weights_are_the_published_ones() -> None:
    abar = torch.tensor([0.9, 0.5, 0.1])  # snr 9, 1, 1/9
    epsilon = diffusion.min_snr_weight("epsilon", abar, 5.0)
    torch.testing.assert_close(epsilon, torch.tensor([5 / 9, 1.0, 1.0]))
    v = diffusion.min_snr_weight("v_prediction", abar, 5.0)
    torch.testing.assert_close(v, torch.tensor([5 / 10, 1 / 2, (1 / 9) / (1 / 9 + 1)]))
    assert diffusion.min_snr_weight("epsilon", abar, None).tolist() == [1, 1, 1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_weights_are_finite_and_at_most_one_on_every_schedule(prediction: str, schedule: str) -> None:
    abar = diffusion.noise_schedule(DenoiserConfig(schedule=schedule))
    weights = diffusion.min_snr_weight(prediction, abar, 5.0)
    assert weights.isfinite().all() and weights.min() >= 0 and weights.max() <= 1


def test_both_losses_are_per_sample_means_times_their_weights() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 0.5, 2.0])
    expected = [w * ((x - y) ** 2).mean().item() for w, x, y in zip(weights, a, b, strict=True)]
    np.testing.assert_allclose(diffusion.denoising_loss(a, b, weights), expected, rtol=1e-5)
    abar = torch.tensor([0.81, 0.25, 0.0])
    expected = [f * (x - y).abs().mean().item() for f, x, y in zip((0.9, 0.5, 0.0), a, b, strict=True)]
    np.testing.assert_allclose(diffusion.sketch_loss(a, b, abar), expected, rtol=1e-5)


@pytest.mark.parametrize("name", diffusion.SOLVERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_every_solver_ends_at_the_latent_of_a_perfect_denoiser(name: str, prediction: str) -> None:
    config = DenoiserConfig(prediction=prediction, schedule="linear")
    sampler = diffusion.SOLVERS[name](config)
    sampler.set_timesteps(10)
    abar = diffusion.noise_schedule(config)
    z0, latent = (
        torch.full((1, 1, 2, 2), 0.7),
        torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0)),
    )
    for timestep in sampler.timesteps:
        a = abar[timestep]
        noise = (latent - a.sqrt() * z0) / (1 - a).sqrt()
        said = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * z0
        latent = sampler.step(said, timestep, latent).prev_sample
    torch.testing.assert_close(latent, z0, atol=0.02, rtol=0)


def test_the_averages_of_weights_follow_their_closed_form() -> None:
    """Moves are after steps 1 and 9; decays by hand: min(0.5^8, 2/11) is 0.00390625, min(0.9^8, 2/11) is 2/11."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    ema = Ema(module, (0.5, 0.9))
    for step, value in enumerate([5.0] + [9.0] * 7 + [-2.0] + [9.0] * 7):
        nn.init.constant_(module.weight, value)
        ema.update(module, step + 1)
    ema.copy_to(module, 0.5)
    assert module.weight.item() == pytest.approx(0.00390625**2 * 1 + 0.99609375 * (0.00390625 * 5 - 2))
    ema.copy_to(module, 0.9)
    second = 3 / 12  # (1 + 2)/(10 + 2) is less than 0.9^8
    first = 2 / 11 * 1 + 9 / 11 * 5
    assert module.weight.item() == pytest.approx(second * first + (1 - second) * -2)


def test_the_class_balancing_loss_is_the_published_one_with_a_gradient_for_each_label() -> None:
    own, other = (torch.randn(3, 2, 4, 4, requires_grad=True) for _ in range(2))
    share = torch.tensor([0.0, 0.5, 1.0])
    loss = diffusion.balancing_loss(own, other, share)
    squares = ((own - other) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(loss, share * 1.25 * squares)
    loss.sum().backward()
    gap = 2 * (own - other).detach() * share[:, None, None, None] / 32
    torch.testing.assert_close(own.grad, gap)
    torch.testing.assert_close(other.grad, -0.25 * gap)
