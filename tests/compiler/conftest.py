"""Lets the tests of this folder import their helpers (`handmade`, `gradients`, and `strategies` one up)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
