"""Sketch-supervised latent diffusion: sketches, autoencoder, denoiser, sampler, pool, quality."""
