"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is not a failure; how long things take is measured in benchmarks/.
settings.register_profile("rightbatch", deadline=None, derandomize=True)
settings.load_profile("rightbatch")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data sets; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for folder in (os.environ.get("RIGHTBATCH_DATA"), beside):
        if folder and Path(folder).is_dir():
            return Path(folder)
    pytest.skip("no real data beside the checkout; set RIGHTBATCH_DATA")
