"""Settings of the whole suite: how much hypothesis draws, and a thread count that tests restore."""

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=40, **_COMMON)
# For a change of the mathematics: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", max_examples=1000, **_COMMON)
settings.load_profile("default")


@pytest.fixture
def threads():
    """`set_num_threads`, with the count of before put back after the test."""
    import exodus_core as ec

    before = ec.get_num_threads()
    yield ec.set_num_threads
    ec.set_num_threads(before)
