"""Fixtures that several test files share."""

import pytest

from fastfid.features.weights import find_weights


@pytest.fixture(scope="session")
def weights():
    """The real Inception weights, as a user gets them: FASTFID_WEIGHTS, the cache, or fetched once."""
    return find_weights()
