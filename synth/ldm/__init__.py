"""The sketch-supervised latent diffusion model."""
