"""Files of the command line: texts with their sizes, arrays, parameters, reports."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

SIZES = re.compile(r"^#\s*sizes:(.*)$", re.MULTILINE)


class UsageError(Exception):
    """The command line or a file it names cannot be used; the message says why."""


def too_large(error: Exception) -> bool:
    """Whether an error of NumPy or torch says that an array does not fit into memory."""
    said = "allocate memory", "Storage size calculation overflowed", "integer multiplication overflow"
    return isinstance(error, MemoryError) or any(words in str(error) for words in said)


def read_text(path: str) -> str:
    """The text of a file, "-" for standard input. Raises UsageError."""
    try:
        data = Path(path).read_bytes() if path != "-" else sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text") from None


def write_atomically(path: Path, data: bytes) -> None:
    """All of `data` or, if anything fails, the file as it was. Raises UsageError."""
    name = None
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            name = file.name
            file.write(data)
        os.chmod(name, mode)
        os.replace(name, path)
    except OSError as error:
        if name is not None:
            Path(name).unlink(missing_ok=True)
        raise UsageError(f"{path}: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def settings(definitions: Iterable[str]) -> dict[str, object]:
    """`-D` definitions: NAME=number, NAME=word (a function), NAME=file.npy (an array). Raises UsageError."""
    out: dict[str, object] = {}
    for text in definitions:
        name, sign, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not sign or not name or not value:
            raise UsageError(f"-D {text}: write -D NAME=VALUE, for example -D H=128")
        if name in out:
            raise UsageError(f"-D {name} is given twice")
        out[name] = array(value) if value.endswith(".npy") else _number(value)
    return out


def _number(text: str) -> int | float | bool | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def declared_sizes(text: str) -> dict[str, object]:
    """Sizes from a comment line such as `# sizes: I=3 H=5`, for trying out a file without -D."""
    m = SIZES.search(text)
    return {} if m is None else {k: _number(v) for k, v in re.findall(r"(\w+)=(\S+)", m[1])}


def array(path: str) -> np.ndarray:
    """The array of a .npy file. Raises UsageError."""
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not isinstance(found, np.ndarray):
        raise UsageError(f"{path} holds several arrays; one .npy array is needed here")
    return found


def arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name. Raises UsageError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} holds one array without a name; write NAME={path}")
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path}: {error}") from None
    except (AttributeError, TypeError):         # np.load gave an array, which is no context
        raise UsageError(f"{path} holds one array without a name; write NAME={path}") from None


def named_arrays(sources: Iterable[str]) -> dict[str, np.ndarray]:
    """`-i` arguments: NAME=file.npy, or file.npz with all names in it. Raises UsageError."""
    out: dict[str, np.ndarray] = {}
    for source in sources:
        name, sign, path = source.partition("=")
        found = {name: array(path)} if sign else arrays(source)
        if twice := set(found) & set(out):
            raise UsageError(f"{', '.join(sorted(twice))} is given twice")
        out |= found
    return out


def parameters(path: str) -> Mapping[str, object]:
    """Parameters by name from .npz, or a state_dict from .pt (read with weights_only). Raises UsageError."""
    if path.endswith(".npz"):
        return arrays(path)
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - bytes that are no state_dict make torch.load raise anything
        raise UsageError(
            f"{path}: not a state_dict that can be read safely ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds {type(found).__name__}, not a state_dict")
    return found


def write_arrays(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """A .npz file of all values, or a .npy file of the only one, written atomically. Raises UsageError."""
    import io

    buffer = io.BytesIO()
    if path.suffix == ".npy":
        (x,) = values.values()
        np.save(buffer, x)
    else:
        with zipfile.ZipFile(buffer, "w") as archive:     # np.savez takes names as keywords, `file` for one of its own
            for name, x in values.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asanyarray(x), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
