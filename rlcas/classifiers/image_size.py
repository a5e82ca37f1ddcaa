"""Whether a classifier takes images of a size and reads all their pixels, found by trying it."""

from __future__ import annotations

import bisect
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rlcas.classifiers.build import UNFIT, build_classifier, replaces_first_layer
from rlcas.config import ClassifierConfig
from rlcas.devices import place, same_bits
from rlcas.errors import UserError, first_line

CPU = torch.device("cpu")
OF_NETWORK = {"backbone", "width", "small_stem_below_px"}
"""Settings on which the network depends, apart from its weights."""
NEAR_PX, FAR_PX, STEP_PX = 32, 512, 32
"""Other sizes that are tried: every one that is so near, then multiples of the step up to the far one."""


class _Fault(NamedTuple):
    text: str
    in_part: bool
    """Whether the images are read in part; False where they cannot be read at all."""


def check_image_size(
    config: ClassifierConfig, image_shape_CHW: tuple[int, int, int], num_classes: int
) -> tuple[str, ...]:
    """Check that a classifier can be trained on the images and reads all of them; return notes for the user.

    Raises:
        UserError: it cannot or does not, and the line has the size that fits; or its pretrained weights cannot be read.
    """
    if fault := _unfit(config, image_shape_CHW, num_classes):
        raise UserError(f"classifier.backbone {config.backbone!r} {fault}")
    if not config.pretrained:
        return ()
    channels, height, _ = image_shape_CHW
    # Read once here: otherwise weights that cannot be read would show in the workers, after phase one.
    with same_bits(CPU):
        build_classifier(config, channels=channels, num_classes=num_classes, size_px=height)
    if not replaces_first_layer(config, height):
        return ()
    return (
        f"classifier.pretrained leaves out the first layer of {config.backbone!r}, which is a new one for images of "
        f"{height} px: --classifier.small_stem_below_px 0 keeps the pretrained one",
    )


def _unfit(config: ClassifierConfig, image_shape_CHW: tuple[int, int, int], num_classes: int) -> str | None:
    """Return what is wrong with a classifier for the images, and which size is right; None if nothing is."""
    # The rows of a comparison and the trials of a sweep differ in other settings than these.
    return _tried(ClassifierConfig(**config.model_dump(include=OF_NETWORK)), image_shape_CHW, num_classes)


@functools.lru_cache(maxsize=64)
def _tried(config: ClassifierConfig, image_shape_CHW: tuple[int, int, int], num_classes: int) -> str | None:
    channels, height, width = image_shape_CHW
    found = _fault(config, image_shape_CHW, num_classes)
    if found is None:
        return None
    if channels == 1 and not found.in_part and _fault(config, (3, height, width), num_classes) is None:
        return f"{found.text}, but those with three channels: set dataset.channels 3, or use another backbone"

    def fault_at(size_px: int) -> _Fault | None:
        return _fault(config, (channels, size_px, size_px), num_classes)

    sizes = _sizes_to_try(max(height, width), fault_at, smaller_too=found.in_part)
    fitting = next((size for size in sizes if fault_at(size) is None), None)
    if fitting is None:
        return f"{found.text}, and no dataset.size_px up to {FAR_PX} fits: use another backbone"
    works = "that it reads whole" if found.in_part else "that works"
    side = max(height, width)
    from_here = not found.in_part and fitting >= side
    which = f"the smallest from {side} px on" if from_here else "the nearest"
    return f"{found.text}: set dataset.size_px {fitting}, {which} {works}, or use another backbone"


def _sizes_to_try(
    size_px: int, fault_at: Callable[[int], _Fault | None], *, smaller_too: bool
) -> Iterator[int]:
    """Yield sizes, the best first: if the smaller are as good, by distance, else the smaller after the larger."""
    yield size_px  # for images that are not square
    larger, smaller = (
        range(size_px + 1, size_px + NEAR_PX + 1),
        range(size_px - 1, max(0, size_px - NEAR_PX), -1),
    )
    if smaller_too:
        yield from (size for pair in itertools.zip_longest(larger, smaller) for size in pair if size)
    else:
        yield from larger
    for size in range(_multiple_above(size_px + NEAR_PX), FAR_PX + 1, STEP_PX):
        fault = fault_at(size)
        if fault is None or fault.in_part:
            # What was too small before it may fit from any size between them, or just above.
            yield from range(size - STEP_PX + 1, size + STEP_PX)
            break
    yield from smaller
    yield from range(_multiple_above(size_px - NEAR_PX) - STEP_PX, 0, -STEP_PX)


