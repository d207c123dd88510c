"""A handler for the consumer's tests."""

import pytest
from floopy_sinks.consuming import Taken


@pytest.fixture
def taken() -> Taken:
    return Taken()
