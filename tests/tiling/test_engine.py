"""Tiled results equal untiled ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from restore_cli.contract import Contract
from restore_cli.errors import RestoreError
from restore_cli.tiling.engine import Trace, restore_rows
from restore_cli.tiling.geometry import Tiling, padded_side, plan_axis, reflection_indices


@dataclass(frozen=True)
class TensorRows:
    image: Tensor

    @property
    def height(self) -> int:
        return self.image.shape[1]

    @property
    def width(self) -> int:
        return self.image.shape[2]

    def read(self, top: int, bottom: int) -> Tensor:
        assert 0 <= top < bottom <= self.height
        return self.image[:, top:bottom]


class Nearest:
    """A pointwise model: enlarges each px to a square."""

    fp32_fallback = None

    def __init__(self, scale: int = 2, tile_multiple: int = 8, pad_multiple: int | None = None) -> None:
        minimum = tile_multiple if pad_multiple is None else tile_multiple // 2 + 1
        self.contract = Contract(
            scale,
            3,
            tile_multiple,
            pad_multiple or tile_multiple,
            minimum,
            overlap=8,
            tile=None,
            activation_floats_per_px=64,
        )

    def __call__(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % self.contract.pad_multiple == x.shape[-2] % self.contract.pad_multiple == 0
        assert min(x.shape[-2:]) >= self.contract.minimum
        return x.repeat_interleave(self.contract.scale, -1).repeat_interleave(self.contract.scale, -2)


class Blur(Nearest):
    """A local model: sees 2 px to each side."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(torch.nn.functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False))


def restored(model: Nearest, image: Tensor, tiling: Tiling) -> Tensor:
    return torch.cat(list(restore_rows(model, TensorRows(image), Trace(tiling))), 1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 64), (65, 200), (257, 300), (3, 5000), (700, 7)])
@pytest.mark.parametrize("tiling", [Tiling(0, 0), Tiling(64, 0), Tiling(64, 16, batch=3), Tiling(40, 20)])
def test_a_pointwise_model_gives_the_same_in_tiles(height: int, width: int, tiling: Tiling) -> None:
    image = torch.rand(3, height, width)
    assert torch.equal(restored(Nearest(), image, tiling), image.repeat_interleave(2, 1).repeat_interleave(2, 2))


@settings(deadline=None, max_examples=300)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(0, 90),
    overlap=st.integers(0, 50),
    batch=st.integers(1, 4),
    scale=st.integers(1, 4),
    tile_multiple=st.sampled_from([1, 7, 8, 32]),
    pad_multiple=st.sampled_from([None, 1]),
)
def test_any_size_and_tiling_give_the_same(
    height: int,
    width: int,
    tile: int,
    overlap: int,
    batch: int,
    scale: int,
    tile_multiple: int,
    pad_multiple: int | None,
) -> None:
    image = torch.rand(3, height, width)
    out = restored(Nearest(scale, tile_multiple, pad_multiple), image, Tiling(tile, overlap, batch))
    assert torch.equal(out, image.repeat_interleave(scale, 1).repeat_interleave(scale, 2))


def test_a_last_row_of_tiles_that_is_mostly_reflection() -> None:
    """The indices of row 32 and its seven reflections are as many as a continuous range would have."""
    image = torch.rand(3, 33, 33)
    assert torch.equal(restored(Nearest(1), image, Tiling(8, 0)), image)


@pytest.mark.parametrize("pad_multiple", [1, 8])
def test_a_local_model_gives_the_same_with_enough_overlap(pad_multiple: int) -> None:
    """The model sees 2 px to each side, and tiles fade 2 px away from their edges."""
    image, model = torch.rand(3, 130, 171), Blur(pad_multiple=pad_multiple)
    out, whole = restored(model, image, Tiling(32, 8)), restored(model, image, Tiling(0, 0))
    torch.testing.assert_close(out, whole, rtol=0, atol=1e-6)


def test_rows_are_yielded_before_the_whole_picture_is_read() -> None:
    seen: list[int] = []

    class Watched(TensorRows):
        def read(self, top: int, bottom: int) -> Tensor:
            seen.append(bottom)
            return super().read(top, bottom)

    stream = restore_rows(Nearest(), Watched(torch.rand(3, 1000, 32)), Trace(Tiling(64, 16)))
    next(stream)
    assert max(seen) <= 64


@given(st.integers(1, 500), st.integers(0, 100), st.integers(0, 50), st.sampled_from([1, 7, 8, 16, 32]), st.booleans())
def test_an_axis_covers_the_side_with_equal_tiles_on_multiples(
    length: int, tile: int, overlap: int, tile_multiple: int, padding: bool
) -> None:
    contract = Contract(1, 3, tile_multiple, tile_multiple if padding else 1, tile_multiple, 0, None, 64)
    length = padded_side(length, contract)
    tiling = Tiling(tile, overlap).fitted(contract)
    axis = plan_axis(length, tiling.tile, tiling.overlap, tile_multiple)
    assert axis.starts[0] == 0
    assert axis.span(len(axis.starts) - 1)[1] == length
    assert axis.tile - tile_multiple < length - axis.starts[-1] <= axis.tile
    assert not padding or axis.starts[-1] + axis.tile == length
    assert all(start % tile_multiple == 0 for start in axis.starts)
    assert not tiling.tile or axis.tile <= max(tiling.tile, tile_multiple)
    for a, b in pairwise(axis.starts):
        assert a < b <= a + axis.tile
    if len(axis.starts) > 2:
        fades = [axis.fade(i) for i in range(len(axis.starts) - 1)]
        assert all(left[1] <= right[0] for left, right in pairwise(fades))


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_edge_is_repeated_only_if_the_side_is_too_short_to_reflect(length: int, more: int) -> None:
    index = reflection_indices(length, length + more)
    assert index[:length] == list(range(length))
    assert all(0 <= i < length for i in index)
    if more < length:
        assert index[length:] == list(range(length - 2, length - 2 - more, -1))


class Overflowing(Nearest):
    """Overflows in every second call."""

    def __init__(self, fallback: Nearest | None) -> None:
        super().__init__()
        self.calls, self.fp32_fallback = 0, fallback  # type: ignore[assignment]

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.inference_mode():  # as networks run
            out = super().__call__(x)
            return out * float("inf") if self.calls % 2 else out


def test_tiles_that_overflow_run_again_in_float32() -> None:
    image, trace = torch.rand(3, 100, 100), Trace(Tiling(32, 8))
    out = torch.cat(list(restore_rows(Overflowing(Nearest()), TensorRows(image), trace)), 1)
    assert torch.equal(out, image.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert trace.fp32_tiles == (trace.tiles + 1) // 2


class NanForBlack(Nearest):
    """Returns NaN for black tiles."""

    fp32_fallback = Nearest()  # type: ignore[assignment]

    def __call__(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            out = super().__call__(x)
            return torch.where(out.amax((1, 2, 3), keepdim=True) > 0, out, float("nan"))


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_only_tiles_that_overflow_run_again(batch: int) -> None:
    image, trace = torch.rand(3, 64, 320), Trace(Tiling(32, 0, batch=batch))
    image[:, :, 96:160] = image[:, 32:, 256:] = 0
    out = torch.cat(list(restore_rows(NanForBlack(), TensorRows(image), trace)), 1)
    assert torch.equal(out, image.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert (trace.tiles, trace.fp32_tiles) == (20, 2 * 2 + 2)


def test_output_that_is_not_finite_in_float32_is_an_error() -> None:
    with pytest.raises(RestoreError, match="not finite"):
        restored(Overflowing(None), torch.rand(3, 100, 100), Tiling(32, 8))
