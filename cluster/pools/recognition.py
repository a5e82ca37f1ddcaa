"""Which classes of a run's pool a classifier of the real images recognises."""

from __future__ import annotations

from cluster.pools.judge import real_classifier
from rlcas.batches.sources import all_images
from rlcas.runs.context import RunContext
from rlcas.training.saved_classifier import predict
from rlcas.types import Float64
from synth.pool import SyntheticPool
from synth.quality.recognition import recognition_probability


def recognised(context: RunContext, pool: SyntheticPool) -> Float64:
    """Return [C]: the probability that the judge recognises the pool's images of each class.

    They are compared with the validation images.
    """
    judge, made, val = real_classifier(context), all_images(pool), context.data.val
    return recognition_probability(
        predict(judge, made.images_NCHW).argmax(axis=1),
        made.labels_N,
        predict(judge, val.images_NCHW).argmax(axis=1),
        val.labels_N,
        context.data.num_classes,
    )
