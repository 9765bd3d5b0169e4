"""A cascade of two published networks: the first cleans a small image, the second enlarges the result."""

from __future__ import annotations

from torch import Tensor, nn

from restore_cli.models.emt import EMT
from restore_cli.models.restormer import Restormer
from restore_cli.weights.architectures import CascadeConfig

__all__ = ["Cascade"]


class Cascade(nn.Module):
    """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale); h and w are multiples of 8.

    At the size of the input, Restormer (arXiv:2111.09881) costs a fifth of EMT (arXiv:2305.11403) and sees a larger
    neighbourhood, so it removes noise and compression artefacts. Both are trained together.
    """

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        self.config = config
        self.restorer = Restormer(config.restorer)
        self.enlarger = EMT(config.enlarger)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1] -> (b, 3, h·scale, w·scale)."""
        return self.enlarger(self.restorer(x))
