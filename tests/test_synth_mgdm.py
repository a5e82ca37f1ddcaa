from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_synth import tiny_config, tiny_data
from torch import Tensor

from rlcas.config import MgdmConfig, RunConfig
from rlcas.errors import UserError
from rlcas.seeding import seed_for
from rlcas.types import ImageSet, TrainingData
from synth.generate import fill_pool
from synth.ldm.diffusion import target_of, unipc
from synth.ldm.latents import Moments, normalised, posterior
from synth.mgdm.disturbance import UNCERTAINTIES, Disturbance, ddim_step
from synth.mgdm.latent_classifier import LatentClassifier, LatentClassifierObjective, recall_at
from synth.mgdm.mgdm import check_mgdm, open_mgdm, train_mgdm
from synth.pool import SyntheticPool
from synth.training.loop import Schedule, Training
from synth.training.progress import Reporter
from synth.training.workers import ALONE, Workers

CPU = torch.device("cpu")
MGDM = {"channels": (8, 16), "max_steps": 3, "batch_size": 4, "ddim_steps": 4}


def config_of(*, prediction: str = "v_prediction", **mgdm: object) -> RunConfig:
    schedule = {"epsilon": "linear", "v_prediction": "squaredcos_cap_v2"}[prediction]
    config = tiny_config(denoiser={"prediction": prediction, "schedule": schedule})
    synth = config.synth.model_copy(update={"generator": "mgdm", "mgdm": MgdmConfig(**{**MGDM, **mgdm})})
    return config.model_copy(update={"synth": synth})


def train(folder: Path, config: RunConfig, data: TrainingData | None = None) -> dict[str, float]:
    return train_mgdm(data or tiny_data(), config, folder, device=CPU, progress=False)


