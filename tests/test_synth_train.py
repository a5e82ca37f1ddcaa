from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DModel
from safetensors.torch import load_file
from tiny_synth import tiny_config, tiny_data
from torch import nn

from rlcas.config import RunConfig
from rlcas.data import load
from rlcas.errors import UserError
from rlcas.types import ImageSet, TrainingData
from synth.ldm import diffusion
from synth.ldm.autoencoder import build_autoencoder
from synth.ldm.held_out import HeldOutEvaluation
from synth.ldm.latents import LatentCache, build_cache, normalised, set_latent_scale
from synth.ldm.objective import (
    DenoiserObjective,
    LatentBatch,
    cropped_like,
    cumulative_probabilities,
    drawn_items,
)
from synth.ldm.pipeline import ClassConditionalLDMPipeline
from synth.ldm.train import choose_average, denoiser_schedule, train_synthesiser
from synth.sketch import SKETCHES, SketchExtractor, sketch_extractor
from synth.training.ema import Ema
from synth.training.loop import Training
from synth.training.workers import ALONE, Workers

CPU = torch.device("cpu")


def train(folder: Path, config: RunConfig, data: TrainingData | None = None) -> dict[str, float]:
    return train_synthesiser(data or tiny_data(), config, folder, device=CPU, progress=False)


@dataclass(frozen=True)
class Made:
    vae: AutoencoderKL
    cache: LatentCache
    objective: DenoiserObjective


def objective_of(config: RunConfig, data: TrainingData, workers: Workers = ALONE, **cached: int) -> Made:
    torch.manual_seed(0)
    vae = build_autoencoder(config.synth.autoencoder, data.image_shape_CHW).eval().requires_grad_(False)
    cache = build_cache(data.train, vae, SKETCHES["scharr"](), CPU, **cached)
    set_latent_scale(vae, cache)
    objective = DenoiserObjective(cache, vae, config.synth.denoiser, num_classes=2, seed=0, workers=workers)
    return Made(vae, cache, objective)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    train(folder, tiny_config())
    return folder


