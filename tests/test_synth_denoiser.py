from __future__ import annotations

import pytest
import torch

from rlcas.config import DenoiserConfig
from synth.denoiser import SketchDecoder, SketchSupervisedDenoiser, Tap, build_unet

CONFIG = DenoiserConfig(channels=(8, 16, 16, 24), dropout=0.0)


def build(with_sketch: bool = True, factor: int = 4) -> SketchSupervisedDenoiser:
    torch.manual_seed(0)
    unet = build_unet(CONFIG, latent_channels=4, latent_size=(16, 24), num_classes=3)
    return SketchSupervisedDenoiser(unet, factor, with_sketch=with_sketch)


def inputs(num: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noisy = torch.randn(num, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    return noisy, torch.tensor([10, 900])[:num], torch.tensor([0, 3])[:num]


def test_the_tap_reads_all_four_resolutions_and_empties_itself() -> None:
    unet = build().release_unet()
    tap = Tap(unet)
    unet(*inputs()[:2], class_labels=inputs()[2])
    shapes = [tuple(feature.shape) for feature in tap.take()]
    assert shapes == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 16, 4, 6), (2, 24, 2, 3)]
    assert tap.take() == []
    tap.remove()
    unet(*inputs()[:2], class_labels=inputs()[2])
    assert tap.take() == []


def test_the_sketch_loss_teaches_the_whole_way_down_and_nothing_else() -> None:
    denoiser = build()
    _, sketches = denoiser(*inputs())
    sketches.square().sum().backward()
    taught = {name for name, p in denoiser.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    last_down = "unet.down_blocks.3."
    for name, _ in denoiser.named_parameters():
        down = (
            "unet.conv_in",
            "unet.time_embedding",
            "unet.class_embedding",
            "unet.down_blocks",
            "sketch_decoder",
        )
        assert (name in taught) == name.startswith(down), name
    assert any(name.startswith(last_down) for name in taught)


def test_the_branch_leaves_the_prediction_as_it_is() -> None:
    with_branch, without = build(), build(with_sketch=False)
    without.unet.load_state_dict(with_branch.unet.state_dict())
    predicted, sketches = with_branch(*inputs())
    plain, none = without(*inputs())
    assert torch.equal(predicted, plain) and sketches is not None and none is None
    assert list(without.unet.state_dict()) == list(with_branch.release_unet().state_dict())


@pytest.mark.parametrize(("factor", "size"), [(2, (32, 48)), (4, (64, 96)), (8, (128, 192))])
def test_the_predicted_sketch_has_the_pixels_of_the_image(factor: int, size: tuple[int, int]) -> None:
    _, sketches = build(factor=factor)(*inputs())
    assert sketches.shape == (2, 1, *size)
    assert sketches.min() > 0 and sketches.max() < 1


def test_the_null_class_has_a_row_of_its_own_and_labels_beyond_it_are_refused() -> None:
    unet = build().release_unet()
    assert unet.class_embedding.weight.shape[0] == 4
    noisy, timesteps, _ = inputs()
    by_label = [unet(noisy, timesteps, class_labels=torch.full((2,), label)).sample for label in range(4)]
    assert all(not torch.equal(by_label[3], by_label[label]) for label in range(3))
    with pytest.raises(IndexError):
        unet(noisy, timesteps, class_labels=torch.tensor([4, 0]))


def test_the_sketch_decoder_is_lean() -> None:
    decoder = SketchDecoder((64, 96, 128, 128), factor=8)
    assert sum(parameter.numel() for parameter in decoder.parameters()) < 100_000
