"""The GPUs that Ray assigned to an actor or task."""

from __future__ import annotations

import os

import ray


def use_assigned_gpus() -> None:
    """Let torch find the GPUs that Ray assigned to this process, and no other; call it before CUDA is first used.

    Ray itself leaves CUDA_VISIBLE_DEVICES as it is for a worker that asked for no GPU: it would see them all.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, ray.get_gpu_ids()))
