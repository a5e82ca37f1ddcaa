"""Pixel Difference Networks for edge detection (Su et al., ICCV 2021), written from the paper.

Full, small and tiny: four stages of residual blocks whose depthwise convolutions take differences of pixels in
the cycle central, angular, radial, vanilla ("carv4"); each stage has a side head (CDCM, CSAM); the four maps are
fused. The modules have the names of the authors' checkpoints, so that these load as they are.
"""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlcas.console import say
from rlcas.errors import UserError

Kind = Literal["central", "angular", "radial", "vanilla"]
Offset = tuple[int, int]

VARIANTS: dict[str, tuple[int, int | None]] = {
    "full": (60, 24),
    "small": (30, 12),
    "tiny": (20, 8),
    "full-l": (60, None),
    "small-l": (30, None),
    "tiny-l": (20, None),
}
"""Channels of the first stage and of the side heads (None: the light variants "-l" have neither CDCM nor CSAM)."""

CARV4: tuple[Kind, ...] = ("central", "angular", "radial", "vanilla")
BLOCKS_PER_STAGE = (3, 4, 4, 4)
WIDTHS = (1, 2, 4, 4)
DILATIONS = (5, 7, 9, 11)
WHERE_TO_GET = "table5_pidinet.pth from github.com/hellozhuo/pidinet, folder trained_models"
SMALLEST_SIDE_PX = 8

CENTRE: Offset = (0, 0)
GRID: tuple[Offset, ...] = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
RING: tuple[Offset, ...] = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
CLOCKWISE = dict(zip(RING, RING[1:] + RING[:1], strict=True))

PAIRS: dict[str, list[tuple[Offset, Offset]]] = {
    "central": [(pixel, CENTRE) for pixel in GRID],
    "angular": [(pixel, CLOCKWISE.get(pixel, CENTRE)) for pixel in GRID],
    # The authors' radial kernels have nine weights and use eight: the first one multiplies a difference of zero
    # here, and the other eight go row by row around the centre.
    "radial": [(CENTRE, CENTRE), *(((2 * y, 2 * x), (y, x)) for y, x in GRID if (y, x) != CENTRE)],
}
"""Offsets (y, x) of the pixels x_i and x'_i whose difference weight i of a 3x3 kernel multiplies, row by row."""


class PixelDifferenceConv(nn.Conv2d):
    """y = Σ_i w_i (x_i − x'_i) over the nine PAIRS of a kind (eq. 2 of the paper), with zero padding.

    Args:
        kind: a key of PAIRS.
        in_channels: channels of the input.
        out_channels: channels of the output.
        groups: groups of channels, as in `nn.Conv2d`.
    """

    def __init__(self, kind: str, in_channels: int, out_channels: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, groups=groups, bias=False)
        self.pairs = PAIRS[kind]
        self.reach = 2 if kind == "radial" else 1  # the outer ring of the radial kind is two pixels away

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, out_channels, H, W], from the differences themselves."""
        height, width = x_NCHW.shape[2:]
        padded = F.pad(x_NCHW, (self.reach,) * 4)

        def shifted(offset: Offset) -> Tensor:
            top, left = offset[0] + self.reach, offset[1] + self.reach
            return padded[:, :, top : top + height, left : left + width]

        # A 1x1 convolution over 9 C channels: eq. 2 with the nine differences of a channel side by side.
        differences_NC9HW = torch.stack([shifted(one) - shifted(other) for one, other in self.pairs], dim=2)
        weights = self.weight.flatten(1)[:, :, None, None]
        return F.conv2d(differences_NC9HW.flatten(1, 2), weights, groups=self.groups)

    def converted(self) -> nn.Conv2d:
        """Return the equivalent plain convolution: weight i at x_i, minus weight i at x'_i."""
        side = 2 * self.reach + 1
        kernel = self.weight.new_zeros(*self.weight.shape[:2], side, side)
        for weight, (one, other) in zip(self.weight.detach().flatten(2).unbind(2), self.pairs, strict=True):
            # Added up: the centre is in every central pair, and a pixel of the ring in two angular ones.
            kernel[:, :, one[0] + self.reach, one[1] + self.reach] += weight
            kernel[:, :, other[0] + self.reach, other[1] + self.reach] -= weight
        channels = self.in_channels, self.out_channels
        # On meta the layer gets neither memory nor random initial weights, which would advance torch's global
        # random state; its weight is replaced at once.
        plain = nn.Conv2d(*channels, side, padding="same", groups=self.groups, bias=False, device="meta")
        plain.weight = nn.Parameter(kernel, requires_grad=self.weight.requires_grad)
        return plain


