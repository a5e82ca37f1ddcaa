"""Pools from real images: which images are sources, what strength does, the same bytes however they are made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_run
import tiny
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler, SchedulerMixin
from tiny_synth import squares, tiny_config, tiny_data

from cluster.comparison.plan import plan
from cluster.pools.make import sample_pool
from cluster.pools.start_images import confused_classes, own_images, start_images
from cluster.runs.checks import check_settings
from cluster.runs.dry_run import synthesis_seconds
from cluster.runs.run import make_pool, synthesise
from rlcas import settings
from rlcas.config import ClusterConfig, RunConfig
from rlcas.data import open_prepared
from rlcas.errors import UserError
from rlcas.runs.context import RunContext
from rlcas.runs.folder import RunFolder
from rlcas.storage.atomic import sha256_of
from rlcas.types import ImageSet, Uint8
from synth.generate import MicroBatch, SampleAll, fill_pool, open_sampler, sample_micro_batch
from synth.ldm.latents import normalised, posterior
from synth.ldm.sampler import LdmSampler, load_pipeline
from synth.ldm.start_images import DealtImages
from synth.ldm.train import train_synthesiser
from synth.pool import SyntheticPool

CPU = torch.device("cpu")
DATA = tiny_data()
SIZES = [26, 9]


def config_of(**generation: object) -> RunConfig:
    """Return settings of 4 steps that start from images, unless `start` says otherwise."""
    return tiny_config(generation={"start": "image", "steps": 4, **generation})


@pytest.fixture(scope="module")
def synthesiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator whose classes differ, though it was hardly trained."""
    folder = tmp_path_factory.mktemp("synth")
    train_synthesiser(DATA, tiny_config(), folder, device=CPU, progress=False)
    pipeline = load_pipeline(folder / "pipeline", CPU)
    torch.manual_seed(0)
    torch.nn.init.normal_(pipeline.unet.class_embedding.weight)
    torch.nn.init.normal_(pipeline.unet.conv_out.weight, std=0.2)
    pipeline.save_pretrained(folder / "pipeline")
    return folder


def fill(
    synthesiser: Path,
    folder: Path,
    config: RunConfig,
    sample_all: SampleAll | None = None,
    sizes: Sequence[int] = SIZES,
) -> Path:
    start = own_images(DATA, config)
    fill_pool(
        synthesiser,
        folder,
        list(sizes),
        config,
        device=CPU,
        progress=False,
        sample_all=sample_all,
        start=start,
    )
    return folder


