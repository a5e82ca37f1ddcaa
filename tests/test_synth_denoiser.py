from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from rlcas.config import DenoiserConfig
from synth.ldm.denoiser import FeatureHooks, SharedDropout, SketchDecoder, SketchSupervisedDenoiser, build_unet
from synth.training.workers import ALONE, Workers

CONFIG = DenoiserConfig(channels=(8, 16, 16, 24), dropout=0.0)


def plain_unet() -> UNet2DModel:
    torch.manual_seed(0)
    return build_unet(CONFIG, latent_channels=4, latent_size=(16, 24), num_classes=3)


def build(
    with_sketch: bool = True, factor: int = 4, num_augmentations: int = 0, dropout: nn.Module | None = None
) -> SketchSupervisedDenoiser:
    return SketchSupervisedDenoiser(
        plain_unet(),
        factor,
        with_sketch=with_sketch,
        num_augmentations=num_augmentations,
        dropout=dropout or nn.Identity(),
    )


def weights_of(denoiser: SketchSupervisedDenoiser) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in denoiser.named_parameters()}


def inputs(num: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    noisy = torch.randn(num, 4, 16, 24, generator=torch.Generator().manual_seed(1))
    return noisy, torch.tensor([10, 900])[:num], torch.tensor([0, 3])[:num]


def test_the_hooks_read_all_four_resolutions_and_are_cleared() -> None:
    unet = plain_unet()
    hooks = FeatureHooks(unet)
    unet(*inputs()[:2], class_labels=inputs()[2])
    shapes = [tuple(feature.shape) for feature in hooks.take()]
    assert shapes == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 16, 4, 6), (2, 24, 2, 3)]
    assert hooks.take() == []


def test_the_sketch_loss_has_gradients_in_all_down_blocks_and_nowhere_else() -> None:
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


def test_the_sketch_branch_does_not_change_the_prediction() -> None:
    with_branch, without = build(), build(with_sketch=False)
    without.unet.load_state_dict(with_branch.unet.state_dict())
    predicted, sketches = with_branch(*inputs())
    plain, none = without(*inputs())
    assert torch.equal(predicted, plain) and sketches is not None and none is None


@pytest.mark.parametrize(("factor", "size"), [(2, (32, 48)), (4, (64, 96)), (8, (128, 192))])
def test_the_predicted_sketch_has_the_pixels_of_the_image(factor: int, size: tuple[int, int]) -> None:
    _, sketches = build(factor=factor)(*inputs())
    assert sketches.shape == (2, 1, *size)
    assert sketches.min() > 0 and sketches.max() < 1


def test_the_null_class_has_a_row_of_its_own_and_labels_beyond_it_are_refused() -> None:
    unet = plain_unet()
    assert unet.class_embedding.weight.shape[0] == 4
    noisy, timesteps, _ = inputs()
    by_label = [unet(noisy, timesteps, class_labels=torch.full((2,), label)).sample for label in range(4)]
    assert all(not torch.equal(by_label[3], by_label[label]) for label in range(3))
    with pytest.raises(IndexError):
        unet(noisy, timesteps, class_labels=torch.tensor([4, 0]))


def test_the_sketch_decoder_is_small() -> None:
    decoder = SketchDecoder((64, 96, 128, 128), factor=8)
    assert sum(parameter.numel() for parameter in decoder.parameters()) < 100_000


def test_the_saved_unet_is_diffusers_own_with_the_passed_weights() -> None:
    denoiser = build(num_augmentations=5, dropout=SharedDropout(0.5, torch.Generator(), ALONE))
    doubled = {name: 2 * weight for name, weight in weights_of(denoiser).items()}
    unet = denoiser.stock_unet(doubled)
    assert list(unet.state_dict()) == list(plain_unet().state_dict())
    assert all(torch.equal(tensor, doubled[f"unet.{name}"]) for name, tensor in unet.state_dict().items())
    assert not unet.training and {type(block.resnets[0].dropout) for block in unet.down_blocks} == {nn.Dropout}
    assert not any(module._forward_hooks for module in unet.modules())


def test_an_unaltered_image_has_no_augmentation_embedding_and_a_moved_one_has() -> None:
    denoiser = build(num_augmentations=5)
    nn.init.ones_(denoiser.augmentation.weight)
    rows = torch.tensor([[0.0, 0, 0, 0, 0], [1.0, 0.5, 0, 0, 0]])
    moved, _ = denoiser(*inputs(), rows)
    unaltered, _ = denoiser(*inputs())
    torch.testing.assert_close(moved[0], unaltered[0], rtol=1e-4, atol=1e-5)
    assert (moved[1] - unaltered[1]).abs().max() > 1e-3


def test_workers_that_share_a_batch_have_the_dropout_masks_of_a_single_one() -> None:
    features = torch.ones(6, 3, 4, 4)

    def dropped(rank: int, size: int) -> torch.Tensor:
        workers = Workers(rank=rank, size=size)
        return SharedDropout(0.25, torch.Generator().manual_seed(7), workers)(workers.share(features))

    alone = dropped(0, 1)
    assert torch.equal(alone, torch.cat([dropped(rank, 3) for rank in range(3)]))
    assert alone.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (alone == 0).float().mean().item() == pytest.approx(0.25, abs=0.07)
    evaluated = SharedDropout(0.25, torch.Generator(), ALONE).eval()
    assert torch.equal(evaluated(features), features)