def test_training_leaves_a_pipeline_and_its_figures(trained: Path) -> None:
    figures = json.loads((trained / "synthesiser.json").read_text())
    assert {"loss", "sketch_loss", "sketch_skill", "autoencoder_l1", "denoiser_seconds"} <= set(figures)
    assert figures["denoiser_steps"] == 3 and all(np.isfinite(value) for value in figures.values())
    assert not list(trained.glob(".*"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    train(tmp_path / "again", tiny_config())
    assert torch.equal(torch.random.get_rng_state(), before)
    train(tmp_path / "other", tiny_config().model_copy(update={"seed": 1}))
    first, again, other = (
        load_file(folder / "pipeline/unet/diffusion_pytorch_model.safetensors")
        for folder in (trained, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("side_px", "channels"), [(16, 3), (28, 1), (33, 1)])
def test_images_of_any_side_and_channels_come_out_as_they_went_in(
    tmp_path: Path, side_px: int, channels: int
) -> None:
    train(tmp_path, tiny_config(), tiny_data(side_px=side_px, channels=channels))
    pipeline = ClassConditionalLDMPipeline.from_pretrained(tmp_path / "pipeline")
    images = pipeline([0, 1, 1], num_inference_steps=2, output_type="pt").images
    assert images.shape == (3, channels, side_px, side_px)
    assert images.min() >= 0 and images.max() <= 1


def test_gray_images_may_use_a_pretrained_autoencoder_of_three_channels(tmp_path: Path) -> None:
    config = tiny_config()
    torch.manual_seed(0)
    vae = build_autoencoder(config.synth.autoencoder, (3, 20, 20))
    vae.save_pretrained(tmp_path / "vae")
    figures = train(tmp_path, tiny_config(autoencoder={"pretrained": str(tmp_path / "vae")}))
    assert "autoencoder_l1" not in figures
    pipeline = ClassConditionalLDMPipeline.from_pretrained(tmp_path / "pipeline")
    assert pipeline.vae.config.scaling_factor != vae.config.scaling_factor
    assert pipeline([0], num_inference_steps=2, output_type="np").images.shape == (1, 20, 20, 1)


def test_the_pipeline_gives_the_same_images_after_saving_and_loading(trained: Path, tmp_path: Path) -> None:
    def sample(folder: Path) -> np.ndarray:
        pipeline = ClassConditionalLDMPipeline.from_pretrained(folder)
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return pipeline(["spiky", 0], generator=generators, num_inference_steps=3, output_type="np").images

    ClassConditionalLDMPipeline.from_pretrained(trained / "pipeline").save_pretrained(tmp_path)
    first = sample(trained / "pipeline")
    np.testing.assert_array_equal(first, sample(tmp_path))
    assert first.std() > 0


def test_diffusers_alone_loads_the_pipeline_by_the_code_beside_it(trained: Path) -> None:
    folder = trained / "pipeline"
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    assert type(pipeline).__module__ != ClassConditionalLDMPipeline.__module__
    assert len(pipeline(["round"], num_inference_steps=2).images) == 1
    assert isinstance(UNet2DModel.from_pretrained(folder / "unet"), UNet2DModel)


def test_guidance_of_one_is_the_conditional_prediction_alone(trained: Path) -> None:
    pipeline = ClassConditionalLDMPipeline.from_pretrained(trained / "pipeline")
    torch.nn.init.constant_(pipeline.unet.class_embedding.weight, 0.3)

    def sample(scale: float) -> np.ndarray:
        return pipeline([1], torch.Generator().manual_seed(0), 2, guidance_scale=scale, output_type="np").images

    np.testing.assert_allclose(sample(1.0), sample(4.0), atol=1e-4)


def test_a_label_the_pipeline_does_not_know_is_refused(trained: Path) -> None:
    pipeline = ClassConditionalLDMPipeline.from_pretrained(trained / "pipeline")
    for label in (2, -1, "flat"):
        with pytest.raises(ValueError, match=r"unknown: use 0 to 1, or one of \['round', 'spiky'\]"):
            pipeline([label])


def test_without_a_sketch_weight_there_is_no_branch_and_no_skill(tmp_path: Path) -> None:
    figures = train(tmp_path, tiny_config(denoiser={"sketch_weight": 0.0}))
    assert "sketch_loss" not in figures and "sketch_skill" not in figures


def test_a_branch_that_says_the_best_constant_has_no_skill_and_one_that_is_worse_has_less() -> None:
    config, data = tiny_config(), tiny_data()
    made = objective_of(config, data)
    cache = build_cache(data.val, made.vae, SKETCHES["scharr"](), CPU)
    held_out = HeldOutEvaluation(cache, made.vae, config.synth.denoiser, seed=0)
    denoiser = made.objective.module.eval()
    last = denoiser.sketch_decoder.to_pixels[-2]
    torch.nn.init.zeros_(last.weight)
    skills = []
    for shift in (0.0, 1.0, -1.0):
        median = cache.sketches(torch.arange(6)).median()
        torch.nn.init.constant_(last.bias, torch.logit(median).item() + shift)
        skills.append(held_out.figures(denoiser)["sketch_skill"])
    assert skills[0] == pytest.approx(0, abs=1e-5)
    assert max(skills[1:]) < -0.01


def test_blank_held_out_images_have_no_skill_to_tell() -> None:
    made = objective_of(tiny_config(), tiny_data())
    blank = ImageSet(images_NCHW=np.full((1, 1, 20, 20), 90, np.uint8), labels_N=np.zeros(1, np.int64))
    cache = build_cache(blank, made.vae, SKETCHES["scharr"](), CPU)
    held_out = HeldOutEvaluation(cache, made.vae, tiny_config().synth.denoiser, seed=0)
    assert set(held_out.figures(made.objective.module.eval())) == {"val_loss"}


def test_the_average_with_the_lower_held_out_loss_is_sampled_from_and_the_other_kept(trained: Path) -> None:
    figures = json.loads((trained / "synthesiser.json").read_text())
    (other,) = {0.999, 0.9999} - {figures["ema_decay"]}
    kept = UNet2DModel.from_pretrained(trained / f"unet-ema-{other:g}")
    chosen = UNet2DModel.from_pretrained(trained / "pipeline" / "unet")
    assert kept.config.num_class_embeds == chosen.config.num_class_embeds == 3

    config, data = tiny_config(), tiny_data()
    made = objective_of(config, data)
    cache = build_cache(data.val, made.vae, SKETCHES["scharr"](), CPU)
    ema = Ema(made.objective.module, (0.5, 0.9))
    ema.averages[0.5]["unet.conv_out.bias"] += 100.0
    best = choose_average(
        made.objective.module, ema, HeldOutEvaluation(cache, made.vae, config.synth.denoiser, seed=0)
    )
    assert best["ema_decay"] == 0.9 and best["val_loss"] < 100


def test_a_training_step_is_the_published_objective() -> None:
    config = tiny_config(denoiser={"dropout": 0.0, "batch_size": 3})
    made = objective_of(config, tiny_data())
    cache, vae, denoiser = made.cache, made.vae, made.objective.module
    items, timesteps, labels = torch.tensor([0, 4, 8]), torch.tensor([0, 500, 990]), torch.tensor([0, 0, 1])
    draws = torch.randn((2, 3, *cache.means_MChw.shape[1:]), generator=torch.Generator().manual_seed(5))
    batch = LatentBatch(
        items_N=items,
        timesteps_N=timesteps,
        labels_N=labels,
        other_labels_N=labels,
        posterior_noise_NChw=draws[0],
        noise_NChw=draws[1],
    )
    losses = made.objective.losses_of(denoiser, batch)
    abar = diffusion.noise_schedule(config.synth.denoiser)[timesteps]
    z0 = (cache.means_MChw[items] + cache.stds_MChw[items] * draws[0] - vae.config.shift_factor) * (
        vae.config.scaling_factor
    )
    a, b = abar.sqrt()[:, None, None, None], (1 - abar).sqrt()[:, None, None, None]
    predicted, sketches = denoiser(a * z0 + b * draws[1], timesteps, labels)
    snr = abar / (1 - abar)
    mse = ((predicted - (a * draws[1] - b * z0)) ** 2).flatten(1).mean(1)
    assert losses["loss"].item() == pytest.approx((mse * snr.clamp(max=5) / (snr + 1)).mean().item(), rel=1e-4)
    truth = cache.sketches_M1HW[items] / 255
    error = (sketches[:, :, 6:26, 6:26] - truth).abs().flatten(1).mean(1)
    assert losses["sketch_loss"].item() == pytest.approx((abar.sqrt() * error).mean().item(), rel=1e-4)
    total = losses["loss"].item() + 0.1 * losses["sketch_loss"].item()
    assert losses["total"].item() == pytest.approx(total, rel=1e-6)


def test_the_balancing_loss_compares_each_image_under_its_label_and_under_another() -> None:
    made = objective_of(
        tiny_config(denoiser={"dropout": 0.0, "cbdm_weight": 2.0, "label_drop": 0.5}), tiny_data()
    )
    nn.init.normal_(made.objective.module.unet.class_embedding.weight)
    batch = made.objective._draw()
    assert 0 < (batch.labels_N == 2).sum() < len(batch.labels_N)
    losses = made.objective.losses_of(made.objective.module, batch)
    abar = diffusion.noise_schedule(tiny_config().synth.denoiser)[batch.timesteps_N]
    latents = normalised(made.cache.draw(batch.items_N, batch.posterior_noise_NChw), made.vae)
    noisy = diffusion.noised(latents, batch.noise_NChw, abar)
    own, other = (
        made.objective.module(noisy, batch.timesteps_N, labels)[0]
        for labels in (batch.labels_N, batch.other_labels_N)
    )
    expected = (diffusion.balancing_loss(own, other, batch.timesteps_N / 1000) * (batch.labels_N < 2)).mean()
    assert expected.item() > 0
    assert losses["cbdm_loss"].item() == pytest.approx(expected.item(), rel=1e-3)
    parts = losses["loss"] + 0.1 * losses["sketch_loss"] + 2.0 * losses["cbdm_loss"]
    assert losses["total"].item() == pytest.approx(parts.item(), rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"cbdm_weight": 1.0}])
def test_two_workers_get_the_losses_of_one(settings: dict[str, float]) -> None:
    config = tiny_config(denoiser={"dropout": 0.3, "batch_size": 6, **settings})

    def losses(rank: int, size: int) -> dict[str, torch.Tensor]:
        made = objective_of(config, tiny_data(), Workers(rank, size), flip=True, moved_copies=1)
        return made.objective.losses(made.objective.module, 3)

    alone, shares = losses(0, 1), [losses(rank, 2) for rank in range(2)]
    for name in alone:
        assert alone[name].item() == pytest.approx(sum(share[name].item() for share in shares) / 2, rel=1e-4)


def test_a_batch_that_the_workers_cannot_share_evenly_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"synth\.denoiser\.batch_size 4 cannot be shared by 3 workers: make it"
    ):
        objective_of(tiny_config(), tiny_data(), Workers(0, 3))


