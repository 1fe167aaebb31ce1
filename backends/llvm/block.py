"""The argument block, which host and generated code agree about: one array of i64.

HEADER words, then five words per port (address, then strides in elements: batch, time,
heads, first axis), then two per pack (address, heads stride).
"""

WORDS = ("B", "T", "tile", "block", "blocks", "heads", "threads", "slots", "seed", "training", "scratch",
         "scratch_stride", "tiles", "chunks", "chunk")
HEADER, PER_PORT, PER_PACK = 16, 5, 2
SCRATCH, SEED, TRAINING = (WORDS.index(w) for w in ("scratch", "seed", "training"))
ALIGN = 64          # bytes; of scratch memory
