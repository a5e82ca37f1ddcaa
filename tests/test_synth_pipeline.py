"""The saved pipeline: guidance in an interval, the same bits after saving, diffusers without this package, a hub."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
)
from diffusers.models.unets.unet_2d import UNet2DOutput
from hub_stand_in import running_hub
from tiny_synth import tiny_config, tiny_data

from rlcas import settings
from rlcas.devices import torch_threads
from rlcas.errors import UserError
from rlcas.storage.atomic import sha256_of
from synth.ldm.diffusion import ddim, noise_schedule, target_of
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
    for name in (*weights, "README.md", "class_conditional_ldm.py"):
        assert sha256_of(tmp_path / "once" / name) == sha256_of(tmp_path / "twice" / name)


MEAN, DEVIATION = 2.0, 0.5


@pytest.mark.parametrize("swapped", [None, DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler])
def test_a_scheduler_that_is_swapped_in_clips_no_latents(
    folder: Path, swapped: type[SchedulerMixin] | None
) -> None:
    """With the exact denoiser of latents from N(2, 0.5²), every scheduler ends at this distribution."""
    pipeline = load_pipeline(folder, CPU)
    if swapped is not None:
        pipeline.scheduler = swapped.from_config(pipeline.scheduler.config)
    abar_T = noise_schedule(tiny_config().synth.denoiser)

    def exact(
        _: torch.nn.Module, inputs: tuple[torch.Tensor, torch.Tensor], output: UNet2DOutput
    ) -> UNet2DOutput:
        z, abar = inputs[0], abar_T[int(inputs[1])]
        towards = abar.sqrt() * DEVIATION**2 / (abar * DEVIATION**2 + 1 - abar)
        z0 = MEAN + towards * (z - abar.sqrt() * MEAN)
        noise = (z - abar.sqrt() * z0) / (1 - abar).sqrt()
        return UNet2DOutput(sample=target_of("v_prediction", z0, noise, abar.expand(len(z))))

    pipeline.unet.register_forward_hook(exact)
    latents = pipeline([0] * 8, torch.manual_seed(0), 20, guidance_scale=1.0, output_type="latent").images
    assert latents.mean().item() == pytest.approx(MEAN, abs=0.05)
    assert latents.std().item() == pytest.approx(DEVIATION, abs=0.1)


def test_ddim_swapped_in_has_the_settings_of_our_own(folder: Path) -> None:
    config = tiny_config().synth.denoiser
    swapped = DDIMScheduler.from_config(load_pipeline(folder, CPU).scheduler.config).config
    for name in set(inspect.signature(DDIMScheduler).parameters):
        assert swapped[name] == ddim(config).config[name], name


def test_a_single_name_or_number_is_a_class_too(folder: Path) -> None:
    pipeline = load_pipeline(folder, CPU)

    def one(labels: object) -> np.ndarray:
        return pipeline(labels, torch.Generator().manual_seed(3), 2, output_type="np").images

    assert one("spiky").shape == (1, 20, 20, 1)
    np.testing.assert_array_equal(one("spiky"), one(["spiky"]))
    np.testing.assert_array_equal(one(0), one(["round"]))
    for labels in (np.array([1, 0]), torch.tensor([1, 0]), [np.int64(1), torch.tensor(0)]):
        assert pipeline(labels, torch.Generator().manual_seed(3), 2, output_type="np").images.shape[0] == 2
    for single in (np.int64(1), torch.tensor(1)):
        np.testing.assert_array_equal(one(single), one("spiky"))
    for unknown in ("spik", 2, 1.0):
        with pytest.raises(ValueError, match=f"class label {unknown!r} is unknown: use 0 to 1"):
            pipeline(unknown)
    with pytest.raises(ValueError, match="no class label is given: use 0 to 1"):
        pipeline([])


def test_a_folder_saved_before_the_code_had_a_name_of_its_own_is_still_read(
    folder: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (old / "class_conditional_ldm.py").rename(old / "pipeline.py")
    change_json(old / "model_index.json", _class_name="ClassConditionalLDMPipeline")
    change_json(old / "scheduler/scheduler_config.json", clip_sample=...)
    pipeline = load_pipeline(old, CPU)
    np.testing.assert_array_equal(sample(pipeline, **SAMPLED), sample(load_pipeline(folder, CPU), **SAMPLED))
    pipeline.save_pretrained(tmp_path / "new")
    assert DiffusionPipeline.from_pretrained(tmp_path / "new", trust_remote_code=True).class_names
    assert json.loads((tmp_path / "new/scheduler/scheduler_config.json").read_text())["clip_sample"] is False


def on_disk(folder: Path) -> dict[str, bytes]:
    """Return the folder's files by their path in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def change_json(file: Path, **changes: object) -> None:
    """Set keys of a JSON file; `...` deletes one."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def test_our_class_runs_no_code_of_the_folder(folder: Path, tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    shutil.copytree(folder, strange)
    (strange / "class_conditional_ldm.py").write_text("raise SystemExit('this ran')")
    assert type(load_pipeline(strange, CPU)) is ClassConditionalLDMPipeline
    with pytest.raises(ValueError, match="contains custom code"):
        DiffusionPipeline.from_pretrained(strange)


BESIDE_ANOTHER = """
import sys
from pathlib import Path
from diffusers import DiffusionPipeline
from diffusers.utils import HF_MODULES_CACHE

