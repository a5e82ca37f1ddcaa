"""The GPUs that Ray assigned to an actor or task."""

from __future__ import annotations

import os

import ray


def use_assigned_gpus() -> None:
    """Let torch find the GPUs that Ray assigned to this process, and no others.

    Ray itself hides no GPU from an actor or task that was assigned none.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, ray.get_gpu_ids()))
