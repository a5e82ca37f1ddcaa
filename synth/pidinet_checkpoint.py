"""Checkpoints of PiDiNet: the authors' files, read without their pickled objects, and the licence notice."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rlcas.console import say
from rlcas.errors import UserError
from synth.pidinet import VARIANTS, PiDiNet

WHERE_TO_GET = "table5_pidinet.pth from github.com/hellozhuo/pidinet, folder trained_models"


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