@pytest.fixture(scope="module")
def alone(synthesiser: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool from images, filled by one process."""
    return fill(synthesiser, tmp_path_factory.mktemp("pools") / "alone", config_of())


def contents(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): sha256_of(file)
        for file in folder.rglob("*")
        if file.is_file() and file.name != "verified.json"
    }


def images_of(folder: Path, class_id: int = 0) -> Uint8:
    pool = SyntheticPool(folder)
    return pool.images(class_id, np.arange(pool.class_sizes_C[class_id]))


def as_floats(images_NCHW: Uint8) -> torch.Tensor:
    return torch.from_numpy(images_NCHW.copy()).float() / 255.0


def test_an_interrupted_pool_has_the_bytes_of_one_that_was_not_in_any_order(
    synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    config = config_of()
    sampler, start = open_sampler(synthesiser, config, CPU), own_images(DATA, config)

    def backwards(wanted: Sequence[MicroBatch], stop: int) -> Iterator[tuple[MicroBatch, Uint8]]:
        for batch in [*reversed(wanted)][:stop]:
            yield batch, sample_micro_batch(sampler, batch, config, CPU, start)
        if stop < len(wanted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(synthesiser, tmp_path, config, lambda wanted: backwards(wanted, 5))
    assert list(tmp_path.rglob("*.npy")) and not (tmp_path / "manifest.json").exists()
    fill(synthesiser, tmp_path, config, lambda wanted: backwards(wanted, len(wanted)))
    assert contents(tmp_path) == contents(alone)


def test_an_image_does_not_depend_on_the_size_of_the_pool(
    synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    fewer = images_of(fill(synthesiser, tmp_path, config_of(), sizes=[5, 3]))
    np.testing.assert_array_equal(fewer, images_of(alone)[:5])


@pytest.mark.medium
def test_workers_on_ray_write_the_bytes_of_one_process(
    ray_session: None, synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    from cluster.synthesis.ray_data import SamplingWorkers

    config = config_of().model_copy(update={"cluster": ClusterConfig(sampling_workers=2), "device": "cpu"})
    workers = SamplingWorkers(synthesiser, config, own_images(DATA, config))
    fill(synthesiser, tmp_path / "pool", config, workers)
    assert contents(tmp_path / "pool") == contents(alone)


def test_every_source_has_its_turn_once_a_round_and_is_a_training_image_of_the_class() -> None:
    start = own_images(DATA, config_of())
    assert start is not None
    for class_id in range(2):
        own = DATA.train.images_NCHW[DATA.train.labels_N == class_id]
        wanted = sorted(image.tobytes() for image in own)
        rounds = [
            [image.tobytes() for image in start.images(class_id, range(r * len(own), (r + 1) * len(own)))]
            for r in range(4)
        ]
        assert all(sorted(dealt) == wanted for dealt in rounds)
        assert len({tuple(dealt) for dealt in rounds}) > 1
        np.testing.assert_array_equal(start.images(class_id, range(7, 9)), start.images(class_id, range(9))[7:])
    other = own_images(DATA, config_of().model_copy(update={"seed": 1}))
    assert other is not None
    assert (start.images(0, range(8)) != other.images(0, range(8))).any()


def test_neither_validation_nor_other_images_are_ever_a_source() -> None:
    known = {image.tobytes() for image in DATA.train.images_NCHW}
    other = replace(DATA, val=ImageSet(images_NCHW=squares(40, seed=9), labels_N=np.arange(40) % 2))
    for data in (DATA, other):
        start = own_images(data, config_of())
        assert start is not None
        assert {image.tobytes() for c in range(2) for image in start.images(c, range(30))} == known
    ours, theirs = (own_images(data, config_of()) for data in (DATA, other))
    assert ours is not None and theirs is not None and ours.origin == theirs.origin


def test_the_manifest_names_the_sources_and_other_images_are_another_pool(
    synthesiser: Path, alone: Path, tmp_path: Path
) -> None:
    source = json.loads((alone / "manifest.json").read_text())["source"]
    assert source["start"] == "image" and source["sources"] == "own" and source["strength"] == 0.5
    assert source["source_class_of"] == {"round": "round", "spiky": "spiky"}
    noise = fill(synthesiser, tmp_path / "noise", config_of(start="noise"))
    plain = json.loads((noise / "manifest.json").read_text())["source"]
    assert not {"start", "strength", "sources", "source_images_sha256"} & plain.keys()
    altered = DATA.train.images_NCHW.copy()
    altered[3, 0, 5, 5] ^= 1
    start = DealtImages(
        replace(DATA.train, images_NCHW=altered), [0, 1], DATA.class_names, seed=0, chosen_by="own"
    )
    assert start.origin["source_images_sha256"] != source["source_images_sha256"]
    for config, images in ((config_of(), start), (config_of(strength=0.75), own_images(DATA, config_of()))):
        with pytest.raises(UserError, match="alone holds a pool of another origin or of other settings"):
            fill_pool(synthesiser, alone, SIZES, config, device=CPU, progress=False, start=images)


def test_a_pool_from_images_is_not_the_pool_from_noise(synthesiser: Path, alone: Path, tmp_path: Path) -> None:
    noise = images_of(fill(synthesiser, tmp_path / "noise", config_of(start="noise")))
    whole = images_of(fill(synthesiser, tmp_path / "whole", config_of(strength=1.0))).astype(float)
    half, noise = images_of(alone).astype(float), noise.astype(float)
    assert abs(half - noise).mean() > 5 * abs(whole - noise).mean()
    assert abs(whole - noise).mean() < 1.0


def test_a_low_strength_gives_nearly_the_autoencoders_reconstruction(synthesiser: Path) -> None:
    sources = squares(4, seed=3)

    def latents_at(strength: float) -> torch.Tensor:
        config = config_of(steps=1000, strength=strength)
        generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
        return LdmSampler(synthesiser / "pipeline", config.synth.generation, CPU).latents(
            1, generators, as_floats(sources)
        )

    sampler = LdmSampler(synthesiser / "pipeline", config_of().synth.generation, CPU)
    encoded = sampler.pipeline.encode(as_floats(sources))
    squared = [(latents_at(strength) - encoded).square().mean().item() for strength in (0.001, 0.05, 0.2)]
    assert 0 < squared[0] < 1e-3 < squared[1] < squared[2]
    reconstructed = sampler.decode(encoded).astype(float)
    nearly, far = (
        abs(sampler.decode(latents_at(strength)) - reconstructed).mean() for strength in (0.001, 0.2)
    )
    assert nearly < far / 4
    # No step is as low: nothing but the autoencoder.
    (as_they_are,) = sampler.pipeline(
        [0] * 4,
        torch.manual_seed(0),
        4,
        output_type="latent",
        return_dict=False,
        images=as_floats(sources),
        strength=0.01,
    )
    torch.testing.assert_close(as_they_are, encoded)


@pytest.mark.parametrize(("channels", "side_px"), [(1, 20), (3, 16)])
def test_images_are_encoded_as_in_training(channels: int, side_px: int, tmp_path: Path) -> None:
    data = tiny_data(channels=channels, side_px=side_px)
    train_synthesiser(data, tiny_config(), tmp_path, device=CPU, progress=False)
    pipeline = load_pipeline(tmp_path / "pipeline", CPU)
    images = torch.from_numpy(data.train.images_NCHW)
    mean, _ = posterior(images, pipeline.vae)
    encoded = pipeline.encode(as_floats(data.train.images_NCHW))
    torch.testing.assert_close(encoded, normalised(mean, pipeline.vae), rtol=1e-4, atol=1e-4)


def test_gray_images_are_repeated_for_an_autoencoder_of_three_channels(
    synthesiser: Path, tmp_path: Path
) -> None:
    train_synthesiser(tiny_data(channels=3), tiny_config(), tmp_path, device=CPU, progress=False)
    pipeline = load_pipeline(tmp_path / "pipeline", CPU)
    gray = as_floats(DATA.train.images_NCHW)
    torch.testing.assert_close(pipeline.encode(gray), pipeline.encode(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("swapped", [None, DDIMScheduler, HeunDiscreteScheduler])
@pytest.mark.parametrize("strength", [0.25, 0.29, 0.5, 1.0])
def test_no_step_is_above_the_strength_and_all_others_are_taken(
    synthesiser: Path, swapped: type[SchedulerMixin] | None, strength: float
) -> None:
    pipeline, seen = load_pipeline(synthesiser / "pipeline", CPU), []
    if swapped is not None:
        pipeline.scheduler = swapped.from_config(pipeline.scheduler.config)
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[1])))
    pipeline([0], torch.manual_seed(0), 100, 1.0, images=as_floats(squares(1)), strength=strength)
    taken = set(map(float, pipeline.scheduler.timesteps.tolist()))
    assert set(seen) == {step for step in taken if step <= 1000 * strength}
    assert len(set(seen)) == pytest.approx(100 * strength, abs=1 if swapped is HeunDiscreteScheduler else 1e-9)


def test_a_call_from_an_image_leaves_no_trace_in_the_next_one_from_noise(synthesiser: Path) -> None:
    pipeline = load_pipeline(synthesiser / "pipeline", CPU)

    def noise() -> np.ndarray:
        (images,) = pipeline([1], torch.Generator().manual_seed(3), 5, output_type="np", return_dict=False)
        return images

    before = noise()
    pipeline([1], torch.manual_seed(0), 5, images=as_floats(squares(1)), strength=0.5)
    np.testing.assert_array_equal(noise(), before)


def test_the_pipeline_refuses_images_and_strengths_that_do_not_fit(synthesiser: Path) -> None:
    pipeline = load_pipeline(synthesiser / "pipeline", CPU)
    with pytest.raises(ValueError, match=r"images have the shape \[2, 1, 20, 20\]: give \[1, 1, 20, 20\]"):
        pipeline([0], images=as_floats(squares(2)))
    with pytest.raises(ValueError, match=r"images have the shape \[1, 1, 16, 16\]: give \[1, 1, 20, 20\]"):
        pipeline([0], images=as_floats(squares(1, side_px=16)))
    for strength in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"strength {strength} is no noise level: give one above 0"):
            pipeline([0], images=as_floats(squares(1)), strength=strength)


def test_the_class_that_is_most_probably_taken_is_chosen_among_the_more_frequent_ones() -> None:
    labels_N = np.array([0] * 5 + [1] * 3 + [2] * 3 + [3])
    probabilities_NC = np.zeros((12, 4))
    probabilities_NC[labels_N == 0] = (0.1, 0.2, 0.6, 0.1)
    probabilities_NC[labels_N == 1] = (0.1, 0.2, 0.6, 0.1)  # class 2 has as many images, not more
    probabilities_NC[labels_N == 2] = (0.3, 0.5, 0.2, 0.0)
    probabilities_NC[labels_N == 3] = (0.2, 0.3, 0.3, 0.2)  # of equals the first
    assert confused_classes(probabilities_NC, labels_N).tolist() == [0, 0, 0, 1]
    # The mean counts, not one image.
    probabilities_NC[5:8] = [(0.0, 1.0, 0.0, 0.0)] * 3
    assert confused_classes(probabilities_NC, labels_N)[1] == 0


def test_confused_sources_come_from_the_class_that_the_judge_names(tmp_path: Path) -> None:
    data = tiny.tiny_data()
    config = tiny.tiny_config(
        sampler={"epochs": 1}, synth={"generation": {"start": "image", "sources": "confused"}}
    )
    start = start_images(RunContext(RunFolder(tmp_path), config, data, CPU))
    assert start is not None and (tmp_path / "judge/model.safetensors").exists()
    names, counts_C = data.class_names, data.train.class_counts(3)
    source_class_of = start.origin["source_class_of"]
    assert start.origin["sources"] == "confused" and set(source_class_of) == set(names)
    for c, name in enumerate(names):
        chosen = names.index(source_class_of[name])
        assert counts_C[chosen] > counts_C[c] or (chosen == c and counts_C[c] == counts_C.max())
        own = {image.tobytes() for image in data.train.images_NCHW[data.train.labels_N == chosen]}
        assert {image.tobytes() for image in start.images(c, range(60))} == own


def test_a_run_makes_and_resumes_its_pool_from_images_and_an_estimate_has_them_too(tmp_path: Path) -> None:
    small_run.write_npz(tmp_path / "shapes.npz")
    flags = dict(zip((word[2:] for word in small_run.flags()[::2]), small_run.flags()[1::2], strict=True))
    config = settings.resolve(
        given={
            **flags,
            "data": f"npz:{tmp_path / 'shapes.npz'}",
            "out": str(tmp_path / "run"),
            "synth.generation.start": "image",
            "synth.generation.sources": "confused",
            "synth.scoring.extractor": "pixels",
        }
    )
    synthesise(config)
    make_pool(tmp_path / "run")
    before = contents(tmp_path / "run/pool")
    source = json.loads((tmp_path / "run/pool/manifest.json").read_text())["source"]
    assert source["sources"] == "confused" and source["source_class_of"]["disc"] == "disc"
    assert source["source_class_of"]["bar"] == source["source_class_of"]["<b>cross</b>"] == "disc"
    (tmp_path / "run/pool/class-001/shard-000.npy").unlink()
    context = RunContext(
        RunFolder(tmp_path / "run"),
        settings.load(tmp_path / "run"),
        open_prepared(RunFolder(tmp_path / "run").prepared),
        CPU,
    )
    sample_pool(context)
    after = contents(tmp_path / "run/pool")
    assert {name for name in before if before[name] != after.get(name)} <= {"copies.json"}
    assert synthesis_seconds(context.config, context.data)["pool"] > 0


def test_settings_of_a_start_from_images_stated_with_noise_are_refused() -> None:
    for name, value in (("strength", "0.5"), ("sources", "own")):
        with pytest.raises(
            UserError,
            match=rf"synth.generation.{name} {value} is for synth.generation.start image, not for noise",
        ):
            settings.resolve(given={f"synth.generation.{name}": value})
    with pytest.raises(UserError, match=r"synth.generation.strength is '0': input should be greater than 0"):
        settings.resolve(given={"synth.generation.start": "image", "synth.generation.strength": "0"})
    with pytest.raises(
        UserError, match=r"strength 0.01 leaves none of synth.generation.steps 20: raise one of"
    ):
        settings.resolve(given={"synth.generation.start": "image", "synth.generation.strength": "0.01"})


def test_the_defaults_of_a_start_from_images_are_filled_in_and_go_with_it() -> None:
    image = settings.resolve(given={"synth.generation.start": "image"})
    assert (image.synth.generation.strength, image.synth.generation.sources) == (0.5, "own")
    assert settings.validated(image.model_dump(mode="json")) == image
    noise = settings.override(image, {"synth.generation.start": "noise"})
    assert (noise.synth.generation.strength, noise.synth.generation.sources) == (None, None)
    assert settings.validated(noise.model_dump(mode="json")) == noise
    stronger = settings.override(image, {"synth.generation.strength": "0.7"})
    assert stronger.synth.generation.strength == 0.7


@pytest.mark.parametrize("generator", ["mgdm", "skin_sdm"])
def test_generators_that_start_from_noise_alone_say_so_in_one_line(generator: str, tmp_path: Path) -> None:
    config = settings.resolve(given={"synth.generator": generator, "synth.generation.start": "image"})
    said = (
        f"synth.generation.start image is for synth.generator ldm, but {generator} starts from noise alone: set"
    )
    with pytest.raises(UserError, match=said):
        check_settings(config)
    with pytest.raises(UserError, match=said):
        open_sampler(tmp_path, config, CPU)


def test_in_a_comparison_the_pools_of_published_generators_start_from_noise() -> None:
    planned = plan(
        {
            "data": "phantom",
            "synth": {"generation": {"start": "image", "strength": 0.3}},
            "compare": {"methods": ["syn_sketch", "mgdm"]},
        }
    )
    starts = {name: config.synth.generation.start for name, config in planned.pools.items()}
    assert starts == {"sketch": "image", "mgdm": "noise"}
