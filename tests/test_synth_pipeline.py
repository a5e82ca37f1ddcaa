"""The saved pipeline: guidance in an interval, the same bits after saving, diffusers without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_synth import tiny_config, tiny_data

from rlcas import settings
from rlcas.devices import torch_threads
from rlcas.errors import UserError
from rlcas.storage.atomic import sha256_of
from synth.ldm.pipeline import ClassConditionalLDMPipeline
from synth.ldm.sampler import load_pipeline
from synth.ldm.train import train_synthesiser

CPU = torch.device("cpu")
SAMPLED = {"num_inference_steps": 4, "guidance_scale": 2.5, "guidance_interval": (0.2, 0.8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose classes differ: their embeddings are random, as three steps of training do not suffice."""
    folder = tmp_path_factory.mktemp("synth")
    train_synthesiser(tiny_data(), tiny_config(), folder, device=CPU, progress=False)
    pipeline = load_pipeline(folder / "pipeline", CPU)
    torch.manual_seed(0)
    torch.nn.init.normal_(pipeline.unet.class_embedding.weight)
    torch.nn.init.normal_(pipeline.unet.conv_out.weight, std=0.2)
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def sample(pipeline: ClassConditionalLDMPipeline, **options: object) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4, 5)]
    return pipeline(["spiky", 0, "spiky"], generator=generators, output_type="np", **options).images


def test_guidance_everywhere_is_the_default_and_nowhere_is_none(folder: Path) -> None:
    pipeline = load_pipeline(folder, CPU)
    everywhere = sample(pipeline, guidance_scale=2.5)
    np.testing.assert_array_equal(
        everywhere, sample(pipeline, guidance_scale=2.5, guidance_interval=(0.0, 1.0))
    )
    without = sample(pipeline, guidance_scale=1.0)
    outside = sample(pipeline, guidance_scale=2.5, guidance_interval=(0.9995, 1.0))
    np.testing.assert_array_equal(without, outside)
    assert not np.array_equal(everywhere, without)


def test_a_step_outside_of_the_interval_uses_the_conditional_prediction_only(folder: Path) -> None:
    """4 steps lie at t/T 0.999, 0.749, 0.499 and 0.249: 0.2 to 0.8 guides the last three."""
    pipeline = load_pipeline(folder, CPU)
    batches = []
    pipeline.unet.register_forward_pre_hook(
        lambda _, inputs: batches.append((len(inputs[0]), int(inputs[1]) / 1000))
    )
    sample(pipeline, **SAMPLED)
    assert [size for size, _ in batches] == [6 if 0.2 <= level <= 0.8 else 3 for _, level in batches]
    assert sorted({size for size, _ in batches}) == [3, 6]


def test_the_guided_prediction_is_the_null_one_moved_by_the_scale(folder: Path) -> None:
    pipeline = load_pipeline(folder, CPU)
    latents = torch.randn((2, pipeline.unet.config.in_channels, 16, 16), generator=torch.manual_seed(1))
    labels, timestep = torch.tensor([0, 1]), torch.tensor(500)
    with torch.no_grad():
        conditional, null = (
            pipeline.unet(latents, timestep, class_labels=wanted).sample
            for wanted in (labels, torch.tensor([2, 2]))
        )
        guided = pipeline._guided(latents, timestep, labels, 3.0)
    torch.testing.assert_close(guided, null + 3.0 * (conditional - null), atol=1e-5, rtol=1e-5)


def test_the_interval_is_checked_and_taken_from_a_flag() -> None:
    config = settings.resolve(given={"synth.generation.guidance_interval": "0.1,0.7"})
    assert config.synth.generation.guidance_interval == (0.1, 0.7)
    with pytest.raises(
        UserError, match=r"guidance_interval is 0.7,0.1: the first share must be below the second"
    ):
        settings.resolve(given={"synth.generation.guidance_interval": "0.7,0.1"})
    with pytest.raises(
        UserError, match=r"synth.generation.guidance_interval is '1.5': input should be less than"
    ):
        settings.resolve(given={"synth.generation.guidance_interval": "0.7,1.5"})


def test_saving_and_loading_twice_keeps_bits_names_and_files(folder: Path, tmp_path: Path) -> None:
    first = ClassConditionalLDMPipeline.from_pretrained(folder)
    first.save_pretrained(tmp_path / "once")
    once = ClassConditionalLDMPipeline.from_pretrained(tmp_path / "once")
    once.save_pretrained(tmp_path / "twice")
    np.testing.assert_array_equal(sample(first, **SAMPLED), sample(once, **SAMPLED))
    assert once.class_names == ["round", "spiky"] and once.image_shape_CHW == (1, 20, 20)
    weights = [file.relative_to(tmp_path / "once") for file in (tmp_path / "once").rglob("*.safetensors")]
    assert len(weights) == 2
    for name in (*weights, "README.md", "pipeline.py"):
        assert sha256_of(tmp_path / "once" / name) == sha256_of(tmp_path / "twice" / name)


WITHOUT_US = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("rlcas", "synth", "envs", "cluster"):
            raise ImportError(name + " is not installed")

sys.meta_path.insert(0, Refuse())
import numpy as np, torch
torch.set_num_threads(1)
from diffusers import DiffusionPipeline

folder = sys.argv[1]
pipeline = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
generators = [torch.Generator().manual_seed(seed) for seed in (3, 4, 5)]
images = pipeline(
    ["spiky", 0, "spiky"], generator=generators, output_type="np", num_inference_steps=4, guidance_scale=2.5,
    guidance_interval=(0.2, 0.8),
).images
np.save(sys.argv[2], images)
pipeline.save_pretrained(sys.argv[3])
print(pipeline.class_names, type(pipeline).__module__)
"""


@pytest.mark.medium
def test_diffusers_without_this_package_samples_the_same_bits(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, folder, tmp_path / "images.npy", tmp_path / "saved"],
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "code")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['round', 'spiky']") and "synth" not in done.stdout
    with torch_threads(1):
        ours = sample(ClassConditionalLDMPipeline.from_pretrained(folder), **SAMPLED)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), ours)
    assert (tmp_path / "saved/README.md").read_text() == (folder / "README.md").read_text()


def test_the_model_card_has_classes_settings_figures_use_and_limits(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    figures = json.loads((folder.parent / "synthesiser.json").read_text())
    for line in (
        "library_name: diffusers",
        "license: unknown",
        "# Class-conditional latent diffusion: squares",
        "| 0 | round | 8 |",
        "| 1 | spiky | 4 |",
        f"| sketch_skill | {figures['sketch_skill']} |",
        "| denoiser.prediction | v_prediction |",
        "| generation.guidance | 1.5 |",
        "pipeline(['round'], generator=[torch.Generator().manual_seed(0)]).images",
        "Not a medical device",
    ):
        assert line in card, line


def test_a_card_escapes_names_and_says_what_is_unknown(folder: Path) -> None:
    pipeline = load_pipeline(folder, CPU)
    pipeline.register_to_config(id2label={"0": "a|<b>", "1": "c"}, training=None)
    card = pipeline.model_card()
    assert "| 0 | a&#124;&lt;b&gt; | unknown |" in card
    assert "diffusion: unknown data" in card
