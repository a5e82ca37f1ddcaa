"""Skin-SDM: Stable Diffusion with a LoRA (Patcharapimpisut and Khanarsa 2024)."""
