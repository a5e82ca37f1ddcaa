"""Sketch-supervised latent diffusion, from sketches to a judged pool; MGDM and Skin-SDM beside it."""
