"""Content-addressed store on disk of what is dear to compute (object code, parser tables), private to the user.

One file per key. A file is written under a temporary name in the same folder
and renamed, so readers see all of it or none, however many processes start at
once. Nothing in it is trusted but what its checksum confirms, and nothing is
ever unpickled. Object code is executed, so a folder that someone else could
have written to is not used: a warning says so, and compilation goes on without it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from functools import cache as once
from pathlib import Path

import platformdirs

MAGIC = b"ostinato-object-1\n"
MAX_BYTES = 1 << 30  # then the least recently used files go
DIGEST = hashlib.sha256().digest_size


def directory() -> Path:
    """$OSTINATO_CACHE_DIR, or the user's cache directory for ostinato."""
    chosen = os.environ.get("OSTINATO_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("ostinato")) / "objects"


def load(key: str) -> bytes | None:
    """The payload stored under `key` (hex digest), None if there is none that verifies.
    A damaged file counts as none: the next `store` replaces it."""
    folder = _usable(directory())
    if folder is None:
        return None
    path = folder / key
    try:
        content = path.read_bytes()
        os.utime(path)  # used just now
    except OSError:
        return None
    head, payload = content[:len(MAGIC) + DIGEST], content[len(MAGIC) + DIGEST:]
    return payload if head == MAGIC + hashlib.sha256(payload).digest() else None


def store(key: str, payload: bytes) -> None:
    """Put `payload` under `key`, atomically; then keep the store below MAX_BYTES.
    A full disk or a read-only folder gives a warning, not an error."""
    folder = _usable(directory())
    if folder is None:
        return
    try:
        handle, temporary = tempfile.mkstemp(prefix=".new-", dir=folder)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, folder / key)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        warnings.warn(f"compiled code was not kept in {folder}: {error}", stacklevel=2)
    else:
        _evict(folder)


def _usable(folder: Path) -> Path | None:
    """The folder, made (0700) if missing; None, with a warning once, if it is not safe or cannot be made."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        return _refuse(folder, f"cannot be used ({error.strerror})")
    if hasattr(os, "getuid"):
        if status.st_uid != os.getuid():
            return _refuse(folder, "belongs to another user")
        if status.st_mode & 0o022:
            return _refuse(folder, "can be written to by others; chmod 700 it")
    return folder


@once
def _refuse(folder: Path, why: str) -> None:
    warnings.warn(f"the code cache {folder} {why}: compiling without it "
                  "(OSTINATO_CACHE_DIR chooses another folder)", stacklevel=4)


def _evict(folder: Path) -> None:
    """Remove the least recently used files until the rest is within MAX_BYTES. Files that
    another process removes meanwhile are skipped."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            files.append((status.st_mtime, status.st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= MAX_BYTES:
            return
        Path(path).unlink(missing_ok=True)
        total -= size