ours, foreign, saved = map(Path, sys.argv[1:])

def load(folder, **options):
    return DiffusionPipeline.from_pretrained(folder, trust_remote_code=True, **options)

first = load(ours)
assert type(load(foreign, custom_pipeline=str(foreign))).__name__ == "Foreign"
assert type(load(ours)).__name__ == "ClassConditionalLDMPipeline"
for cached in Path(HF_MODULES_CACHE).rglob("local/*.py"):
    cached.write_text("foreign = True")
first.save_pretrained(saved)
"""


@pytest.mark.medium
def test_another_projects_pipeline_in_the_same_process_changes_nothing(folder: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    load_pipeline(folder, CPU).scheduler.save_pretrained(foreign / "scheduler")
    index = {"_class_name": "Foreign", "scheduler": ["diffusers", "UniPCMultistepScheduler"]}
    (foreign / "model_index.json").write_text(json.dumps(index))
    (foreign / "pipeline.py").write_text(
        "from diffusers import DiffusionPipeline\n\n\n"
        "class Foreign(DiffusionPipeline):\n"
        "    def __init__(self, scheduler):\n"
        "        super().__init__()\n"
        "        self.register_modules(scheduler=scheduler)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_ANOTHER, folder, foreign, tmp_path / "saved"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "code")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code = (tmp_path / "saved/class_conditional_ldm.py").read_text()
    assert code == (folder / "class_conditional_ldm.py").read_text() and "class ClassConditional" in code


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
pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
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


PUSH = """
import sys
from pathlib import Path
from diffusers import DiffusionPipeline
from synth.ldm.pipeline import ClassConditionalLDMPipeline

pipeline = ClassConditionalLDMPipeline.from_pretrained(sys.argv[1])
pipeline.push_to_hub("me/pushed")
pipeline.push_to_hub("me/within", subfolder="model")
pipeline.save_pretrained(sys.argv[2] + "/saved", push_to_hub=True, repo_id="me/saved")
pipeline.save_pretrained(Path(sys.argv[2]) / "named", push_to_hub=True)  # the folder's name is the repository's
for pipeline_class, options in ((DiffusionPipeline, {"trust_remote_code": True}), (type(pipeline), {})):
    loaded = pipeline_class.from_pretrained("me/pushed", **options)
    print(type(loaded).__module__, loaded.class_names)
"""


@pytest.mark.medium
def test_what_is_pushed_to_a_hub_has_weights_code_and_card(folder: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        done = subprocess.run(
            [sys.executable, "-c", PUSH, folder, tmp_path],
            env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_any"},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    expected = on_disk(folder)
    del expected["model_index.json"]  # says from where it was loaded
    assert {"README.md", "class_conditional_ldm.py"} < set(expected)
    for files in (
        *(hub.files[f"me/{name}"] for name in ("pushed", "saved", "named")),
        on_disk(tmp_path / "saved"),
    ):
        assert json.loads(files.pop("model_index.json"))["_class_name"][0] == "class_conditional_ldm"
        assert files == expected
    assert {f"model/{name}" for name in expected} < set(hub.files["me/within"])
    assert done.stdout.splitlines() == [
        "diffusers_modules.local.class_conditional_ldm ['round', 'spiky']",
        "synth.ldm.pipeline ['round', 'spiky']",
    ]


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
