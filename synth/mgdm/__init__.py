"""MGDM: Measurement Guidance in Diffusion Models (Luo et al. 2024)."""
