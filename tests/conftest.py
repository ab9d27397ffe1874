"""Fixtures that several test files share."""

import pytest

from benchmarks import peers
from fastfid.features.weights import find_weights


@pytest.fixture(scope="session")
def weights():
    """The real Inception weights, as a user gets them: FASTFID_WEIGHTS, the cache, or fetched once."""
    return find_weights()


@pytest.fixture(scope="session")
def torchvision_importable():
    """Let ``import torchvision`` work here, as torchmetrics and the peers need it; see benchmarks/peers.py."""
    if peers.torchvision_needs_stub():
        peers.install_torchvision_stub()
