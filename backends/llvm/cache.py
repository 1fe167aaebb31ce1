"""Content-addressed store of object code on disk."""

from __future__ import annotations

from pathlib import Path


def directory() -> Path:
    """$OSTINATO_CACHE_DIR, or the user's cache directory for ostinato."""
    raise NotImplementedError


def load(key: str) -> bytes | None:
    """The payload stored under `key` (hex digest), None if there is none that verifies."""
    raise NotImplementedError


def store(key: str, payload: bytes) -> None:
    """Put `payload` under `key`, atomically; then keep the store below its size bound."""
    raise NotImplementedError
