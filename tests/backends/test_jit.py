"""Compilation: addresses, counting, keys, errors, host description."""

import ctypes
import gc
import threading

import pytest
import torch
from ostinato.backends.llvm import jit

ADD = "define i64 @add(i64 %a, i64 %b) {\n %c = add i64 %a, %b\n ret i64 %c\n}\n"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OSTINATO_CACHE_DIR", str(tmp_path))


def call(code, name, *args):
    kind = ctypes.c_int64
    return ctypes.CFUNCTYPE(kind, *[kind] * len(args))(code.address(name))(*args)


def test_compiles_once_per_text_and_key():
    before = jit.compile_count()
    first, again = jit.compile_module(ADD), jit.compile_module(ADD)
    assert call(first, "add", 2, 3) == call(again, "add", 2, 3) == 5
    assert jit.compile_count() == before + 1
    other = jit.compile_module(ADD, key_extra="x")
    assert call(other, "add", 2, 3) == 5
    assert jit.compile_count() == before + 2


def test_damaged_cache_is_rebuilt(tmp_path):
    jit.compile_module(ADD)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    before = jit.compile_count()
    assert call(jit.compile_module(ADD), "add", 1, 1) == 2
    assert jit.compile_count() == before + 1
    jit.compile_module(ADD)
    assert jit.compile_count() == before + 1


def test_library_functions_and_given_symbols_are_found():
    text = """
    declare double @llvm.pow.f64(double, double)
    declare i64 @given(i64)
    define double @power(double %x, double %y) { %z = call double @llvm.pow.f64(double %x, double %y) ret double %z }
    define i64 @relay(i64 %x) { %y = call i64 @given(i64 %x) ret i64 %y }
    """
    callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: x + 40)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    code = jit.compile_module(text, symbols={"given": address})
    power = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_double)(code.address("power"))
    assert power(2.0, 0.5) == 2**0.5
    assert call(code, "relay", 2) == 42


def test_asm_is_shown_and_not_counted():
    code = jit.compile_module(ADD)
    before = jit.compile_count()
    assert "add:" in code.asm() and "ret" in code.asm()
    assert jit.compile_count() == before


@pytest.mark.skipif(jit.host()["vector_bits"] < 512, reason="needs AVX-512")
def test_full_vector_registers_are_used():
    text = """define void @twice(ptr %p) {
      %x = load <16 x float>, ptr %p, align 4
      %y = fadd <16 x float> %x, %x
      store <16 x float> %y, ptr %p, align 4
      ret void }"""
    assert "%zmm0" in jit.compile_module(text).asm()


def test_private_functions_have_no_address():
    text = ADD + "define internal i64 @hidden() { ret i64 1 }\n"
    code = jit.compile_module(text)
    with pytest.raises(KeyError, match="hidden"):
        code.address("hidden")


@pytest.mark.parametrize("text,message", [
    ("define i64 @f( {", "expected"),
    ("define i64 @f() {\n ret i32 1\n}", "result type"),
    ("declare i64 @nowhere()\ndefine i64 @f() {\n %x = call i64 @nowhere()\n ret i64 %x\n}", "nowhere"),
])
def test_wrong_text_is_an_error(text, message):
    with pytest.raises(RuntimeError, match=message):
        jit.compile_module(text)


def test_code_lives_as_long_as_its_object_and_goes_after():
    codes = [jit.compile_module(ADD, key_extra=str(i)) for i in range(20)]
    del codes[::2]
    gc.collect()
    assert all(call(code, "add", 20, 22) == 42 for code in codes)


def test_several_threads_compile_at_once():
    results = []
    def work(i):
        text = f"define i64 @f() {{\n ret i64 {i % 3}\n}}"
        results.append(call(jit.compile_module(text), "f") == i % 3)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    before = jit.compile_count()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 12 and jit.compile_count() == before + 3


def test_vector_width_follows_the_host():
    assert jit.vector_width(torch.float32) == 2 * jit.vector_width(torch.float64) == jit.host()["vector_bits"] // 32
