"""Memory that results leave to later results."""

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from ostinato.backends import pages
from ostinato.backends.pages import LARGE, empty, free_memory

N = LARGE                      # float32 elements: four times the smallest pooled result


@pytest.fixture(autouse=True)
def _nothing_idle():
    gc.collect()
    free_memory()
    yield
    free_memory()


def test_memory_of_a_result_that_is_gone_is_used_again():
    address = empty(N, dtype=torch.float32).data_ptr()
    assert empty(4, N // 4, dtype=torch.float32).data_ptr() == address


def test_memory_is_kept_while_any_view_or_graph_needs_it():
    a = empty(2, N, dtype=torch.float32)
    view, address = a[1:, ::2], a.data_ptr()
    view.fill_(7.0)
    leaf = torch.ones(2, N, requires_grad=True)
    saved = leaf * a.fill_(3.0)                # autograd keeps `a`
    del a
    others = [empty(2, N, dtype=torch.float32).fill_(-1.0) for _ in range(3)]
    assert address not in {x.data_ptr() for x in others}
    assert (view == 3.0).all()
    saved.sum().backward()
    assert (leaf.grad == 3.0).all()
    del view, saved
    gc.collect()
    assert address in {empty(2, N, dtype=torch.float32).data_ptr() for _ in range(1)}


def test_small_and_empty_results_are_ordinary_tensors():
    assert empty(3, 0, dtype=torch.float64).shape == (3, 0)
    empty(8, dtype=torch.float32).resize_(100)
    assert free_memory() == 0


def test_idle_memory_is_limited_and_can_be_given_back(monkeypatch):
    monkeypatch.setattr(pages, "limit", lambda: 10 * LARGE)
    held = [empty(N, dtype=torch.float32) for _ in range(4)]
    addresses = [x.data_ptr() for x in held]
    while held:
        held.pop(0)                            # the first is the longest unused
    assert free_memory() == 8 * LARGE
    assert len(set(addresses)) == 4
    assert free_memory() == 0


def test_several_at_once_are_as_one_by_one():
    kinds = [((N,), torch.float32), ((N,), torch.float32), ((3,), torch.int64), ((2, N), torch.float32),
             ((N,), torch.float32)]
    for _ in range(2):
        held = pages.each(kinds)
        assert [(tuple(x.shape), x.dtype) for x in held] == kinds
        addresses = {x.data_ptr() for x in held}
        assert len(addresses) == len(kinds)
        del held
    assert {x.data_ptr() for x in pages.each(kinds) if x.numel() >= N} <= addresses


def test_sizes_near_each_other_share_blocks():
    address = empty(N + 5, dtype=torch.float32).data_ptr()
    assert empty(N + 5_000, dtype=torch.float32).data_ptr() == address


def test_threads_get_memory_of_their_own():
    from concurrent.futures import ThreadPoolExecutor

    def work(i: int) -> bool:
        ok = True
        for k in range(20):
            x = empty(N // 2, dtype=torch.float32).fill_(100.0 * i + k)
            ok &= bool((x == 100.0 * i + k).all())
        return ok

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_a_thread_keeps_its_workspace_and_shares_it_with_none():
    first = pages.workspace(1000)
    assert first.nbytes >= 1000 and pages.workspace(10).data_ptr() == first.data_ptr()
    assert pages.workspace(first.nbytes + 1).nbytes > first.nbytes
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: pages.workspace(10).data_ptr()).result() != pages.workspace(10).data_ptr()
    large = pages.KEPT + 1
    assert pages.workspace(large).nbytes >= large and pages.workspace(10).nbytes <= pages.KEPT


def test_a_workspace_is_large_enough_and_the_same_until_more_is_wanted():
    """Of any size, in huge pages or not; its memory is there to be written."""
    held = pages.workspace(100)
    for nbytes in (1, 1000, pages.BROAD - 1, pages.BROAD, pages.BROAD + 1, pages.HUGE, pages.HUGE + 1, pages.KEPT):
        more = pages.workspace(nbytes)
        assert more.nbytes >= nbytes and (more is held or more.nbytes > held.nbytes)
        assert more.fill_(7).sum().item() == 7 * more.nbytes
        held = more
    assert pages.workspace(1) is held


def test_memory_is_kept_for_whoever_holds_its_storage():
    x = empty(N, dtype=torch.float32)
    storage, address = x.untyped_storage(), x.data_ptr()
    del x
    assert empty(N, dtype=torch.float32).data_ptr() != address
    del storage
    assert address in {x.data_ptr() for x in [empty(N, dtype=torch.float32) for _ in range(2)]}


def test_memory_that_torch_has_moved_is_not_lent_again():
    """A result that is shared with a process lies elsewhere from then on; the process may have it for longer."""
    x = empty(N, dtype=torch.float32).fill_(1.0)
    there = (ctypes.c_float * N).from_address(x.share_memory_().data_ptr())
    keeps = x.untyped_storage()._share_filename_cpu_()
    del x
    others = [empty(N, dtype=torch.float32).fill_(2.0) for _ in range(3)]
    assert ctypes.addressof(there) not in {x.data_ptr() for x in others}
    assert keeps


def test_an_idle_block_is_found_however_many_are_in_use():
    held = [empty(N // 4, dtype=torch.float32) for _ in range(2 * pages.RECENT)]
    addresses = [held.pop(0).data_ptr(), held.pop(pages.RECENT // 2).data_ptr(), held.pop().data_ptr()]
    assert [empty(N // 4, dtype=torch.float32).data_ptr() for _ in range(1)] == [addresses[-1]]     # written last
    more = [empty(N // 4, dtype=torch.float32) for _ in range(3)]
    assert {x.data_ptr() for x in more} == set(addresses)


def test_a_result_has_a_storage_of_its_size():
    """So that a file it is saved to has nothing else."""
    for numel in (N, N + 5, N + 5_000, N):
        assert empty(numel, dtype=torch.float32).untyped_storage().nbytes() == 4 * numel


def test_memory_of_inference_serves_training():
    with torch.inference_mode():
        address = empty(N, dtype=torch.float32).data_ptr()
    x = empty(N, dtype=torch.float32).fill_(2.0)
    leaf = torch.ones(N, requires_grad=True)
    (leaf * x).sum().backward()                 # saves x, which an inference tensor would refuse
    assert x.data_ptr() == address and (leaf.grad == 2.0).all()


def test_a_result_has_a_version_of_its_own():
    for _ in range(2):
        x = empty(N, dtype=torch.float32)
        assert x._version == 0
        x.add_(1.0)
        assert x._version == 1 and not x._is_view()


def test_results_that_are_held_do_not_fill_the_pool():
    held = [empty(LARGE // 4, dtype=torch.float32).fill_(i) for i in range(pages.MOST + 9)]
    assert len(pages._blocks()) == pages.MOST
    assert all((x == i).all() for i, x in enumerate(held))
    held.clear()
    assert free_memory() == pages.MOST * LARGE
