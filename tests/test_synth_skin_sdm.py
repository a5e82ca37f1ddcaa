from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny_sd import write_tiny_sd
from tiny_synth import tiny_config, tiny_data

from cluster.runs.checks import check_settings
from rlcas import settings
from rlcas.config import RunConfig, SkinSdmConfig
from rlcas.errors import UserError
from rlcas.seeding import seed_for
from synth.generate import fill_pool
from synth.ldm.latents import build_moments
from synth.pool import SyntheticPool
from synth.skin_sdm.lora import LoraObjective, load_lora, save_lora
from synth.skin_sdm.skin_sdm import open_skin_sdm, train_skin_sdm
from synth.skin_sdm.stable_diffusion import load_base, posterior, prompts_of, token_ids
from synth.training.loop import Schedule, Training
from synth.training.progress import Reporter
from synth.training.workers import ALONE

CPU = torch.device("cpu")
SKIN_SDM = {"prompt": "a {class}", "size_px": 16, "rank": 2, "max_steps": 3, "batch_size": 4, "steps": 2}


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sd(tmp_path_factory.mktemp("base") / "sd", prediction=request.param)


def config_of(base: Path, **skin_sdm: object) -> RunConfig:
    own = SkinSdmConfig(**{**SKIN_SDM, "pretrained": str(base), **skin_sdm})
    synth = tiny_config().synth.model_copy(update={"generator": "skin_sdm", "skin_sdm": own})
    return RunConfig(synth=synth)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("skin_sdm")
    train_skin_sdm(tiny_data(), config_of(base), folder, device=CPU, progress=False)
    return folder


def objective_of(base: Path) -> tuple[LoraObjective, Any]:
    """Return the objective on the tiny data, and its pipeline."""
    torch.manual_seed(0)
    pipeline = load_base(str(base), CPU)
    moments = build_moments(tiny_data().train, lambda images: posterior(images, pipeline, 16), CPU)
    own = config_of(base).synth.skin_sdm
    return LoraObjective(pipeline, moments, ["a round", "a spiky"], own, seed=0, workers=ALONE), pipeline


def train(base: Path, objective: LoraObjective, folder: Path, **skin_sdm: object) -> None:
    synth = config_of(base, **skin_sdm).synth
    schedule = Schedule.of("lora", synth, "skin_sdm", 10_000, weight_decay=synth.skin_sdm.weight_decay)
    Training(objective, schedule, ALONE).run(folder / "checkpoint", Reporter(progress=False))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_training_writes_lora_record_and_figures_but_no_copy_of_the_base_model(
    trained: Path, base: Path
) -> None:
    figures = json.loads((trained / "synthesiser.json").read_text())
    assert figures["lora_steps"] == 3 and figures["lora_seconds"] > 0 and np.isfinite(figures["lora_loss"])
    files = {path.name for path in (trained / "lora").iterdir()}
    assert files == {"pytorch_lora_weights.safetensors", "skin_sdm.json"}
    record = json.loads((trained / "lora/skin_sdm.json").read_text())
    assert record["prompts"] == ["a round", "a spiky"] and record["base"] == str(base)


def test_the_loss_is_the_published_objective(base: Path) -> None:
    """‖ε - ε_θ(√ᾱ z + √(1-ᾱ) ε, t, prompt)‖² (or v), z the scaled posterior sample of Stable Diffusion's VAE."""
    objective, pipeline = objective_of(base)
    generator = torch.Generator().manual_seed(seed_for(0, "lora", 5))
    items = torch.multinomial(torch.ones(12), 4, replacement=True, generator=generator)
    timesteps = torch.randint(1000, (4,), generator=generator)
    posterior_noise, noise = torch.randn((2, 4, 4, 8, 8), generator=generator)
    data = tiny_data().train
    pixels = torch.nn.functional.interpolate(
        torch.from_numpy(data.images_NCHW).float(), (16, 16), mode="bicubic", antialias=True
    )
    rgb = pixels.clamp(0, 255).repeat(1, 3, 1, 1)[items] / 127.5 - 1
    with torch.no_grad():
        distribution = pipeline.vae.encode(rgb).latent_dist
        z = (distribution.mean + distribution.std * posterior_noise) * pipeline.vae.config.scaling_factor
        words = pipeline.tokenizer(
            [f"a {['round', 'spiky'][label]}" for label in data.labels_N[items]],
            padding="max_length",
            return_tensors="pt",
        )
        text = pipeline.text_encoder(words.input_ids).last_hidden_state
        noisy = pipeline.scheduler.add_noise(z, noise, timesteps)
        output = pipeline.unet(noisy, timesteps, encoder_hidden_states=text).sample
        says_noise = pipeline.scheduler.config.prediction_type == "epsilon"
        target = noise if says_noise else pipeline.scheduler.get_velocity(z, noise, timesteps)
    assert objective.losses(objective.module, 5)["total"].item() == pytest.approx(
        (output - target).square().mean().item(), rel=1e-5
    )