def _multiple_above(size_px: int) -> int:
    return (size_px // STEP_PX + 1) * STEP_PX


def _fault(config: ClassifierConfig, image_shape_CHW: tuple[int, int, int], num_classes: int) -> _Fault | None:
    """Return what is wrong with a classifier for the images; None if nothing is."""
    channels, height, width = image_shape_CHW
    # Some networks warn of sizes or channels; those that work are none of the user's concern.
    with same_bits(CPU), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network = build_classifier(config, channels=channels, num_classes=num_classes, size_px=height)
            network = place(network, CPU)
            gradient_1CHW = _trained_on_two(network, image_shape_CHW, num_classes)
            network.eval()
            unread_px = _unread_px(network, gradient_1CHW)
            unread_inside = _unread_inside(network, gradient_1CHW)
        # Before UNFIT, which has ValueError, the base of UserError.
        except UserError:
            raise
        except UNFIT as error:
            return _Fault(f"cannot take images of {height} x {width} px ({first_line(error)})", in_part=False)
    if not any(unread_px.values()):
        if unread_inside == 0:
            return None
        return _Fault(
            f"reads only {100 * (1 - unread_inside):.0f} % of the pixels of images of {height} x {width} px",
            in_part=True,
        )
    rows, columns = (
        height - unread_px["top"] - unread_px["bottom"],
        width - unread_px["left"] - unread_px["right"],
    )
    text = f"reads only {max(rows, 0)} x {max(columns, 0)} of the images' {height} x {width} px"
    return _Fault(text, in_part=True)


def _unread_px(network: nn.Module, gradient_1CHW: Tensor) -> dict[str, int]:
    """Return how many rows or columns of pixels at each side of the images can never change the output."""

    def matter(side: str, number: int) -> bool:
        """Return whether any of the outer rows or columns changes the output."""
        if _outer(gradient_1CHW, side, number).any():
            return True
        chosen_1CHW = torch.zeros_like(gradient_1CHW, dtype=torch.bool)
        _outer(chosen_1CHW, side, number).fill_(True)
        return _are_read(network, chosen_1CHW)

    *_, height, width = gradient_1CHW.shape
    sizes_px = {"top": height, "bottom": height, "left": width, "right": width}
    return {
        side: bisect.bisect_left(range(1, size_px + 1), True, key=functools.partial(matter, side))
        for side, size_px in sizes_px.items()
    }


def _unread_inside(network: nn.Module, gradient_1CHW: Tensor) -> float:
    """Return the share of pixels that can never change the output, of all pixels."""
    still_1CHW = (gradient_1CHW == 0).all(dim=1, keepdim=True).expand_as(gradient_1CHW)
    # If some of them are read after all, the gradient says nothing of the others.
    return 0.0 if _are_read(network, still_1CHW) else float(still_1CHW.float().mean())


def _are_read(network: nn.Module, chosen_1CHW: Tensor) -> bool:
    """Return whether any of the chosen pixels can change the output."""
    if not chosen_1CHW.any():
        return False
    # The gradient is 0 too where a network begins with weights of 0, but 0 x NaN is NaN.
    images_1CHW = torch.rand(chosen_1CHW.shape).masked_fill(chosen_1CHW, torch.nan)
    with torch.no_grad():
        return not bool(network(images_1CHW).isfinite().all())


def _trained_on_two(network: nn.Module, image_shape_CHW: tuple[int, int, int], num_classes: int) -> Tensor:
    """Pass a mini-batch of two forward and backward; return the absolute gradient of the images, [1, C, H, W]."""
    images_NCHW = torch.rand(2, *image_shape_CHW, requires_grad=True)
    logits_NC = network.train()(images_NCHW)
    if logits_NC.shape != (2, num_classes):
        raise ValueError(f"of two images it makes {tuple(logits_NC.shape)}, not (2, {num_classes})")
    cross_entropy(logits_NC.float(), torch.zeros(2, dtype=torch.int64)).backward()
    gradient = images_NCHW.grad
    return torch.zeros(1, *image_shape_CHW) if gradient is None else gradient.abs().sum(dim=0, keepdim=True)


def _outer(tensor_NCHW: Tensor, side: str, number: int) -> Tensor:
    """Return a view of the outermost rows or columns at a side."""
    axis = 2 if side in ("top", "bottom") else 3
    start = 0 if side in ("top", "left") else tensor_NCHW.shape[axis] - number
    return tensor_NCHW.narrow(axis, start, number)
