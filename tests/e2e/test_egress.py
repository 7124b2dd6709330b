"""Egress of Spaces by the operator's word: default, list, none; adopted lists; counters; the limit on bandwidth."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")
def test_egress_of_a_space():
    done = subprocess.run([str(ROOT / "tests/fake_internet"), sys.executable, str(ROOT / "tests/e2e/egress_scenario.py")],
                          capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
