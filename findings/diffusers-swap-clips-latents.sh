#!/bin/sh
# A scheduler made by from_config from one that never clips clips latents to -1..1, because its own default does.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv" \
    torch==2.15.0 diffusers==0.42.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'EOF'
import warnings

warnings.simplefilter("ignore", DeprecationWarning)

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UniPCMultistepScheduler

MEAN, DEVIATION = 2.0, 0.5


def sampled(scheduler):
    """Return the mean of samples, where the denoiser is the exact one for latents from N(2, 0.5**2)."""
    scheduler.set_timesteps(50)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 4, 32, 32, generator=generator)
    for t in scheduler.timesteps:
        abar = scheduler.alphas_cumprod[t]
        towards = abar.sqrt() * DEVIATION**2 / (abar * DEVIATION**2 + 1 - abar)
        z0 = MEAN + towards * (z - abar.sqrt() * MEAN)
        noise = (z - abar.sqrt() * z0) / (1 - abar).sqrt()
        z = scheduler.step(noise, t, z, return_dict=False)[0]
    return z.mean().item()


print("diffusers", diffusers.__version__, "torch", torch.__version__)
unipc = UniPCMultistepScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
print("expected: schedulers swapped in by from_config sample the same distribution, of mean 2")
means = {"UniPC": sampled(unipc)}
for other in (DDIMScheduler, DDPMScheduler):
    assert other in unipc.compatibles
    means[other.__name__] = sampled(other.from_config(unipc.config))
    kept = other.from_config({**unipc.config, "clip_sample": False})
    means[f"{other.__name__}, clip_sample False"] = sampled(kept)
for name, mean in means.items():
    print(f"seen: mean {mean:5.2f} by {name}")
    clipped = name in ("DDIMScheduler", "DDPMScheduler")
    assert mean < 1.1 if clipped else abs(mean - MEAN) < 0.05, "changed"
EOF
