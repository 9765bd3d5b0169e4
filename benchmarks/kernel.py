"""Times the attention kernel, plain attention, and the kernel in other launch configurations: part of `make bench-gpu`.

For each published form in float16, on a feature map of 512×512 px, it prints milliseconds of plain attention, of the
kernel as restore runs it, and of the kernel in its best other configurations. Each is the median of twenty calls.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from unittest.mock import patch

import torch
from torch import Tensor

from restore_cli.models.ops import attention, triton_attention

FORMS: dict[str, tuple[tuple[int, int], int, tuple[int, int, int], bool]] = {
    "SwinIR-M": ((8, 8), 0, (3, 6, 30), True),
    "SwinIR-S": ((8, 8), 0, (3, 6, 10), True),
    "HAT": ((16, 16), 0, (3, 6, 30), True),
    "HAT, surroundings": ((16, 16), 4, (3, 6, 30), True),
    "EMT": ((32, 8), 0, (2, 2, 10), False),
}
"""Window, margin, parts (queries, keys and values; heads; channels of a head), and whether there is a bias."""

LAYOUTS = list(product((32, 64, 128), (32, 64, 128), (4, 8), (2, 3)))
"""QUERIES, KEYS, num_warps, num_stages."""

Layout = Callable[[tuple[int, int], int, int, torch.dtype], dict[str, int]]


def main() -> None:
    """Print a line for each form, with its best launch configurations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=512, help="of the feature map, px")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    for name in FORMS:
        sys.stdout.write(measure_form(name, torch.device(given.device), given.side, given.rounds) + "\n")
        sys.stdout.flush()


def measure_form(name: str, device: torch.device, side: int, rounds: int) -> str:
    """Return the line for one form."""
    window, margin, (count, heads, d), biased = FORMS[name]
    shifted = not margin
    shift = (window[0] // 2 * shifted, window[1] // 2 * shifted)
    qkv = list(torch.randn(1, side, side, count, heads, d, device=device).half().movedim(3, 0))
    pairs = window[0] * window[1], (window[0] + 2 * margin) * (window[1] + 2 * margin)
    bias = torch.randn(4 if shifted else 1, heads, *pairs, device=device) if biased else None

    def kernel() -> Tensor:
        return triton_attention.triton_attention(qkv, window, shift, margin, bias, 0.2)

    def plain() -> Tensor:
        with patch.object(attention, "can_use_kernel", return_value=False):
            if margin and bias is not None:
                return attention.fast_overlapping_window_attention(qkv, window, margin, bias, 0.2)
            return attention.fast_window_attention(qkv, window, shift, bias, 0.2)

    with torch.inference_mode():
        times = {"plain": time_call(plain, device, rounds), "kernel": time_call(kernel, device, rounds)}
        others = {}
        for words in LAYOUTS:
            with patch.object(triton_attention, "launch_config", override_launch_config(words)):
                try:
                    others[words] = time_call(kernel, device, rounds)
                except Exception as error:  # too large for a multiprocessor; Triton raises many kinds
                    others[words] = float("inf")
                    sys.stderr.write(f"{name} {words}: {type(error).__name__}\n")
    best = sorted(others, key=others.__getitem__)[:3]
    found = ", ".join(f"{words} {others[words]:.3f}" for words in best)
    return f"{name}: plain {times['plain']:.3f} ms, kernel {times['kernel']:.3f} ms; best layouts {found}"


def override_launch_config(words: tuple[int, int, int, int]) -> Layout:
    """Return `triton_attention.launch_config` with these numbers in place of its own."""
    usual = triton_attention.launch_config

    def launch_config(window: tuple[int, int], margin: int, d: int, dtype: torch.dtype) -> dict[str, int]:
        names = ("QUERIES", "KEYS", "num_warps", "num_stages")
        return usual(window, margin, d, dtype) | dict(zip(names, words, strict=True))

    return launch_config


def time_call(call: Callable[[], Tensor], device: torch.device, rounds: int) -> float:
    """Return the median time of `rounds` calls, after two calls to warm up."""
    times = []
    for _ in range(rounds + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
