"""The standard library of state spaces against scipy and the papers' tables; long memories do what they are for."""

import math

import numpy as np
import ostinato
import pytest
import torch
from scipy.linalg import expm
from scipy.signal import cont2discrete

HEAD = ('import zoh, bilinear, zoh_dense, bilinear_dense, expm, legs_A, legs_B, legs_P, legt_A, legt_B, s4d_lin, s4d_inv, fout_A '
        'from "ostinato/state_space.ost"\n')


def values(equations: str, outputs: str, **sizes):
    """What a cell without state gives in one step."""
    source = HEAD + f"cell c(N, M=2) {{\n input u: []\n{equations}\n output {outputs}\n}}"
    layer = ostinato.compile(source, backend="interpreter", dtype=torch.float64, **sizes)
    y, _ = layer(torch.zeros(1, 1, dtype=torch.float64))
    return [v[0, 0].detach().numpy() for v in (y if isinstance(y, tuple) else (y,))]


@pytest.mark.parametrize("N", [1, 2, 5, 16])
@pytest.mark.parametrize("kind", ["legs", "legt"])
@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_dense_discretisations_agree_with_scipy(N, kind, method):
    dt = 0.01
    A, B, a, b = values(f"const A[n, k]: [N, N] = {kind}_A(n, k)\nconst B[n]: [N] = {kind}_B(n)\n"
                        f"a, b = {method}_dense(A, B, {dt})", "P: [N, N] = A, Q: [N] = B, a, b", N=N)
    want = cont2discrete((A, B[:, None], np.eye(N), np.zeros((N, 1))), dt, method)
    np.testing.assert_allclose(a, want[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(b, want[1][:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_diagonal_discretisations_agree_with_scipy(method):
    A, a, b = values(f"const A[n]: complex [N] = s4d_lin(n)\na, b = {method}(A, 0.02)", "P: complex [N] = A, a, b", N=4)
    np.testing.assert_allclose(A, -0.5 + 1j * math.pi * np.arange(4))
    for i in range(4):      # one complex number is a real state space of two
        real = np.array([[A[i].real, -A[i].imag], [A[i].imag, A[i].real]])
        da, db, *_ = cont2discrete((real, np.array([[1.0], [0.0]]), np.eye(2), np.zeros((2, 1))), 0.02, method)
        np.testing.assert_allclose([a[i], b[i]], [da[0, 0] + 1j * da[1, 0], db[0, 0] + 1j * db[1, 0]], rtol=1e-12)


def test_small_steps_keep_their_digits():
    """expm1, not exp - 1: at dt = 1e-9 the input's factor is dt to full precision."""
    (b,) = values("a, b = zoh([s4d_lin(1), -1], 0.000000001)", "b", N=1)
    np.testing.assert_allclose(b, 1e-9 * (1 + 0.5e-9 * np.array([-0.5 + 1j * math.pi, -1])), rtol=1e-14)


def test_tables():
    """The matrices as printed: HiPPO-LegS theorem 2, LMU equation 2, S4D-Inv."""
    A, T, v = values("const A[n, k]: [N, N] = legs_A(n, k)\nconst T[n, k]: [N, N] = legt_A(n, k)\nconst v[n]: complex [N] = s4d_inv(n, N)",
                     "P: [N, N] = A, Q: [N, N] = T, v", N=3)
    r3, r5, r15 = 3**0.5, 5**0.5, 15**0.5
    np.testing.assert_allclose(A, -np.array([[1, 0, 0], [r3, 2, 0], [r5, r15, 3]]))
    np.testing.assert_allclose(T, np.array([[-1, -1, -1], [3, -3, -3], [-5, 5, -5]]))
    np.testing.assert_allclose(v, [-0.5 + 1j * 3 / math.pi * (3 / (2 * n + 1) - 1) for n in range(3)])


@pytest.mark.parametrize("scale", [0.0, 1e-8, 0.1, 3.0])
def test_matrix_exponential(scale):
    X = scale * np.random.default_rng(0).standard_normal((6, 6))
    layer = ostinato.compile(HEAD + "cell c(N) {\n input X: [N, N]\n output E: [N, N] = expm(X[t])\n}", backend="interpreter",
                             dtype=torch.float64, N=6)
    E = layer(torch.from_numpy(X)[None, None])[0][0, 0].numpy()
    np.testing.assert_allclose(E, expm(X), rtol=1e-12, atol=1e-12 * np.abs(expm(X)).max())


def test_legendre_window_remembers():
    """HiPPO-LegT holds the last `window` inputs: read out by Legendre polynomials it gives them back."""
    N, window = 12, 50
    layer = ostinato.compile("examples/zoo/hippo_legt.ost", N=N, window=window, dtype=torch.float64)
    t = torch.arange(200, dtype=torch.float64)
    u = torch.sin(0.1 * t) + 0.5 * torch.cos(0.17 * t)
    c = layer(u[None])[0][0, -1].numpy()
    back = np.arange(1, window - 1)     # steps back
    basis = np.stack([np.polynomial.legendre.Legendre.basis(n)(2 * (back + 0.5) / window - 1) for n in range(N)])
    np.testing.assert_allclose(c @ basis, u.numpy()[-1 - back], atol=0.02)


def test_lru_starts_on_its_ring():
    layer = ostinato.compile("examples/zoo/lru.ost", I=2, H=4000, r_min=0.7, r_max=0.8, max_phase=0.5, dtype=torch.float64)
    size = torch.exp(-layer.nu.exp()).detach()
    assert size.min() >= 0.7 and size.max() <= 0.8 and layer.theta.exp().max() <= 0.5
    assert abs(size.square().mean() - (0.7**2 + 0.8**2) / 2) < 1e-2      # uniform over the ring's area
    torch.testing.assert_close(layer.gamma.exp().square(), 1 - size**2)


def legs(N: int):
    """HiPPO-LegS as diag(Lambda) - P P^* in the basis V: the normal part's eigenvectors (Gu et al. 2022, theorem 1)."""
    A, B, P = values("const A[n, k]: [N, N] = legs_A(n, k)\nconst B[n]: [N] = legs_B(n)\nconst P[n]: [N] = legs_P(n)",
                     "X: [N, N] = A, Y: [N] = B, Z: [N] = P", N=N)
    skew = A + np.outer(P, P) + np.eye(N) / 2
    np.testing.assert_allclose(skew, -skew.T, atol=1e-12)
    frequency, V = np.linalg.eigh(-1j * skew)
    return A, B, -0.5 + 1j * frequency, V.conj().T @ P, V.conj().T @ B, V


def test_s4_can_start_from_legs():
    """The O(N) step of the diagonal + rank one form is the dense bilinear step of HiPPO-LegS, in every schedule."""
    D, N, T = 2, 16, 40
    A, B, eigenvalues, P, Bv, V = legs(N)
    rows = lambda x: torch.from_numpy(np.broadcast_to(x, (D, N)).astype(complex).copy())
    C = np.random.default_rng(0).standard_normal(N)
    dt = np.array([0.02, 0.3])
    given = dict(A=rows(eigenvalues), P=rows(P), B=rows(Bv), C=rows(C @ V), skip=torch.zeros(D, dtype=torch.float64),
                 log_dt=torch.from_numpy(np.log(dt)))
    u = np.random.default_rng(1).standard_normal((T, D))
    want = np.zeros((T, D))
    for d in range(D):
        a, b, *_ = cont2discrete((A, B[:, None], np.eye(N), np.zeros((N, 1))), dt[d], "bilinear")
        h = np.zeros(N)
        for t in range(T):
            h = a @ h + b[:, 0] * u[t, d]
            want[t, d] = C @ h
    for schedule in ("auto", "scan", "conv"):
        layer = ostinato.compile("examples/zoo/s4.ost", schedule=schedule, dtype=torch.float64, D=D, N=N, **given)
        y, _ = layer(torch.from_numpy(u)[None])
        np.testing.assert_allclose(y[0].detach().numpy(), want, rtol=1e-9, atol=1e-10 * np.abs(want).max())
    assert "transition: constant, per channel + rank 1" in layer.explain()


def test_s4_starts_as_a_fourier_window():
    """diag(2 pi i n) - 1 1^T: what it holds are the Fourier coefficients of the last stretch of time of length 1."""
    (A,) = values("const A[n]: complex [N] = fout_A(n, N)", "A", N=4)
    np.testing.assert_allclose(A, 2j * math.pi * np.array([-2, -1, 0, 1]))
    N, dt = 33, 1 / 400
    layer = ostinato.compile("examples/zoo/s4.ost", dtype=torch.float64, D=1, N=N,
                             log_dt=torch.tensor([math.log(dt)], dtype=torch.float64))
    t = np.arange(1200) * dt
    u = np.sin(2 * math.pi * t) + 0.3 * np.cos(4 * math.pi * t)     # of period 1: the window is exact
    h = layer(torch.from_numpy(u)[None, :, None])[1]["h"][0, 0].detach().numpy()
    want = [np.mean(u[-400:] * np.exp(2j * math.pi * n * (t[-1] - t[-400:]))) for n in range(-16, 17)]
    np.testing.assert_allclose(h, want, atol=0.02)