def test_a_label_beyond_the_classes_is_refused() -> None:
    made = objective_of(tiny_config(), tiny_data())
    with pytest.raises(AssertionError, match="out of range"):
        DenoiserObjective(
            made.cache, made.vae, tiny_config().synth.denoiser, num_classes=1, seed=0, workers=ALONE
        )


def test_dropped_labels_train_only_the_row_of_the_null_class() -> None:
    config = tiny_config(denoiser={"label_drop": 1.0, "weight_decay": 0.0})
    objective = objective_of(config, tiny_data()).objective
    rows = objective.module.unet.class_embedding.weight
    before = rows.detach().clone()
    Training(objective, denoiser_schedule(config.synth, 12), ALONE).step(0)
    assert [not torch.equal(row, old) for row, old in zip(rows, before, strict=True)] == [False, False, True]


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_classes_are_drawn_by_the_power_of_their_size(balance: float, share: float) -> None:
    shares = cumulative_probabilities(torch.tensor([0] * 90 + [1] * 10), balance)
    assert shares[89].item() == pytest.approx(share) and shares[-1] == 1
    drawn = drawn_items(shares, 4000, torch.Generator().manual_seed(0))
    assert Counter((drawn < 90).tolist())[True] / 4000 == pytest.approx(share, abs=0.03)
    assert set(drawn.tolist()) == set(range(100))