class Block(nn.Module):
    """Residual block: depthwise 3x3 convolution of some kind, ReLU, 1x1 convolution, plus a shortcut.

    Args:
        kind: kind of the 3x3 convolution.
        in_channels: channels of the input.
        out_channels: channels of the output.
        halves: halve the sides first, as the first block of each stage but stage one does.
    """

    def __init__(self, kind: Kind, in_channels: int, out_channels: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = _conv3x3(kind, in_channels, in_channels, groups=in_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if halves else nn.Identity()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, out_channels, H, W]; with `halves`, H and W are halved and rounded down."""
        if self.halves:
            x_NCHW = F.max_pool2d(x_NCHW, 2)
        return self.conv2(F.relu(self.conv1(x_NCHW))) + self.shortcut(x_NCHW)


class CDCM(nn.Module):
    """Compact dilation convolution module: a 1x1 convolution to fewer channels, then the sum of four dilated ones."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1)
        for number, dilation in enumerate(DILATIONS, start=1):
            dilated = nn.Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
            self.add_module(f"conv2_{number}", dilated)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, out_channels, H, W]."""
        reduce, *dilated = self.children()  # in the order in which __init__ registered them
        reduced = reduce(F.relu(x_NCHW))
        return torch.stack([conv(reduced) for conv in dilated]).sum(dim=0)


class CSAM(nn.Module):
    """Compact spatial attention module: every pixel gets a weight between 0 and 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 1)
        self.conv2 = nn.Conv2d(4, 1, 3, padding=1, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the weighted input [N, channels, H, W]."""
        return x_NCHW * self.conv2(self.conv1(F.relu(x_NCHW))).sigmoid()


class PiDiNet(nn.Module):
    """The network of one of VARIANTS, with pixel-difference convolutions; `convert` replaces them by plain ones."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        first, head = VARIANTS[variant]
        # The cycle goes on through all 16 layers, the initial one included: a stage does not begin anew with
        # the central kind.
        widths, kinds = [first * times for times in WIDTHS], itertools.cycle(CARV4)
        self.init_block = _conv3x3(next(kinds), 3, first)
        before = first
        for stage, (width, blocks) in enumerate(zip(widths, BLOCKS_PER_STAGE, strict=True), start=1):
            for number in range(1, blocks + 1):
                block = Block(next(kinds), before, width, halves=stage > 1 and number == 1)
                self.add_module(f"block{stage}_{number}", block)
                before = width
        self.dilations = nn.ModuleList(CDCM(width, head) if head else nn.Identity() for width in widths)
        self.attentions = nn.ModuleList(CSAM(head) if head else nn.Identity() for _ in widths)
        self.conv_reduces = nn.ModuleList(
            nn.Sequential(OrderedDict(conv=nn.Conv2d(head or width, 1, 1))) for width in widths
        )
        self.classifier = nn.Conv2d(len(widths), 1, 1)

    def forward(self, images_N3HW: Tensor) -> Tensor:
        """Return [N, 5, H, W] in [0, 1]: the maps of the four sides, then the fused one.

        Args:
            images_N3HW: float32 RGB, normalised by ImageNet's mean and standard deviation; sides from 8 px.
        """
        x, sides = self.init_block(images_N3HW), []
        heads = zip(self.dilations, self.attentions, self.conv_reduces, strict=True)
        for stage, (dilate, attend, reduce) in enumerate(heads, start=1):
            for number in range(1, BLOCKS_PER_STAGE[stage - 1] + 1):
                x = self.get_submodule(f"block{stage}_{number}")(x)
            side = reduce(attend(dilate(x)))
            sides.append(F.interpolate(side, images_N3HW.shape[2:], mode="bilinear"))
        return torch.cat([*sides, self.classifier(torch.cat(sides, dim=1))], dim=1).sigmoid()


def convert(network: PiDiNet) -> PiDiNet:
    """Replace the network's pixel-difference convolutions by equivalent plain ones, in place; return the network."""
    # A list, because modules are replaced while it is walked through.
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, PixelDifferenceConv):
                setattr(module, name, child.converted())
    return network


