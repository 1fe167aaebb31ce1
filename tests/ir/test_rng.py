"""Threefry against its published vectors; the draws built on it."""

import math

import pytest
import torch
from ostinato.ir import rng

ONES = 2**32 - 1


@pytest.mark.parametrize("key, counter, expected", [  # Random123's kat_vectors, threefry2x32 with 20 rounds
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
])
def test_known_answers(key, counter, expected):
    c0, c1 = (torch.tensor([c]) for c in counter)
    assert tuple(w.item() for w in rng.threefry(*key, c0, c1)) == expected


def test_the_key_and_the_counter_of_a_draw():
    seed, site, t = 0x123456789ABCDEF0, 77, torch.tensor([5, 9])
    x0, _ = rng.words(seed, site, t, (2, 3))
    assert x0.shape == (2, 2, 3)
    for b in range(2):
        for i in range(2):
            for j in range(3):
                expected, _ = rng.threefry(0x9ABCDEF0 ^ 77, 0x12345678, t[b], torch.tensor(b * 6 + i * 3 + j))
                assert x0[b, i, j] == expected


def test_uniform_is_the_same_in_both_precisions():
    t = torch.arange(50)
    x32, x64 = (rng.draw("uniform", 3, 1, t, (40,), d) for d in (torch.float32, torch.float64))
    assert torch.equal(x32.double(), x64) and 0 <= x64.min() and x64.max() < 1
    assert abs(x64.mean() - 0.5) < 0.02 and abs(x64.var() - 1 / 12) < 0.01


def test_normal_is_box_muller():
    t = torch.arange(80)
    x0, x1 = rng.words(-1, 4, t, (50,))
    z = rng.draw("normal", -1, 4, t, (50,), torch.float64)
    u, v = ((x0[3, 7].item() >> 8) + 1) / 2**24, (x1[3, 7].item() >> 8) / 2**24
    assert z[3, 7].item() == pytest.approx(math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v), rel=1e-14)
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05 and z.isfinite().all()


def test_seed_site_and_step_all_matter():
    t = torch.tensor([0, 1])
    a = rng.draw("uniform", 1, 1, t, (9,), torch.float64)
    for other in (rng.draw("uniform", 2, 1, t, (9,), torch.float64), rng.draw("uniform", 1, 2, t, (9,), torch.float64),
                  rng.draw("uniform", 1 + 2**32, 1, t, (9,), torch.float64), a.flip(0)):
        assert not torch.isclose(a, other).any()
