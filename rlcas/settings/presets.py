"""Presets: named sets of settings over the defaults of `rlcas/config/`; flags and files override them."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # The defaults themselves are the best that we found.
    "best": {},
    "quick": {
        "classifier": {"width": 16, "batch_size": 64},
        "sampler": {"epochs": 10},
        "compare": {"epochs": 20, "synthetic_ratio": 0.25},
        "synth": {
            "autoencoder": {
                "factor": 4,
                "channels": (8, 16, 32),
                "latent_channels": 8,
                "lr": 3e-3,
                "max_steps": 500,
            },
            "denoiser": {
                "channels": (32, 48, 64, 64),
                "lr": 1e-3,
                "max_steps": 2000,
                "ema_decays": (0.99, 0.998),
            },
            "generation": {"steps": 12, "guidance": 2.0, "per_class": 256},
        },
    },
    "paper": {
        "dataset": {"size_px": 256, "phantom": {"size_px": 256}},
        "classifier": {"offset": "none"},
        "sampler": {
            "epochs": 30,
            "k": 3,
            "episode": "whole",
            "handover": "best",
            "real_first": 0.0,
            "real_last": 0.0,
            "agents": "paper",
            "lr": 1e-3,
            "baseline_gamma": 0.99,
            "reward": "cubic",
            "metric": "f1",
            "initial_count": 2,
            "action_step": 2,
            "batch_mode": "append",
            "draw_mode": "cycle",
            "prior": "real",
            "common_random_numbers": False,
        },
        "synth": {
            "sketch": "pidinet",
            "autoencoder": {"factor": 8},
            "denoiser": {
                "prediction": "epsilon",
                "schedule": "linear",
                "min_snr_gamma": None,
                "class_balance": 0.0,
                "sketch_weight": 0.1,
                "lr": 1e-4,
                "epochs": 200,
            },
        },
    },
}

DEMO: dict[str, Any] = {
    "data": "phantom",
    "preset": "quick",
    "dataset": {"phantom": {"num_images": 2400}},
    "classifier": {"batch_size": 32},
    "sampler": {"epochs": 8},
    "synth": {
        "autoencoder": {"max_steps": 350},
        "denoiser": {"max_steps": 900},
        "generation": {"per_class": 96},
    },
}
"""The settings of `rlcas demo`: preset quick on a small set of phantoms."""