def test_only_the_adapter_learns(base: Path) -> None:
    objective, pipeline = objective_of(base)
    objective.losses(objective.module, 0)["total"].backward()
    for module in (pipeline.vae, pipeline.text_encoder):
        assert all(parameter.grad is None for parameter in module.parameters())
    taught = [name for name, parameter in pipeline.unet.named_parameters() if parameter.grad is not None]
    assert taught and all("lora_" in name for name in taught)
    adapted = {name.split(".lora_")[0].split(".", 1)[1].split("transformer_blocks.0.")[1] for name in taught}
    assert adapted == {f"attn{i}.{layer}" for i in (1, 2) for layer in ("to_q", "to_k", "to_v", "to_out.0")}


def test_the_loss_falls(base: Path, tmp_path: Path) -> None:
    objective, _ = objective_of(base)

    def mean_loss() -> float:
        with torch.no_grad():
            losses = [objective.losses(objective.module, step)["loss"].item() for step in range(1000, 1010)]
        return float(np.mean(losses))

    before = mean_loss()
    train(base, objective, tmp_path, lr=1e-2, max_steps=25)
    assert mean_loss() < 0.97 * before


def test_the_adapter_is_loaded_from_its_file_bit_for_bit(base: Path, tmp_path: Path) -> None:
    objective, pipeline = objective_of(base)
    train(base, objective, tmp_path / "training", lr=1e-2)
    save_lora(pipeline, tmp_path)
    again = load_base(str(base), CPU)
    arguments = (torch.ones(2, 4, 8, 8), torch.tensor(500))
    text = {"encoder_hidden_states": torch.ones(2, 24, 32)}
    with torch.no_grad():
        bare = again.unet(*arguments, **text).sample
        load_lora(again, tmp_path)
        trained, loaded = (unet(*arguments, **text).sample for unet in (pipeline.unet, again.unet))
    assert torch.equal(trained, loaded)
    theirs = load_base(str(base), CPU)
    theirs.load_lora_weights(tmp_path)
    with torch.no_grad():
        assert torch.equal(theirs.unet(*arguments, **text).sample, loaded)
    assert not torch.allclose(bare, loaded, atol=1e-4)


@pytest.mark.parametrize(("side_px", "channels"), [(20, 1), (33, 3)])
def test_images_have_the_shape_of_the_data(base: Path, tmp_path: Path, side_px: int, channels: int) -> None:
    data, config = tiny_data(side_px=side_px, channels=channels), config_of(base)
    train_skin_sdm(data, config, tmp_path, device=CPU, progress=False)
    sampler = open_skin_sdm(tmp_path, config, CPU)
    assert sampler.image_shape_CHW == data.image_shape_CHW and sampler.class_names == data.class_names
    images = sampler.sample(0, generators(1, 2, 3))
    assert images.shape == (3, channels, side_px, side_px) and images.dtype == np.uint8
    assert images.std() > 1


def test_an_image_depends_on_its_class_and_its_generator_only(base: Path, trained: Path) -> None:
    sampler = open_skin_sdm(trained, config_of(base), CPU)
    images = sampler.sample(1, generators(1, 2, 3, 4))
    changed = sampler.sample(1, generators(5, 2, 6, 7))
    np.testing.assert_array_equal(images[1], changed[1])
    assert not np.array_equal(images[0], changed[0])
    assert not np.array_equal(images, sampler.sample(0, generators(1, 2, 3, 4)))


def test_the_bytes_do_not_depend_on_how_many_are_made(base: Path, trained: Path, tmp_path: Path) -> None:
    pools = []
    for sizes in ([2, 5], [9, 6]):
        folder = tmp_path / str(sizes[0])
        fill_pool(trained, folder, sizes, config_of(base), device=CPU, progress=False)
        pools.append(SyntheticPool(folder))
    for class_id, size in enumerate([2, 5]):
        few, many = (pool.images(class_id, np.arange(size)) for pool in pools)
        np.testing.assert_array_equal(few, many)
    source = pools[0].manifest["source"]
    assert source["generator"] == "skin_sdm" and source["base"] == str(base)
    assert len(source["base_sha256"]) == len(source["lora_sha256"]) == 64
    assert (source["steps"], source["guidance"], source["size_px"]) == (2, 7.5, 16)


