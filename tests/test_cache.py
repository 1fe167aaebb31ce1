"""The disk cache: round trip, corruption, permissions, eviction, many processes at once."""

import os
import subprocess
import sys
import warnings

import pytest
from ostinato import cache

KEY = "ab" * 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OSTINATO_CACHE_DIR", str(tmp_path / "cache"))
    cache._refuse.cache_clear()
    return tmp_path / "cache"


def test_round_trip_and_permissions(folder):
    assert cache.load(KEY) is None
    cache.store(KEY, b"code")
    assert cache.load(KEY) == b"code"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [f.name for f in folder.iterdir()] == [KEY]  # no temporary file left
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:10], lambda c: b"", lambda c: c + b"x",
                                    lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b"X" + c[1:]])
def test_damaged_file_is_ignored_and_replaced(folder, damage):
    cache.store(KEY, b"some object code")
    (folder / KEY).write_bytes(damage((folder / KEY).read_bytes()))
    assert cache.load(KEY) is None
    cache.store(KEY, b"some object code")
    assert cache.load(KEY) == b"some object code"


def test_folder_that_others_can_write_to_is_not_used(folder):
    cache.store(KEY, b"code")
    folder.chmod(0o777)
    with pytest.warns(UserWarning, match="written to by others"):
        assert cache.load(KEY) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        cache.store("cd" * 32, b"code")
    assert not (folder / ("cd" * 32)).exists()


def test_folder_of_another_user_is_not_used(folder, monkeypatch):
    cache.store(KEY, b"code")
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.warns(UserWarning, match="another user"):
        assert cache.load(KEY) is None


def test_folder_that_cannot_be_made_gives_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSTINATO_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be used"):
        cache.store(KEY, b"code")
    assert cache.load(KEY) is None


def test_least_recently_used_files_go_first(folder, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BYTES", 3 * (1000 + 100))
    for i, name in enumerate("abc"):
        cache.store(name, b"." * 1000)
        os.utime(folder / name, (i, i))
    assert cache.load("a") is not None  # used now, so b is the oldest
    cache.store("d", b"." * 1000)
    assert {f.name for f in folder.iterdir()} == {"a", "c", "d"}


PROGRAM = """
import ctypes
from ostinato.backends.llvm import jit
text = "define i64 @f(i64 %x) {{ %y = mul i64 %x, {factor} ret i64 %y }}"
for factor in range(1, 6):
    code = jit.compile_module(text.format(factor=factor))
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address("f"))(7) == 7 * factor
print(jit.compile_count())
"""


def test_eight_processes_start_on_one_empty_cache(folder):
    env = dict(os.environ, OSTINATO_CACHE_DIR=str(folder), OMP_NUM_THREADS="1")
    def start():
        return subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running = [start() for _ in range(8)]
    results = [(p.communicate(timeout=300), p.returncode) for p in running]
    assert all(code == 0 and err == b"" for (_, err), code in results), results
    assert len(list(folder.iterdir())) == 5
    late = start()
    assert late.communicate(timeout=300)[0].strip() == b"0"  # all found in the cache
