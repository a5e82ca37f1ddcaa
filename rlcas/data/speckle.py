"""B-mode ultrasound of a tissue map: scatterers, point-spread function, envelope, log compression."""

from __future__ import annotations

import functools

import numpy as np

from rlcas.types import Float32, Float64, Uint8

NUM_LOOKS = 4
"""Independent speckle fields whose intensities are averaged (frequency compounding)."""
OVERSAMPLING = 2
"""Simulated samples for each pixel, along each side."""
PSF_AXIAL, PSF_LATERAL = 0.009, 0.016
"""Standard deviation of the Gaussian pulse, as a share of the image's side."""
DYNAMIC_RANGE_DB = 42.0


def b_mode(echo_GG: Float64, gain_GG: Float64, rng: np.random.Generator) -> Uint8:
    """Return the uint8 [H, W] image of a tissue map [G, G], G = OVERSAMPLING · H, depth downwards.

    Fully developed speckle (Goodman 1975; Burckhardt 1978): each grid point holds a circular complex Gaussian
    scatterer of the tissue's amplitude; the field behind the point-spread function has a Rayleigh envelope,
    and the mean of NUM_LOOKS intensities a gamma law. `echo_GG` is backscatter and `gain_GG` what the path to
    the point adds (attenuation, shadow, receiver gain), both in dB.
    """
    amplitude_GG = (10.0 ** (echo_GG / 20.0)).astype(np.float32)
    draws = rng.standard_normal((2, NUM_LOOKS, *echo_GG.shape), dtype=np.float32)
    # Circular complex Gaussian scatterers, [L, G, G].
    scatterers = amplitude_GG * (draws[0] + np.complex64(1j) * draws[1])
    field = np.fft.ifft2(np.fft.fft2(scatterers) * _transfer(len(echo_GG)))
    # The mean of NUM_LOOKS independent looks: [L, G, G] to [G, G].
    intensity_GG = np.mean(field.real**2 + field.imag**2, axis=0)
    # 1e-12 is -120 dB, far below the dynamic range: no logarithm of 0.
    level_GG = 10.0 * np.log10(intensity_GG + 1e-12) + gain_GG
    shown_GG = np.clip(1.0 + level_GG / DYNAMIC_RANGE_DB, 0.0, 1.0)
    side = len(echo_GG) // OVERSAMPLING
    # [G, G] to [H, W]: the mean of the samples of a pixel.
    shown_HW = shown_GG.reshape(side, OVERSAMPLING, side, OVERSAMPLING).mean(axis=(1, 3))
    return np.rint(255.0 * shown_HW).astype(np.uint8)


@functools.cache
def _transfer(grid: int) -> Float32:
    """Return [G, G]: the pulse's Fourier transform; unit scatterers get unit mean intensity."""
    # In cycles per image side, the unit that the widths are shares of.
    frequency = np.fft.fftfreq(grid, d=1.0 / grid)
    axial, lateral = (np.exp(-2.0 * (np.pi * frequency * width) ** 2) for width in (PSF_AXIAL, PSF_LATERAL))
    transfer = axial[:, None] * lateral[None, :]
    # By Parseval's theorem; the 2 is the mean power of a scatterer, real and imaginary part.
    return (transfer / np.sqrt(2.0 * np.mean(transfer**2))).astype(np.float32)
