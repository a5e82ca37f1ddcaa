"""Sketch-supervised latent diffusion, from sketches to a scored pool; also the generators MGDM and Skin-SDM."""
