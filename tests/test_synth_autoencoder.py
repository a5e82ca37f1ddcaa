from __future__ import annotations

import json
import shutil
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
from rlcas.seeding import seed_for
from rlcas.types import ImageSet
from synth.ldm.autoencoder import (
    AutoencoderObjective,
    build_autoencoder,
    factor_of,
    load_autoencoder,
    pad_to_multiple,
    vae_input,
)
from synth.ldm.latents import augmentations, augmented, build_cache, normalised, posterior, set_latent_scale
from synth.sketch import SKETCHES
from synth.training.workers import ALONE, Workers

CPU = torch.device("cpu")


def tiny_vae(channels: int = 1, **settings: object) -> AutoencoderKL:
    config = AutoencoderConfig(**{"factor": 2, "channels": (8, 8), **settings})
    torch.manual_seed(0)
    return build_autoencoder(config, (channels, 20, 20)).eval()


@pytest.mark.parametrize(
    ("side_px", "factor"), [(16, 2), (28, 2), (48, 2), (49, 4), (128, 4), (129, 8), (256, 8)]
)
def test_the_factor_depends_on_the_size_of_the_images(side_px: int, factor: int) -> None:
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


def test_the_input_of_the_vae_is_in_minus_one_to_one_with_its_number_of_channels() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 16, 16)
    batch = vae_input(images, tiny_vae(channels=3))
    assert batch.shape == (3, 3, 16, 16)
    np.testing.assert_allclose(batch[:, 2, 3, 5], [-1, 1, -0.6], atol=1e-6)


def test_a_step_is_the_published_objective_and_half_of_the_images_are_mirrored() -> None:
    vae, images = tiny_vae(), squares(16)
    config = AutoencoderConfig(factor=2, channels=(8, 8), batch_size=4, kl_weight=0.5)
    objective = AutoencoderObjective(vae, images, config, seed=3, device=CPU, workers=ALONE)
    losses = objective.losses(objective.module, 7)
    generator = torch.Generator().manual_seed(seed_for(3, "autoencoder", 7))
    batch = torch.from_numpy(images)[torch.randint(16, (4,), generator=generator)]
    batch[2:] = batch[2:].flip(3)
    pixels = vae_input(batch, vae)
    mean, log_variance = vae._encode(pixels).chunk(2, dim=1)
    noise = torch.randn(mean.shape, generator=generator)
    decoded = vae.decode(mean + (log_variance / 2).exp() * noise).sample
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum() / pixels.numel()
    assert losses["l1"].item() == pytest.approx((decoded - pixels).abs().mean().item(), rel=1e-5)
    assert losses["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert losses["total"].item() == pytest.approx(losses["l1"].item() + 0.5 * kl.item(), rel=1e-5)


def test_two_workers_see_the_two_halves_of_the_batch_of_one() -> None:
    config = AutoencoderConfig(factor=2, channels=(8, 8), batch_size=4)

    def losses(rank: int, size: int) -> dict[str, torch.Tensor]:
        workers = Workers(rank=rank, size=size)
        objective = AutoencoderObjective(tiny_vae(), squares(16), config, seed=0, device=CPU, workers=workers)
        return objective.losses(objective.module, 0)

    alone, first, second = losses(0, 1), losses(0, 2), losses(1, 2)
    for name in ("l1", "kl"):
        mean = (first[name] + second[name]).item() / 2
        assert alone[name].item() == pytest.approx(mean, rel=1e-5)
        assert first[name].item() != pytest.approx(second[name].item(), rel=1e-3)
    with pytest.raises(UserError, match=r"synth\.autoencoder\.batch_size 4 cannot be shared by 3 workers"):
        losses(0, 3)


def test_a_pretrained_autoencoder_is_loaded_from_its_folder(tmp_path: Path) -> None:
    vae = tiny_vae(channels=3)
    vae.save_pretrained(tmp_path / "vae")
    loaded = load_autoencoder(str(tmp_path / "vae"), image_channels=1)
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), loaded.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_pretrained_autoencoder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    tiny_vae(channels=1).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"takes 1 channels, but the images have 3: set dataset\.channels to 1"):
        load_autoencoder(str(tmp_path / "vae"), image_channels=3)
    shutil.copytree(tmp_path / "vae", tmp_path / "other widths")
    config = tmp_path / "vae" / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    (tmp_path / "other widths" / "config.json").write_text(json.dumps(settings | {"latent_channels": 8}))
    config.write_text("{", encoding="utf-8")
    for folder in ("vae", "none", "other widths"):
        with pytest.raises(
            UserError,
            match=r"^synth\.autoencoder\.pretrained .* cannot be loaded \(.+\): name a folder or hub name of a diff",
        ):
            load_autoencoder(str(tmp_path / folder), image_channels=1)


@pytest.mark.parametrize("channels", [(8,), (8, 12), (8, 8, 8)])
def test_widths_that_do_not_fit_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"channels .* does not fit factor 2: give 2 multiples of 8"):
        build_autoencoder(AutoencoderConfig(factor=2, channels=channels), (1, 20, 20))


def test_cached_moments_are_those_of_a_fresh_encoding_and_mirrored_copies_come_last() -> None:
    vae, images = tiny_vae(), tiny_data().train
    cache = build_cache(images, vae, SKETCHES["scharr"](), CPU, flip=True)
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


def test_moved_copies_are_drawn_from_the_seed_and_described_by_a_vector() -> None:
    rows = augmentations(4, flip=True, moved_copies=2, seed=5)
    assert rows.shape == (16, 5) and not rows[:4].any()
    assert rows[4:8].tolist() == [[1, 0, 0, 0, 0]] * 4
    assert rows[8:, 1:].abs().max() < 1 and set(rows[8:, 0].tolist()) == {0.0, 1.0}
    assert not torch.equal(rows[8:12], rows[12:])
    assert torch.equal(rows, augmentations(4, flip=True, moved_copies=2, seed=5))
    assert not torch.equal(rows, augmentations(4, flip=True, moved_copies=2, seed=6))


def test_an_image_is_mirrored_and_moved_by_its_row() -> None:
    image = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    image[..., 4:8, 4:8] = 200
    images = image.expand(3, 1, 20, 20)
    right = torch.tensor([[0.0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    kept, mirrored, moved = augmented(images, right)
    assert torch.equal(kept, image[0]) and torch.equal(mirrored, image[0].flip(2))
    assert torch.equal(moved, image[0].roll(1, dims=2))  # 0.05 of 20 pixels


def test_normalised_latents_have_mean_zero_and_deviation_one() -> None:
    vae = tiny_vae()
    cache = build_cache(tiny_data().train, vae, SKETCHES["scharr"](), CPU)
    set_latent_scale(vae, cache)
    indices = torch.arange(12).repeat(50)
    noise = torch.randn((600, *cache.means_MChw.shape[1:]), generator=torch.Generator().manual_seed(0))
    latents = normalised(cache.draw(indices, noise), vae)
    assert latents.mean().item() == pytest.approx(0, abs=0.01)
    assert latents.std().item() == pytest.approx(1, abs=0.01)


def test_latents_that_are_not_finite_are_refused() -> None:
    vae = tiny_vae()
    torch.nn.init.constant_(vae.quant_conv.bias, float("nan"))
    images = ImageSet(images_NCHW=squares(2), labels_N=np.array([0, 1]))
    with pytest.raises(UserError, match=r"latents that are not finite: lower synth\.autoencoder\.lr"):
        build_cache(images, vae, SKETCHES["scharr"](), CPU)