def _conv3x3(kind: Kind, in_channels: int, out_channels: int, groups: int = 1) -> nn.Conv2d:
    if kind == "vanilla":
        return nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=groups, bias=False)
    return PixelDifferenceConv(kind, in_channels, out_channels, groups)


def load_pidinet(weights: Path | str | None, variant: str | None = None) -> PiDiNet:
    """Return the network of a checkpoint for inference, with its pixel-difference convolutions.

    Args:
        weights: one of the authors' checkpoints, or a bare state dict with their names.
        variant: one of VARIANTS. None: the one that the checkpoint holds.

    Raises:
        UserError: no checkpoint is named, the file is not one, it holds another variant, or `variant` is unknown.
    """
    if variant is not None and variant not in VARIANTS:
        raise UserError(f"variant {variant!r} of pidinet is unknown: use one of {', '.join(VARIANTS)}")
    if weights is None:
        raise UserError(
            f"sketch pidinet needs its checkpoint, which is not downloaded: get {WHERE_TO_GET}, "
            "and name the file with --synth.sketch_weights (in Python weights=)"
        )
    path = Path(weights).expanduser()
    state = _read(path)
    held = _variant_of(state, path)
    if variant not in (None, held):
        raise UserError(f"pidinet weights {path} are of variant {held}, not {variant}: set variant {held!r}")
    network = _empty(held)
    # assign, because parameters on meta have no memory to copy into; so the dtype is the file's, see _read.
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


@functools.cache
def show_licence_notice() -> None:
    """Show the terms of PiDiNet's authors, once a process."""
    say(
        "note: PiDiNet (Su et al., Pixel Difference Networks for Efficient Edge Detection, ICCV 2021; "
        "github.com/hellozhuo/pidinet) is for research only; agree with its authors on any commercial use first"
    )


def _empty(variant: str) -> PiDiNet:
    """Return the network without memory for its weights: they are assigned from the checkpoint."""
    with torch.device("meta"):
        return PiDiNet(variant)


@functools.cache
def _shapes(variant: str) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _empty(variant).state_dict().items()}


def _variant_of(state: Mapping[str, Tensor], path: Path) -> str:
    """Return the variant whose tensors have these names and shapes.

    Raises:
        UserError: none has.
    """
    shapes = {name: tensor.shape for name, tensor in state.items()}
    # No two variants have the same names and shapes, so the file need not say which it is.
    for variant in VARIANTS:
        if shapes == _shapes(variant):
            return variant
    raise UserError(f"pidinet weights {path} hold another network: get {WHERE_TO_GET}")


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, without DataParallel's prefix `module.`.

    Raises:
        UserError: the file cannot be read, or holds something other than tensors.
    """
    try:
        # weights_only: the file comes from the user, and unpickling objects would run code from it.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"pidinet weights {path} cannot be read: {error.strerror}: name the checkpoint with "
            "--synth.sketch_weights (in Python weights=)"
        ) from None
    except Exception as error:  # on a file that is not a checkpoint, the unpickler raises nearly anything
        raise UserError(
            f"pidinet weights {path} are not a checkpoint of tensors only (truncated, of another kind, or with "
            f"pickled objects, which are never loaded): get {WHERE_TO_GET}"
        ) from error
    if isinstance(content, dict):
        content = content.get("state_dict", content)  # the authors' files hold the epoch beside it
    items = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value.float() for name, value in items if isinstance(value, Tensor)}
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
