"""BatchNorm whose statistics come from the real images of a mini-batch alone (`sampler.batch_norm real`)."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rlcas.classifiers.build import build_classifier
from rlcas.config import ClassifierConfig, RunConfig
from rlcas.devices import place, same_bits
from rlcas.errors import UserError


class RealStatistics(TorchFunctionMode):
    """While it is entered, torch's `batch_norm` in training takes mean and variance from the real rows alone.

    The running statistics follow from these too. The synthetic rows are normalised by the same mean and variance,
    through which their gradient flows. Where the real rows have fewer than two values a channel, the running
    statistics normalise all rows, and stay as they are.

    Args:
        num_real: images of the mini-batch that are real, the first ones.
        num_images: all its images. A layer may see several rows for each, those of an image side by side.
    """

    def __init__(self, num_real: int, num_images: int) -> None:
        super().__init__()
        self._num_real, self._num_images = num_real, num_images
        self.num_layers = 0
        """Layers that have computed statistics so far."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or in place of `torch.nn.functional.batch_norm` the one with real statistics."""
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    # The arguments of `torch.nn.functional.batch_norm`, in its order.
    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        normalise = functools.partial(
            F.batch_norm,
            running_mean=running_mean,
            running_var=running_var,
            weight=weight,
            bias=bias,
            momentum=momentum,
            eps=eps,
        )
        if not training:
            return normalise(input, training=False)
        self.num_layers += 1
        num_rows = len(input) * self._num_real // self._num_images
        if input[:num_rows].numel() < 2 * input.shape[1]:
            return normalise(input, training=running_mean is None)
        dtype = torch.promote_types(input.dtype, torch.float32)  # of the parameters, also under autocast
        channels = torch.ones(input.shape[1], dtype=dtype, device=input.device)
        return _NormaliseByFirst.apply(
            input,
            channels if weight is None else weight,
            torch.zeros_like(channels) if bias is None else bias,
            (running_mean, running_var, momentum, eps),
            num_rows,
        )


class _NormaliseByFirst(torch.autograd.Function):
    """BatchNorm of all rows by mean μ and standard deviation σ of the first ones, with gradients through both.

    By torch's own kernels, which normalise by given statistics without a gradient through them: written in
    differentiable operations it takes five times as long.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor | None, Tensor | None, float, float],
        num_rows: int,
    ) -> Tensor:
        running_mean, running_var, momentum, eps = running
        real, others = input[:num_rows], input[num_rows:]
        normalised, mean_C, inverse_C = torch.native_batch_norm(
            real, weight, bias, running_mean, running_var, True, momentum, eps
        )
        variance_C = inverse_C.pow(-2) - eps
        by_given = torch.native_batch_norm(others, weight, bias, mean_C, variance_C, False, momentum, eps)
        ctx.save_for_backward(input, weight, mean_C, inverse_C, variance_C)
        ctx.num_rows, ctx.eps = num_rows, eps
        return torch.cat([normalised, by_given[0]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean_C, inverse_C, variance_C = ctx.saved_tensors
        real, others = input[: ctx.num_rows], input[ctx.num_rows :]
        of_real, of_others = gradient[: ctx.num_rows], gradient[ctx.num_rows :]
        backward, every = torch.ops.aten.native_batch_norm_backward, [True, True, True]
        to_real, weight_C, bias_C = backward(
            of_real, real, weight, None, None, mean_C, inverse_C, True, ctx.eps, every
        )
        to_others, others_weight_C, others_bias_C = backward(
            of_others, others, weight, mean_C, variance_C, None, None, False, ctx.eps, every
        )
        # Through μ and σ, of m values a channel: -γ/(σ m) (Σ g + x̂ Σ g x̂), summed over the other rows.
        factor_C = -weight * inverse_C * input.shape[1] / real.numel()
        slope_C = factor_C * inverse_C * others_weight_C
        shift_C = factor_C * others_bias_C - slope_C * mean_C
        as_channels = (1, -1, *[1] * (input.dim() - 2))
        to_real += torch.addcmul(shift_C.view(as_channels), real, slope_C.view(as_channels))
        return torch.cat([to_real, to_others]), weight_C + others_weight_C, bias_C + others_bias_C, None, None


def real_statistics(num_real: int, num_images: int) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a mini-batch passes the network; it costs nothing without synthetic images."""
    return contextlib.nullcontext() if num_real == num_images else RealStatistics(num_real, num_images)


def check_batch_norm(config: RunConfig, image_shape_CHW: tuple[int, int, int], num_classes: int) -> None:
    """Check that under `sampler.batch_norm real` no logit of a real image depends on a synthetic one.

    Raises:
        UserError: the backbone has no BatchNorm, or mixes the images of a mini-batch in other ways.
    """
    if config.sampler.batch_norm == "all":
        return
    # The values of the weights do not matter.
    classifier = config.classifier.model_copy(update={"pretrained": False})
    if fault := _fault(classifier, image_shape_CHW, num_classes):
        raise UserError(
            f"sampler.batch_norm real: classifier.backbone {classifier.backbone!r} {fault}: set it to all, or use "
            "another backbone"
        )


@functools.lru_cache(maxsize=64)
def _fault(config: ClassifierConfig, image_shape_CHW: tuple[int, int, int], num_classes: int) -> str | None:
    channels, height, _ = image_shape_CHW
    cpu = torch.device("cpu")
    with same_bits(cpu), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network = place(
            build_classifier(config, channels=channels, num_classes=num_classes, size_px=height), cpu
        ).train()
        real, first, second = torch.rand(3, 2, *image_shape_CHW)
        logits = []
        for synthetic in (first, second):
            torch.manual_seed(0)  # for dropout
            with RealStatistics(2, 4) as statistics:
                logits.append(network(torch.cat([real, synthetic]))[:2])
    if statistics.num_layers == 0:
        return "has no BatchNorm in training"
    if not torch.equal(*logits):
        return "mixes the images of a mini-batch in other layers than torch's BatchNorm too"
    return None
