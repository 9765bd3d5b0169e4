"""What several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tests run in parallel processes; each takes one core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the project: real checkpoints, benchmark images."""
    if not SHARED.is_dir():
        pytest.skip("reference data (../shared) is not here")
    return SHARED
