"""Inference forms of published modules: the same function of the same weights, computed faster and in less memory.

A form is a subclass of the published module, in models/forms. It overrides what it computes in another way, and
`prepare` derives buffers from the final weights. tests/models/test_inference.py compares each form with its module.
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
    FastTransformerBlock,
    FastTransposedAttention,
)
from restore_cli.models.forms.swinir import FastSwinIR, FastTransformerLayer
from restore_cli.models.precision import set_precision

__all__ = ["INFERENCE_FORMS", "apply_forms", "keep_biases", "optimize"]

Forms = Mapping[type[nn.Module], type[nn.Module]]


def optimize(network: nn.Module) -> None:
    """Give the modules of a network with final weights their precision and their inference forms, in place."""
    set_precision(network)
    apply_forms(network, INFERENCE_FORMS)


def apply_forms(module: nn.Module, forms: Forms, finish: Callable[[nn.Module], None] = lambda module: None) -> None:
    """Change modules to the forms that the table has for their types, and prepare these, in place.

    `finish` gets each module after that, and before its children.
    """
    if form := forms.get(type(module)):
        module.__class__ = form
        if callable(prepare := getattr(module, "prepare", None)):
            prepare()
    finish(module)
    for child in module.children():
        apply_forms(child, forms, finish)


def keep_biases(network: nn.Module) -> None:
    """Let attention look up its biases once, in place."""
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
