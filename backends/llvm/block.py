"""The argument block, which host and generated code agree about: one array of i64.

First what is the same for all calls of one size: `WORDS`, four words per port (strides in elements: batch, time,
heads, first axis), one per pack (heads stride). Then what moves from call to call: `MOVING`, the address of every
port, the address of every pack.
"""

WORDS = ("B", "T", "tile", "block", "blocks", "heads", "threads", "slots", "scratch_stride", "tiles", "chunks", "chunk")
MOVING = ("seed", "training", "streaming", "scratch")
PER_PORT = 4
ALIGN = 64          # bytes; of scratch memory


def moving(ports: int, packs: int) -> int:
    """Number of the first word that moves."""
    return len(WORDS) + PER_PORT * ports + packs


def up(n: int) -> int:
    """The next multiple of `ALIGN`."""
    return -(-n // ALIGN) * ALIGN
