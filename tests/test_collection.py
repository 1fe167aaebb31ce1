"""Compiling pauses garbage collection and leaves it as it was."""

import gc

import ostinato
import pytest
from ostinato.collection import paused


@pytest.fixture(autouse=True)
def enabled():
    yield
    gc.enable()


def test_paused_inside_and_on_again_after_errors():
    with pytest.raises(ZeroDivisionError), paused():
        assert not gc.isenabled()
        1 / 0
    assert gc.isenabled()


def test_who_turned_it_off_keeps_it_off():
    gc.disable()
    with paused():
        pass
    assert not gc.isenabled()


def test_compile_leaves_it_as_it_was():
    ostinato.compile("examples/zoo/ema.ost", D=3)
    assert gc.isenabled()
    with pytest.raises(ostinato.OstinatoError):
        ostinato.compile("cell", D=3)
    assert gc.isenabled()
