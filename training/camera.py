"""Camera noise: images are converted from sRGB to sensor values, get noise, and pass through a camera's processing.

The path follows "Unprocessing Images for Learned Raw Denoising" (Brooks et al. 2019, arXiv:1811.11127) and CBDNet
(Guo et al. 2018, arXiv:1807.04686). Only the noise passes through demosaicing, noise reduction and sharpening, so the
clean image remains the target. All ranges are those of real sensors and cameras. None is fitted to a benchmark.
Images are float32 (h, w, 3), sRGB or linear light on 0..1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["add_camera_noise", "gaussian_blur", "resize"]

Floats = NDArray[np.float32]

_YCC = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)
"""Rows: Y, Cb, Cr of JPEG from RGB."""
_RGB = np.linalg.inv(_YCC).astype(np.float32)
_GRID = np.linspace(0, 1, 1025, dtype=np.float32)


def add_camera_noise(clean: Floats, random: np.random.Generator) -> Floats:
    """Return the image with the noise of a random camera, clipped to 0..1.

    In one image of three the noise is made on a smaller image and enlarged, so it is coarse as in resized photographs.
    """
    height, width = clean.shape[:2]
    factor = float(random.uniform(1, 2.5)) if random.random() < 0.33 else 1.0
    small = clean if factor == 1 else resize(clean, (round(height / factor), round(width / factor)))
    noise = process_noise(sensor_noise(small.clip(0, 1), random), small, random)
    if factor != 1:
        noise = resize(noise, (height, width))
    return (clean + noise).clip(0, 1)


def sensor_noise(clean: Floats, random: np.random.Generator) -> Floats:
    """Return the noise in sRGB that shot and read noise cause after demosaicing, white balance and the tone curve."""
    tone = tone_curve(random)
    linear = np.interp(clean, tone, _GRID).astype(np.float32)
    to_srgb = colour_matrix(random)
    gains = np.array([random.uniform(1.2, 2.6), 1, random.uniform(1.2, 2.4)], np.float32)
    raw = (linear @ np.linalg.inv(to_srgb).T.astype(np.float32) / gains).clip(0, 1)
    # arXiv:1811.11127, section 3.1: variance = read + shot · signal, the two related by a line in log space.
    # Shot noise begins lower than in the paper: most photographs are taken in good light.
    log_shot = random.uniform(np.log(2e-5), np.log(1.2e-2))
    read = np.exp(2.18 * log_shot + 1.2 + random.normal(0, 0.26))
    noise = random.standard_normal(raw.shape, np.float32) * np.sqrt(read + np.exp(log_shot) * raw)
    if random.random() < 0.9:
        noise = demosaic(noise.astype(np.float32), by_difference=bool(random.random() < 0.5))
    noisy = (linear + (noise * gains) @ to_srgb.T).clip(0, 1)
    return np.interp(noisy, _GRID, tone).astype(np.float32) - clean


def tone_curve(random: np.random.Generator) -> Floats:
    """Return sRGB values at 1025 steps of linear light: a gamma, mixed with an S-shaped curve of random strength."""
    plain = _GRID ** (1 / random.uniform(2.0, 2.6))
    curve = 3 * plain**2 - 2 * plain**3
    strength = random.uniform(0, 0.7)
    return ((1 - strength) * plain + strength * curve).astype(np.float32)


def colour_matrix(random: np.random.Generator) -> Floats:
    """Return a (3, 3) matrix from a camera's colours to linear sRGB. Rows sum to 1, so white stays white."""
    matrix = random.uniform(-0.6, 0.05, (3, 3))
    np.fill_diagonal(matrix, 0)
    np.fill_diagonal(matrix, 1 - matrix.sum(1))
    return matrix.astype(np.float32)


def demosaic(raw: Floats, *, by_difference: bool) -> Floats:
    """Sample (h, w, 3) on a Bayer grid and interpolate it bilinearly: red and blue minus green if `by_difference`."""
    red, green, blue = (np.zeros(raw.shape[:2], np.float32) for _ in range(3))
    red[::2, ::2], blue[1::2, 1::2] = 1, 1
    green[::2, 1::2] = green[1::2, ::2] = 1
    full_green = interpolate(raw[..., 1] * green, cross=True)
    planes = [full_green]
    for channel, mask in ((0, red), (2, blue)):
        base = full_green if by_difference else 0
        planes.append(base + interpolate((raw[..., channel] - base) * mask, cross=False))
    return np.stack([planes[1], planes[0], planes[2]], -1)


def interpolate(plane: Floats, *, cross: bool) -> Floats:
    """Fill the zeros of a Bayer plane with the mean of its neighbours. `cross` is for green, False for red and blue."""
    padded = np.pad(plane, 1, mode="reflect")
    rows = padded[:-2] + padded[2:]
    if cross:
        around = rows[:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        return plane + around * np.float32(0.25)
    mixed = padded[1:-1] + rows * np.float32(0.5)
    return mixed[:, 1:-1] + (mixed[:, :-2] + mixed[:, 2:]) * np.float32(0.5)


def process_noise(noise: Floats, clean: Floats, random: np.random.Generator) -> Floats:
    """Apply a camera's noise reduction and sharpening to the noise.

    Colour is smoothed more than lightness. Most cameras smooth less near edges.
    """
    planes = noise @ _YCC.T
    light, colour = planes[..., :1], planes[..., 1:]
    if random.random() < 0.6:
        keep = random.uniform(0.1, 1)
        smooth = keep * light + (1 - keep) * gaussian_blur(light, random.uniform(0.4, 1.6))
        light = near_edges(light, smooth, clean, random)
    if random.random() < 0.75:
        keep = random.uniform(0, 0.6)
        smooth = keep * colour + (1 - keep) * gaussian_blur(colour, random.uniform(0.5, 4))
        colour = near_edges(colour, smooth, clean, random)
    if random.random() < 0.5:
        light = light + random.uniform(0, 1.5) * (light - gaussian_blur(light, random.uniform(0.6, 1.5)))
    return np.concatenate([light, colour], -1) @ _RGB.T


def near_edges(noise: Floats, smooth: Floats, clean: Floats, random: np.random.Generator) -> Floats:
    """Return `smooth`. In half of the images it fades into `noise` near edges of the clean image."""
    if random.random() < 0.5:
        return smooth
    y = clean @ _YCC[0]
    slope = np.hypot(*np.gradient(y))
    edge = gaussian_blur((slope * random.uniform(5, 20)).clip(0, 1)[..., None], 1.0)
    return smooth + edge * (noise - smooth)


def gaussian_blur(image: Floats, sigma: float) -> Floats:
    """Smooth (h, w, c) by a Gaussian of σ px, reflected at the edges."""
    radius = min(max(1, int(np.ceil(3 * sigma))), min(image.shape[:2]) - 1)
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2)).astype(np.float32)
    taps /= taps.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, pad, mode="reflect")
        size = image.shape[axis]
        image = sum(tap * padded.take(range(i, i + size), axis) for i, tap in enumerate(taps))
    return image


def resize(image: Floats, size: tuple[int, int], method: Image.Resampling = Image.Resampling.BICUBIC) -> Floats:
    """Resize (h, w, c) to (height, width), antialiased."""
    height, width = size
    planes = [Image.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize((width, height), method)) for plane in planes], -1)
