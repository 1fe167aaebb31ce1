"""Lets every test import the helpers of this folder (`strategies`, `random_cells`, `mutate`)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing")


def pytest_collection_modifyitems(items):
    """Fuzzing takes as long as it takes."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def update_golden(request) -> bool:
    return request.config.getoption("--update-golden")
