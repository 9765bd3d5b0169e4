"""The Triton kernels that triton_blocks.py launches: layer norm, and everything of a block after its attention."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["block_tail_kernel", "layer_norm_kernel"]


@triton.jit
def layer_norm_kernel(
    x, weight, bias, out, rows, epsilon,
    CHANNELS: tl.constexpr, STRIDE: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Normalise ROWS rows of STRIDE channels, of which the first CHANNELS count. The others become zeros."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDE)
    at = row[:, None] * STRIDE + channel[None]
    inside = (row < rows)[:, None]
    counted = (channel < CHANNELS)[None]
    values = tl.load(x + at, mask=inside & counted, other=0.0).to(tl.float32)
    centred = tl.where(counted, values - tl.sum(values, 1)[:, None] / CHANNELS, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, 1) / CHANNELS + epsilon)
    factor = tl.load(weight + channel, mask=channel < STRIDE, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=channel < STRIDE, other=0.0).to(tl.float32)
    normed = centred / deviation[:, None] * factor[None] + offset[None]
    tl.store(out + at, normed.to(out.dtype.element_ty), mask=inside & (channel < STRIDE)[None])


@triton.jit
def load_sum(x, branch, gate, bias, row, picture, channel, mask, GATED: tl.constexpr, STRIDE: tl.constexpr):
    """Return x + bias, plus branch·gate of the row's picture if GATED, in float32."""
    at = row[:, None] * STRIDE + channel[None]
    total = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(bias + channel, mask=channel < STRIDE, other=0.0).to(tl.float32)[None]
    if GATED:
        weights = tl.load(gate + picture[:, None] * STRIDE + channel[None], mask=mask, other=0.0).to(tl.float32)
        total += tl.load(branch + at, mask=mask, other=0.0).to(tl.float32) * weights
    return total


@triton.jit
def scale_and_offset(centred, deviation, weight, bias, channel, STRIDE: tl.constexpr):
    """Return the end of a layer norm: centred / deviation·weight + bias."""
    factor = tl.load(weight + channel, mask=channel < STRIDE, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=channel < STRIDE, other=0.0).to(tl.float32)
    return centred / deviation[:, None] * factor[None] + offset[None]


@triton.jit
def load_weights(weights, row, channel, ROWS: tl.constexpr, STRIDE: tl.constexpr):
    """Return rows and columns of a matrix (ROWS, STRIDE), with zeros beyond them."""
    mask = (row < ROWS)[:, None] & (channel < STRIDE)[None]
    return tl.load(weights + row[:, None] * STRIDE + channel[None], mask=mask, other=0.0)


@triton.jit
def block_tail_kernel(
    x, attended, branch, gate, projection, projection_bias, norm_weight, norm_bias,
    into, into_bias, back, back_bias, out,
    rows, pixels, epsilon,
    GATED: tl.constexpr, CHANNELS: tl.constexpr, STRIDE: tl.constexpr, HIDDEN: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute s + mlp(norm(s)) with s = x + attended·projection [+ branch·gate] for ROWS px.

    Rows have STRIDE channels, of which the first CHANNELS count and the others are zeros; rows of `attended` have
    CHANNELS. The matrices are projection (CHANNELS, STRIDE), into and back (HIDDEN, STRIDE). A row of the sum is in a
    left and, if RIGHT is not 0, in a right part, because sides of blocks are powers of two. CHUNK channels of
    `attended` and of the hidden layer exist at a time. Sums are float32, and products have the dtype of `into`.
    """
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    inside = (row < rows - first)[:, None]
    picture = (first + row) // pixels
    x += first * STRIDE  # offsets within a program need 32 bits
    attended += first * CHANNELS
    branch += first * STRIDE
    out += first * STRIDE
    left = tl.arange(0, LEFT)
    left_mask = inside & (left < STRIDE)[None]
    total = load_sum(x, branch, gate, projection_bias, row, picture, left, left_mask, GATED, STRIDE)
    if RIGHT:
        right = LEFT + tl.arange(0, RIGHT)
        right_mask = inside & (right < STRIDE)[None]
        right_total = load_sum(x, branch, gate, projection_bias, row, picture, right, right_mask, GATED, STRIDE)
    for begin in range(0, CHANNELS, CHUNK):
        channel = begin + tl.arange(0, CHUNK)
        values = tl.load(
            attended + row[:, None] * CHANNELS + channel[None], mask=inside & (channel < CHANNELS)[None], other=0.0
        ).to(into.dtype.element_ty)
        weights = load_weights(projection, channel, left, CHANNELS, STRIDE)
        total = tl.dot(values, weights, total, input_precision="ieee")
        if RIGHT:
            weights = load_weights(projection, channel, right, CHANNELS, STRIDE)
            right_total = tl.dot(values, weights, right_total, input_precision="ieee")

    mean = tl.sum(total, 1)
    if RIGHT:
        mean += tl.sum(right_total, 1)
    mean = mean / CHANNELS
    centred = tl.where((left < CHANNELS)[None], total - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1)
    if RIGHT:
        right_centred = tl.where((right < CHANNELS)[None], right_total - mean[:, None], 0.0)
        variance += tl.sum(right_centred * right_centred, 1)
    deviation = tl.sqrt(variance / CHANNELS + epsilon)
    normed = scale_and_offset(centred, deviation, norm_weight, norm_bias, left, STRIDE).to(into.dtype.element_ty)
    total += tl.load(back_bias + left, mask=left < STRIDE, other=0.0).to(tl.float32)[None]
    if RIGHT:
        right_normed = scale_and_offset(right_centred, deviation, norm_weight, norm_bias, right, STRIDE)
        right_normed = right_normed.to(into.dtype.element_ty)
        right_total += tl.load(back_bias + right, mask=right < STRIDE, other=0.0).to(tl.float32)[None]

    for begin in range(0, HIDDEN, CHUNK):
        hidden = begin + tl.arange(0, CHUNK)
        weights = load_weights(into, hidden, left, HIDDEN, STRIDE)
        values = tl.dot(normed, tl.trans(weights), input_precision="ieee")
        if RIGHT:
            weights = load_weights(into, hidden, right, HIDDEN, STRIDE)
            values = tl.dot(right_normed, tl.trans(weights), values, input_precision="ieee")
        values += tl.load(into_bias + hidden, mask=hidden < HIDDEN, other=0.0).to(tl.float32)[None]
        values = 0.5 * values * (1.0 + tl.erf(values * 0.7071067811865476))  # the exact GELU
        values = values.to(into.dtype.element_ty)
        weights = load_weights(back, hidden, left, HIDDEN, STRIDE)
        total = tl.dot(values, weights, total, input_precision="ieee")
        if RIGHT:
            weights = load_weights(back, hidden, right, HIDDEN, STRIDE)
            right_total = tl.dot(values, weights, right_total, input_precision="ieee")

    at = row[:, None] * STRIDE
    tl.store(out + at + left[None], total.to(out.dtype.element_ty), mask=left_mask)
    if RIGHT:
        tl.store(out + at + right[None], right_total.to(out.dtype.element_ty), mask=right_mask)
