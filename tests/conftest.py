"""Lets every test import the helpers of this folder (`strategies`, `random_cells`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