def test_a_killed_training_resumes_to_the_same_bits_and_saves_nothing_of_the_base_model(
    base: Path, trained: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(part: str, step: int, _: int, __: dict[str, float]) -> None:
        if step == 3:
            raise Killed

    config = config_of(base)
    config = config.model_copy(update={"synth": config.synth.model_copy(update={"checkpoint_steps": 2})})
    with pytest.raises(Killed):
        train_skin_sdm(tiny_data(), config, tmp_path, device=CPU, progress=False, on_step=kill)
    with safe_open(tmp_path / "training/lora.safetensors", framework="pt") as checkpoint:
        assert all(".adapter." in name for name in checkpoint.keys())  # noqa: SIM118
    train_skin_sdm(tiny_data(), config, tmp_path, device=CPU, progress=False)
    name = "lora/pytorch_lora_weights.safetensors"
    assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"lora", "synthesiser.json"}


def test_every_class_has_its_name_in_its_prompt() -> None:
    template = SkinSdmConfig().prompt
    assert prompts_of(template, ["benign", "{x}"]) == [
        "an ultrasound image of a breast lesion, benign",
        "an ultrasound image of a breast lesion, {x}",
    ]
    with pytest.raises(
        UserError, match=r"^synth\.skin_sdm\.prompt 'a lesion' is the same for every class: write {cl"
    ):
        settings.resolve(given={"synth.skin_sdm.prompt": "a lesion"})


def test_prompts_that_are_cut_before_they_differ_are_refused(base: Path) -> None:
    pipeline = load_base(str(base), CPU)
    assert len(token_ids(pipeline, ["a b", "a c"])[0]) == 24
    with pytest.raises(
        UserError, match=r"^synth\.skin_sdm\.prompt has the same 24 tokens for two classes: shorten"
    ):
        token_ids(pipeline, ["a" * 30 + name for name in "bc"])


def test_a_base_model_other_than_that_of_the_training_is_refused(
    trained: Path, base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(trained, folder)
    other = write_tiny_sd(tmp_path / "other", seed=1)
    record = json.loads((folder / "lora/skin_sdm.json").read_text())
    (folder / "lora/skin_sdm.json").write_text(json.dumps(record | {"base": str(other)}))
    with pytest.raises(
        UserError, match=r"other is not the model that .*lora was trained on \(sha256 differs\): put"
    ):
        open_skin_sdm(folder, config_of(base), CPU)
    (folder / "lora/skin_sdm.json").write_text(json.dumps(record))
    weights = folder / "lora/pytorch_lora_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(
        UserError, match=r"pytorch_lora_weights\.safetensors cannot be loaded \(.+\): train again"
    ):
        open_skin_sdm(folder, config_of(base), CPU)
    with pytest.raises(
        UserError, match=r"lora holds no Skin-SDM: train one with `rlcas synth train --synth\.gen"
    ):
        open_skin_sdm(tmp_path, config_of(base), CPU)


@pytest.mark.parametrize("name", ["./nowhere", "no/such/place", "."])
def test_a_name_under_which_nothing_loads_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^synth\.skin_sdm\.pretrained '.+' cannot be loaded \(.+\): name a folder"
    ):
        load_base(name, CPU)


def test_weights_in_half_precision_are_used_in_single(base: Path, tmp_path: Path) -> None:
    half = load_base(str(base), CPU)
    half.to(torch.float16).save_pretrained(tmp_path)
    pipeline = load_base(str(tmp_path), CPU)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_weights_in_pickles_are_not_read(base: Path, tmp_path: Path) -> None:
    load_base(str(base), CPU).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(UserError, match=r"cannot be loaded \(.*safetensors.*\): name a folder or hub name"):
        load_base(str(tmp_path), CPU)


def test_a_loss_that_is_not_finite_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^lora, step \d: .+ not finite|^lora, step \d: loss is nan: lower synth\.sk"
    ):
        train_skin_sdm(tiny_data(), config_of(base, lr=1e30), tmp_path, device=CPU, progress=False)
    assert not (tmp_path / "synthesiser.json").exists()


def test_missing_weights_and_a_missing_extra_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"synth.generator": "skin_sdm"}
    with pytest.raises(
        UserError, match=r"^synth\.skin_sdm\.pretrained is not given: name a folder or hub name "
    ) as raised:
        check_settings(settings.resolve(given=given))
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5 (licence CreativeML OpenRAIL-M" in str(raised.value)
    check_settings(settings.resolve(given={**given, "pool": "folder:own"}))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        UserError, match=r"^synth\.generator 'skin_sdm' needs peft: pip install rlcas\[skin-sdm\]$"
    ):
        check_settings(settings.resolve(given={**given, "synth.skin_sdm.pretrained": "somewhere"}))
