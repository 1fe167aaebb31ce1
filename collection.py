"""No garbage collection while we import or compile.

Both make many small objects that stay. A collection in their midst walks the
whole heap, torch's included (0.1 s, as long as a warm start), and frees nothing.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def paused() -> Iterator[None]:
    """Automatic collection is off inside, and afterwards as it was before."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
