"""Inference forms of published modules: the same function of the same weights, computed faster and in less memory.

The forms are in models/forms. Each is a subclass of its published module. It overrides what it computes in another way,
and `prepare` derives buffers from the final weights. tests/models/test_inference.py compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from restore_cli.models import emt, hat, layers, restormer, swinir
from restore_cli.models.forms.emt import FastMixedBlock, FastPixelMixer, FastShiftMlp, FastStripedAttention
from restore_cli.models.forms.hat import FastHAT, FastHybridBlock, FastHybridBlocks, FastOverlappingCrossAttention
from restore_cli.models.forms.layers import (
    FastBlockSequence,
    FastConvolution,
    FastLayerNorm,
    FastLinear,
    FastMlp,
    FastWindowAttention,
    PositionBias,
)
from restore_cli.models.forms.restormer import (
    FastChannelNorm,
    FastGatedFeedForward,
    FastLevel,
    FastRestormer,
    FastTransformerBlock,
    FastTransposedAttention,
)
from restore_cli.models.forms.swinir import FastSwinIR, FastTransformerLayer
from restore_cli.models.precision import set_precision

__all__ = ["INFERENCE_FORMS", "apply_forms", "keep_biases", "optimize"]

Forms = Mapping[type[nn.Module], type[nn.Module]]
Finish = Callable[[nn.Module], None]


def optimize(network: nn.Module, finish: Finish = lambda module: None) -> None:
    """Give the modules of a network with final weights their precision and their inference forms, in place.

    `finish` gets each module once it is prepared, before its children.
    """
    set_precision(network)
    apply_forms(network, INFERENCE_FORMS, finish)


def apply_forms(module: nn.Module, forms: Forms, finish: Finish = lambda module: None) -> None:
    """Change modules to the forms that the table has for their types, and prepare these, in place."""
    if form := forms.get(type(module)):
        module.__class__ = form
        if callable(prepare := getattr(module, "prepare", None)):
            prepare()
    finish(module)
    for child in module.children():
        apply_forms(child, forms, finish)


def keep_biases(network: nn.Module) -> None:
    """Let attention look up its biases once, in place. A GPU starts fewer operators at each call then."""
    for module in network.modules():
        if isinstance(module, PositionBias):
            module.keep_bias()


INFERENCE_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FastConvolution,
    nn.LayerNorm: FastLayerNorm,
    nn.Linear: FastLinear,
    layers.Mlp: FastMlp,
    layers.BlockSequence: FastBlockSequence,
    layers.WindowAttention: FastWindowAttention,
    swinir.SwinIR: FastSwinIR,
    swinir.TransformerLayer: FastTransformerLayer,
    hat.HAT: FastHAT,
    hat.HybridBlocks: FastHybridBlocks,
    hat.HybridBlock: FastHybridBlock,
    hat.OverlappingCrossAttention: FastOverlappingCrossAttention,
    restormer.Restormer: FastRestormer,
    restormer.Level: FastLevel,
    restormer.TransformerBlock: FastTransformerBlock,
    restormer.ChannelNorm: FastChannelNorm,
    restormer.TransposedAttention: FastTransposedAttention,
    restormer.GatedFeedForward: FastGatedFeedForward,
    emt.MixedBlock: FastMixedBlock,
    emt.StripedAttention: FastStripedAttention,
    emt.PixelMixer: FastPixelMixer,
    emt.ShiftMlp: FastShiftMlp,
}
"""Each published module with its inference form."""