@pytest.fixture(scope="module", params=["v_prediction", "epsilon"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    train(folder, config_of(prediction=request.param))
    return folder


def disturbance(folder: Path, **mgdm: object) -> Disturbance:
    return open_mgdm(folder, config_of(**mgdm), CPU).disturbance


def some_latents() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((4, 4, 16, 16), generator=generator), torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("entropy", [math.log(2), 0.75 * math.log(4 / 3) + 0.25 * math.log(4)]),
        ("margin", [0.0, -0.5]),
        ("least_confidence", [-0.5, -0.75]),
    ],
)
def test_uncertainties_are_those_computed_by_hand(name: str, expected: list[float]) -> None:
    logits = torch.tensor([[0.0, 0.0, -100.0], [math.log(3.0), -100.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(UNCERTAINTIES[name](logits), expected, atol=1e-12)


@pytest.mark.parametrize("name", UNCERTAINTIES)
def test_the_uncertainty_gradient_is_that_of_finite_differences_and_each_images_own(
    trained: Path, name: str
) -> None:
    pushed = disturbance(trained, uncertainty=name)
    pushed._classifier.double()
    z, _ = some_latents()
    z, t = z.double(), torch.tensor(100)
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def uncertainty(moved: Tensor) -> Tensor:
        with torch.no_grad():
            return UNCERTAINTIES[name](pushed._classifier(moved, t.expand(len(moved))))

    gradient = pushed.uncertainty_gradient(z, t)
    slope_N = (uncertainty(z + 1e-5 * direction) - uncertainty(z - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope_N, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(pushed.uncertainty_gradient(z[2:3], t), gradient[2:3])


def test_without_a_gradient_stage_two_is_plain_ddim_in_both_directions_bit_for_bit(trained: Path) -> None:
    z0, labels = some_latents()
    plain = disturbance(trained, scale=0.0)
    unet, scheduler = plain._unet, open_mgdm(trained, config_of(), CPU).ldm.pipeline.scheduler
    abar_T = scheduler.alphas_cumprod
    levels = [torch.tensor(1.0), *abar_T[[0, 250, 500, 750]]]

    def move(z: Tensor, k: int, start: Tensor, end: Tensor) -> Tensor:
        """Between level k and the next noisier one, whose timestep is 250 k."""
        abar = abar_T[250 * k]
        output = unet(z, 250 * k, class_labels=labels).sample
        is_noise = scheduler.config.prediction_type == "epsilon"
        noise = output if is_noise else abar.sqrt() * output + (1.0 - abar).sqrt() * z
        clean = (z - (1.0 - start).sqrt() * noise) / start.sqrt()
        return end.sqrt() * clean + (1.0 - end).sqrt() * noise

    with torch.no_grad():
        z = z0
        for k in range(4):
            z = move(z, k, levels[k], levels[k + 1])
        assert torch.equal(plain.invert(z0, labels), z)
        for k in reversed(range(4)):
            z = move(z, k, levels[k + 1], levels[k])
    assert torch.equal(plain(z0, labels), z)
    assert not torch.equal(disturbance(trained, scale=50.0)(z0, labels), z)


class GaussianDenoiser:
    """The best denoiser of latents from N(0, 0.5²): E[z_0 | z_t] = √ᾱ 0.25 z_t / (0.25 ᾱ + 1 - ᾱ)."""

    def __init__(self, prediction: str, abar_T: Tensor) -> None:
        self._prediction, self._abar_T = prediction, abar_T

    def __call__(self, z: Tensor, t: Tensor, *, class_labels: Tensor) -> SimpleNamespace:
        abar = self._abar_T[t]
        clean = abar.sqrt() * 0.25 * z / (0.25 * abar + 1.0 - abar)
        noise = (z - abar.sqrt() * clean) / (1.0 - abar).sqrt()
        return SimpleNamespace(sample=target_of(self._prediction, clean, noise, abar.expand(len(z))))


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_gaussian_latents_are_inverted_as_in_closed_form_and_decoded_again(prediction: str) -> None:
    """On the probability flow of N(0, s²), z_t = z_0 √(ᾱ s² + 1 - ᾱ) / s; the error falls with the number of steps."""
    scheduler = unipc(config_of(prediction=prediction).synth.denoiser)
    denoiser = GaussianDenoiser(prediction, scheduler.alphas_cumprod)
    pipeline = SimpleNamespace(unet=denoiser, scheduler=scheduler, device=CPU)
    z0, labels = some_latents()
    z0, labels = 0.5 * z0[:2, :, :8, :8], labels[:2]
    lost, astray = [], []
    for steps in (10, 50, 200):
        config = MgdmConfig(scale=0.0, ddim_steps=steps)
        stage_two = Disturbance(pipeline, LatentClassifier(4, 2, (8,)), config)
        abar = scheduler.alphas_cumprod[1000 - 1000 // steps]
        noisy = stage_two.invert(z0, labels)
        lost.append((noisy - z0 * (0.25 * abar + 1.0 - abar).sqrt() / 0.5).abs().max().item())
        astray.append((stage_two.decode(noisy, labels) - z0).abs().max().item())
    assert lost[0] > lost[1] > lost[2] and lost[2] < 0.05
    assert astray[0] > astray[1] > astray[2] and astray[2] < 0.05


def test_a_ddim_step_with_the_true_noise_lands_on_the_same_noised_latent() -> None:
    z0, _ = some_latents()
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(1))
    noised = [math.sqrt(abar) * z0 + math.sqrt(1 - abar) * noise for abar in (0.9, 0.3)]
    moved = ddim_step(noised[0], noise, torch.tensor(0.9), torch.tensor(0.3))
    torch.testing.assert_close(moved, noised[1], atol=1e-5, rtol=0)


def two_clouds(num_images: int, seed: int) -> Moments:
    """Return latents of two classes around -0.5 and 0.5."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_images) % 2
    centres = labels.float().view(-1, 1, 1, 1) - 0.5
    means = centres + torch.randn((num_images, 2, 8, 8), generator=generator)
    return Moments(means_MChw=means, stds_MChw=torch.full_like(means, 0.01), labels_M=labels)


class Identity:
    """An autoencoder whose latents are already normalised."""

    config = type("Config", (), {"shift_factor": 0.0, "scaling_factor": 1.0})


ABAR_T = torch.linspace(0.9999, 0.0001, 1000)


def objective_of(
    config: MgdmConfig, num_images: int = 200, workers: Workers = ALONE
) -> LatentClassifierObjective:
    torch.manual_seed(0)
    moments = two_clouds(num_images, seed=0)
    return LatentClassifierObjective(
        moments, Identity(), ABAR_T, config, num_classes=2, seed=0, workers=workers
    )


def test_the_classifier_recognises_clean_latents_but_not_noise(tmp_path: Path) -> None:
    objective = objective_of(MgdmConfig(channels=(8, 16), batch_size=32))
    schedule = Schedule(part="classifier", steps=150, lr=3e-3, checkpoint_steps=1000, remedy="")
    Training(objective, schedule, ALONE).run(tmp_path / "checkpoint", Reporter(progress=False))
    held_out = two_clouds(400, seed=1)
    clean, noisy = (recall_at(t, objective.module, held_out, Identity(), ABAR_T, seed=0) for t in (0, 999))
    assert clean > 0.9
    assert 0.35 < noisy < 0.65


def test_a_batch_is_a_function_of_its_number_and_shared_evenly() -> None:
    config = MgdmConfig(channels=(8, 16), batch_size=8)
    first, *halves = (
        objective_of(config, workers=workers) for workers in (ALONE, Workers(0, 2), Workers(1, 2))
    )
    losses = [first.losses(first.module, step)["loss"].item() for step in (0, 1)]
    assert losses[0] != losses[1]
    assert [first.losses(first.module, step)["loss"].item() for step in (1, 0)] == losses[::-1]
    shared = [half.losses(half.module, 0)["loss"].item() for half in halves]
    assert np.mean(shared) == pytest.approx(losses[0], rel=1e-5) and shared[0] != shared[1]
    with pytest.raises(UserError, match=r"^synth\.mgdm\.batch_size 9 cannot be shared by 2 workers"):
        objective_of(MgdmConfig(batch_size=9), workers=Workers(0, 2))


def test_the_loss_is_cross_entropy_on_noised_posterior_samples() -> None:
    objective = objective_of(MgdmConfig(channels=(8, 16), batch_size=6), num_images=20)
    generator = torch.Generator().manual_seed(seed_for(0, "latent-classifier", 3))
    items = torch.multinomial(torch.ones(20), 6, replacement=True, generator=generator)
    timesteps = torch.randint(1000, (6,), generator=generator)
    posterior_noise, noise = torch.randn((2, 6, 2, 8, 8), generator=generator)
    moments = two_clouds(20, seed=0)
    z0 = moments.means_MChw[items] + 0.01 * posterior_noise
    abar = ABAR_T[timesteps].view(-1, 1, 1, 1)
    with torch.no_grad():
        p_NC = objective.module(abar.sqrt() * z0 + (1 - abar).sqrt() * noise, timesteps).softmax(1)
    expected = -p_NC[torch.arange(6), moments.labels_M[items]].log().mean()
    assert objective.losses(objective.module, 3)["total"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("channels", [(8,), (8, 16), (16, 24, 32)])
def test_the_classifier_returns_logits_at_any_depth_and_side(channels: tuple[int, ...]) -> None:
    classifier = LatentClassifier(4, 3, channels)
    assert classifier(torch.zeros(2, 4, 8, 24), torch.tensor([0, 999])).shape == (2, 3)


def bright_halves(num_images: int, seed: int) -> ImageSet:
    """Return noisy images, bright at the top in class 0 and at the bottom in class 1."""
    rng = np.random.default_rng(seed)
    images = rng.normal(90, 30, (num_images, 1, 16, 16))
    labels = np.arange(num_images) % 2
    for image, label in zip(images, labels, strict=True):
        image[0, 8 * label : 8 * label + 8] += 60
    return ImageSet(images_NCHW=images.clip(0, 255).astype(np.uint8), labels_N=labels)


@pytest.mark.medium
def test_the_gradient_makes_the_classifier_less_sure_of_the_images(tmp_path: Path) -> None:
    data = TrainingData(
        name="halves",
        class_names=("top", "bottom"),
        train=bright_halves(60, seed=0),
        val=bright_halves(20, seed=1),
    )
    config = config_of(max_steps=150, lr=3e-3, batch_size=16)
    assert train(tmp_path, config, data)["classifier_recall"] > 0.9
    pipeline = open_mgdm(tmp_path, config, CPU).ldm.pipeline
    images = torch.from_numpy(data.val.images_NCHW)
    latents = normalised(posterior(images, pipeline.vae)[0], pipeline.vae)
    labels = torch.from_numpy(data.val.labels_N)
    entropies_SN = []
    for scale in (0.0, 5.0, 20.0):
        stage_two = disturbance(tmp_path, scale=scale, ddim_steps=20)
        with torch.no_grad():
            logits = stage_two._classifier(stage_two(latents, labels), torch.zeros(20))
        entropies_SN.append(UNCERTAINTIES["entropy"](logits))
    assert entropies_SN[0].mean() < entropies_SN[1].mean() < entropies_SN[2].mean()
    assert (entropies_SN[2] > entropies_SN[0]).float().mean() > 0.9


def test_training_writes_both_models_and_their_figures(trained: Path) -> None:
    figures = json.loads((trained / "synthesiser.json").read_text())
    assert {"loss", "sketch_skill", "classifier_loss", "classifier_recall", "classifier_seconds"} <= set(
        figures
    )
    assert figures["classifier_steps"] == 3 and all(np.isfinite(value) for value in figures.values())
    assert {path.name for path in trained.iterdir()} == {"ldm", "classifier", "synthesiser.json"}


class Killed(BaseException):
    """Ends the training like the end of the process."""


def test_a_killed_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    config = config_of(max_steps=6)
    config = config.model_copy(update={"synth": config.synth.model_copy(update={"checkpoint_steps": 2})})
    train(tmp_path / "whole", config)

    def kill(part: str, step: int, _: int, __: dict[str, float]) -> None:
        steps_seen.append((part, step))
        if steps_seen[-1] == ("classifier", 5):
            raise Killed

    steps_seen: list[tuple[str, int]] = []
    with pytest.raises(Killed):
        train_mgdm(tiny_data(), config, tmp_path / "cut", device=CPU, progress=False, on_step=kill)
    assert not (tmp_path / "cut/synthesiser.json").exists()
    for name in (
        "training/denoiser.safetensors",
        ".synthesiser.json.x.tmp",
    ):  # what a kill at the end of the ldm leaves behind
        path = tmp_path / "cut/training/ldm" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    steps_seen.clear()
    train_mgdm(
        tiny_data(),
        config,
        tmp_path / "cut",
        device=CPU,
        progress=False,
        on_step=lambda part, step, *_: steps_seen.append((part, step)),
    )
    assert steps_seen == [("classifier", 5), ("classifier", 6)]
    for name in ("ldm/pipeline/unet", "classifier"):
        whole, cut = (tmp_path / run / name / "diffusion_pytorch_model.safetensors" for run in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()
    names = [
        {path.relative_to(tmp_path / run) for path in (tmp_path / run).rglob("*")} for run in ("whole", "cut")
    ]
    assert names[0] == names[1]


def test_an_earlier_synthesiser_is_replaced_as_a_whole(tmp_path: Path) -> None:
    train(tmp_path, config_of())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    train(tmp_path, config_of().model_copy(update={"seed": 1}))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert before.keys() == after.keys() and all(before[path] != after[path] for path in before)


def test_the_bytes_do_not_depend_on_how_many_are_made(trained: Path, tmp_path: Path) -> None:
    pools = []
    for sizes in ([3, 5], [9, 6]):
        folder = tmp_path / str(sizes[0])
        fill_pool(trained, folder, sizes, config_of(), device=CPU, progress=False)
        pools.append(SyntheticPool(folder))
    for class_id, size in enumerate([3, 5]):
        few, many = (pool.images(class_id, np.arange(size)) for pool in pools)
        np.testing.assert_array_equal(few, many)
        assert few.shape[1:] == (1, 20, 20) and len({image.tobytes() for image in few}) == size
    source = pools[0].manifest["source"]
    assert source["generator"] == "mgdm" and len(source["classifier_sha256"]) == 64
    assert (source["scale"], source["uncertainty"], source["ddim_steps"]) == (5.0, "entropy", 4)


def test_missing_and_damaged_models_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^synth\.mgdm\.uncertainty 'x' is unknown: use one of entropy, least_"
    ):
        check_mgdm(config_of(uncertainty="x"))
    with pytest.raises(UserError, match=r"holds no synthesiser: train one with"):
        open_mgdm(tmp_path, config_of(), CPU)
    shutil.copytree(trained / "ldm", tmp_path / "ldm")
    with pytest.raises(UserError, match=r"classifier cannot be loaded as MGDM's classifier \(.+\): train one"):
        open_mgdm(tmp_path, config_of(), CPU)
    with pytest.raises(UserError, match=r"classifier, step \d: loss is .*: lower synth\.mgdm\.lr 1e\+30"):
        train(tmp_path, config_of(lr=1e30))
    assert not (tmp_path / "synthesiser.json").exists()
