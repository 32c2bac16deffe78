"""Memory does not grow with the number of samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "calibration_memory.py"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_peak_memory_at_1024_samples_is_that_at_64(method: str) -> None:
    done = subprocess.run([sys.executable, str(BENCH), method], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ratio"] <= 1.10
