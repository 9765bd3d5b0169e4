"""The Triton kernel that triton_attention.py launches."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["window_attention_kernel"]


@triton.jit
def window_attention_kernel(
    q, k, v, bias, out,
    height, width, shift_y, shift_x, factor,
    BIASED: tl.constexpr, KINDS: tl.constexpr, MARGIN: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, WIDE_D: tl.constexpr, PIXEL: tl.constexpr,
    HIGH: tl.constexpr, WIDE: tl.constexpr, KEY_HIGH: tl.constexpr, KEY_WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Compute one head for up to QUERIES px of a window of HIGH·WIDE px, with KEYS keys at a time.

    q, k and v are (b, height, width, HEADS, D) with a stride of PIXEL between pixels; out has the same shape and is
    contiguous. Exponents are to base two, so factor is scale·log2(e). Sums and scores are float32. Lanes beyond the
    window or beyond the D channels of the head load zeros.
    """
    n: tl.constexpr = HIGH * WIDE
    m: tl.constexpr = KEY_HIGH * KEY_WIDE
    blocks: tl.constexpr = (n + QUERIES - 1) // QUERIES
    down, across = height // HIGH, width // WIDE
    program = tl.program_id(0)
    head = program % HEADS
    block = program // HEADS % blocks
    window = program // (HEADS * blocks)
    x, y, picture = window % across, window // across % down, window // (across * down)

    query = block * QUERIES + tl.arange(0, QUERIES)
    channel = tl.arange(0, WIDE_D)
    query_mask = (query < n)[:, None] & (channel < D)[None]
    query_y = (y * HIGH + query // WIDE + shift_y) % height
    query_x = (x * WIDE + query % WIDE + shift_x) % width
    first = picture.to(tl.int64) * height * width
    query_pixel = first + query_y * width + query_x
    at = query_pixel[:, None] * PIXEL + head * D + channel[None]
    queries = tl.load(q + at, mask=query_mask, other=0.0)

    kind = 0
    if KINDS > 1:
        kind += ((x == across - 1) & (shift_x > 0)).to(tl.int32)
        kind += 2 * ((y == down - 1) & (shift_y > 0)).to(tl.int32)
    bias_of_head = bias + (kind * HEADS + head) * n * m
    largest = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    mixed = tl.zeros([QUERIES, WIDE_D], tl.float32)
    for begin in range(0, m, KEYS):
        key = begin + tl.arange(0, KEYS)
        key_y, key_x = y * HIGH + key // KEY_WIDE, x * WIDE + key % KEY_WIDE
        key_mask = (key < m)[:, None] & (channel < D)[None]
        if MARGIN:  # keys outside the map are zeros and take part
            key_y, key_x = key_y - MARGIN, key_x - MARGIN
            inside = (key_y >= 0) & (key_y < height) & (key_x >= 0) & (key_x < width)
            key_mask = key_mask & inside[:, None]
        else:
            key_y, key_x = (key_y + shift_y) % height, (key_x + shift_x) % width
        key_pixel = first + key_y * width + key_x
        offset = key_pixel[:, None] * PIXEL + head * D + channel[None]
        keys = tl.load(k + offset, mask=key_mask, other=0.0)
        values = tl.load(v + offset, mask=key_mask, other=0.0)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * factor
        score_mask = (query < n)[:, None] & (key < m)[None]
        if BIASED:
            added = tl.load(bias_of_head + query[:, None] * m + key[None], mask=score_mask, other=0.0)
            scores += added.to(tl.float32) * 1.4426950408889634  # log2(e)
        scores = tl.where((key < m)[None], scores, float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        shrink = tl.exp2(largest - higher)
        powers = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(powers, 1)
        mixed = mixed * shrink[:, None]
        mixed += tl.dot(powers.to(values.dtype), values, input_precision="ieee")
        largest = higher

    to = query_pixel[:, None] * (HEADS * D) + head * D + channel[None]
    tl.store(out + to, (mixed / total[:, None]).to(out.dtype.element_ty), mask=query_mask)