def test_maps_are_cropped_to_their_middle() -> None:
    maps = torch.arange(36.0).view(1, 1, 6, 6)
    assert cropped_like(maps, torch.zeros(1, 1, 2, 4))[0, 0].tolist() == [[13, 14, 15, 16], [19, 20, 21, 22]]


def test_a_denoiser_whose_loss_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"denoiser, step 2: loss is nan: lower synth\.denoiser\.lr 1e\+30$"):
        train(tmp_path, tiny_config(denoiser={"lr": 1e30}))
    assert not (tmp_path / "pipeline").exists()


def thresholded(*, weights: Path) -> SketchExtractor:
    """Return, as a factory from outside, edges above the share that a file of weights holds."""
    share = float(weights.read_text(encoding="utf-8"))
    return lambda images_NCHW: (SKETCHES["scharr"](images_NCHW) > share).astype(np.float32)


def test_a_sketch_may_come_from_outside_and_gets_its_weights(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("0.2", encoding="utf-8")
    changes = {"sketch": f"{__name__}:thresholded", "sketch_weights": tmp_path / "weights"}
    images = tiny_data().train.images_NCHW
    maps = sketch_extractor(tiny_config().synth.model_copy(update=changes))(images)
    np.testing.assert_array_equal(maps, SKETCHES["scharr"](images) > 0.2)


def test_weights_for_a_sketch_that_takes_none_are_refused() -> None:
    settings = tiny_config().synth.model_copy(update={"sketch_weights": Path("table5.pth")})
    with pytest.raises(UserError, match=r"synth\.sketch_weights is table5\.pth, but the sketch .* takes none"):
        sketch_extractor(settings)


def test_an_unknown_sketch_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"synth\.sketch 'crayon' is unknown: use one of pidinet, ratio_of_averages, scharr"
    ):
        sketch_extractor(tiny_config().synth.model_copy(update={"sketch": "crayon"}))


@pytest.mark.medium
def test_the_sketch_branch_beats_the_best_constant_on_held_out_ultrasound(
    real_data: Path, tmp_path: Path
) -> None:
    data = load(RunConfig(data=f"npz:{real_data / 'breastmnist.npz'}"))
    config = tiny_config(
        autoencoder={"factor": 4, "channels": (8, 16, 16), "max_steps": 60, "lr": 3e-3, "batch_size": 16},
        denoiser={"channels": (16, 32, 32, 32), "max_steps": 200, "lr": 2e-3, "batch_size": 16},
    )
    assert train(tmp_path, config, data)["sketch_skill"] > 0.05
