from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st
from tiny_synth import squares, tiny_data

from rlcas.config import AutoencoderConfig
from rlcas.errors import UserError
from rlcas.types import ImageSet
from synth.autoencoder import (
    build_autoencoder,
    factor_of,
    load_autoencoder,
    num_steps,
    pad_to_multiple,
    train_autoencoder,
    vae_input,
)
from synth.latents import build_cache, normalised, posterior, set_latent_scale
from synth.progress import Reporter
from synth.rng import isolated_rng
from synth.sketch import SKETCHES

CPU = torch.device("cpu")


def tiny_vae(channels: int = 1, **settings: object) -> AutoencoderKL:
    config = AutoencoderConfig(**{"factor": 2, "channels": (8, 8), **settings})
    with isolated_rng(0, CPU):
        return build_autoencoder(config, (channels, 20, 20)).eval()


@pytest.mark.parametrize(
    ("side_px", "factor"), [(16, 2), (28, 2), (48, 2), (49, 4), (128, 4), (129, 8), (256, 8)]
)
def test_the_factor_goes_by_the_size_of_the_images(side_px: int, factor: int) -> None:
    vae = build_autoencoder(AutoencoderConfig(), (1, side_px, side_px))
    assert factor_of(vae) == factor
    assert vae.config.in_channels == vae.config.out_channels == 1


@given(side=st.integers(16, 70), multiple=st.sampled_from([16, 32, 64]))
def test_padding_mirrors_the_borders_and_keeps_the_image_in_the_middle(side: int, multiple: int) -> None:
    image = torch.arange(side * 16).view(1, 1, side, 16)
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[2] % multiple == 0 and padded.shape[2] - side < multiple
    top, left = (padded.shape[2] - side) // 2, (padded.shape[3] - 16) // 2
    assert torch.equal(padded[:, :, top : top + side, left : left + 16], image)
    assert set(padded.unique().tolist()) == set(image.unique().tolist())
    if top:
        assert torch.equal(padded[:, :, top - 1], padded[:, :, top + 1])


def test_the_vae_is_given_pixels_from_minus_one_to_one_in_its_own_channels() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    batch = vae_input(images, tiny_vae(channels=3))
    assert batch.shape == (3, 3, 16, 16)
    np.testing.assert_allclose(batch[:, 2, 3, 5], [-1, 1, -0.6], atol=1e-6)


def test_training_lowers_the_reconstruction_error_and_gives_the_same_weights_again() -> None:
    losses = []
    config = AutoencoderConfig(factor=2, channels=(8, 8), lr=3e-3, max_steps=30, batch_size=4)
    weights = []
    for _ in range(2):
        vae, seen = tiny_vae(), []
        reporter = Reporter(progress=False, on_step=lambda *step, seen=seen: seen.append(step))
        with isolated_rng(0, CPU):
            train_autoencoder(vae, squares(16), config, seed=0, device=CPU, reporter=reporter)
        losses.append([figures["l1"] for _, _, _, figures in seen])
        weights.append(torch.cat([p.flatten() for p in vae.parameters()]))
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert seen[-1][:3] == ("autoencoder", 30, 30)
    assert losses[0] == losses[1] and torch.equal(*weights)


def test_a_pretrained_autoencoder_is_loaded_from_its_folder(tmp_path: Path) -> None:
    vae = tiny_vae(channels=3)
    vae.save_pretrained(tmp_path / "vae")
    loaded = load_autoencoder(str(tmp_path / "vae"), image_channels=1)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), loaded.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_pretrained_autoencoder_that_does_not_fit_is_told(tmp_path: Path) -> None:
    tiny_vae(channels=1).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"takes 1 channels, but the images have 3: set dataset\.channels to 1"):
        load_autoencoder(str(tmp_path / "vae"), image_channels=3)
    (tmp_path / "vae" / "config.json").write_text("{", encoding="utf-8")
    for folder in ("vae", "none"):
        with pytest.raises(
            UserError,
            match=r"^synth\.autoencoder\.pretrained .* cannot be loaded \(.+\): name a folder or hub name of a diff",
        ):
            load_autoencoder(str(tmp_path / folder), image_channels=1)


@pytest.mark.parametrize("channels", [(8,), (8, 12), (8, 8, 8)])
def test_widths_that_do_not_fit_are_told(channels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"channels .* does not fit factor 2: give 2 multiples of 8"):
        build_autoencoder(AutoencoderConfig(factor=2, channels=channels), (1, 20, 20))


def test_a_loss_that_is_not_finite_is_told_by_its_name() -> None:
    config = AutoencoderConfig(factor=2, channels=(8, 8), max_steps=2, lr=1e30)
    with pytest.raises(UserError, match=r"autoencoder, step 2: l1 is nan: lower synth\.autoencoder\.lr 1e\+30"):
        train_autoencoder(tiny_vae(), squares(4), config, seed=0, device=CPU, reporter=Reporter(progress=False))


def test_steps_are_passes_over_the_images_unless_they_are_cut() -> None:
    assert num_steps(546, 200, 32, None) == 3413
    assert num_steps(546, 200, 32, 100) == 100
    assert num_steps(10, 1, 32, 100) == 1


def test_cached_moments_are_those_of_a_fresh_encoding_and_mirrored_copies_come_last() -> None:
    vae, images = tiny_vae(), tiny_data().train
    cache = build_cache(images, vae, SKETCHES["scharr"](), flip=True, device=CPU)
    assert len(cache) == 24 and cache.labels_M.tolist() == images.labels_N.tolist() * 2
    pixels = torch.from_numpy(images.images_NCHW)
    for first, fresh in ((0, pixels), (12, pixels.flip(3))):
        mean, std = posterior(fresh, vae)
        torch.testing.assert_close(cache.means_MChw[first : first + 12], mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cache.stds_MChw[first : first + 12], std, rtol=1e-4, atol=1e-5)
        sketches = SKETCHES["scharr"]()(fresh)
        torch.testing.assert_close(
            cache.sketches(torch.arange(first, first + 12)), sketches, atol=0.5 / 255 + 1e-6, rtol=0
        )


def test_normalised_latents_have_mean_zero_and_deviation_one() -> None:
    vae = tiny_vae()
    cache = build_cache(tiny_data().train, vae, SKETCHES["scharr"](), flip=False, device=CPU)
    set_latent_scale(vae, cache)
    indices = torch.arange(12).repeat(50)
    noise = torch.randn((600, *cache.means_MChw.shape[1:]), generator=torch.Generator().manual_seed(0))
    latents = normalised(cache.sample(indices, noise), vae)
    assert latents.mean().item() == pytest.approx(0, abs=0.01)
    assert latents.std().item() == pytest.approx(1, abs=0.01)


def test_latents_that_are_not_finite_are_told() -> None:
    vae = tiny_vae()
    torch.nn.init.constant_(vae.quant_conv.bias, float("nan"))
    images = ImageSet(images_NCHW=squares(2), labels_N=np.array([0, 1]))
    with pytest.raises(UserError, match=r"latents that are not finite: lower synth\.autoencoder\.lr"):
        build_cache(images, vae, SKETCHES["scharr"](), flip=False, device=CPU)
