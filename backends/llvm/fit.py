"""Where the numbers in `coefficients` come from: minimax fits in 60 digits.

`python -m ostinato.backends.llvm.fit` prints `coefficients.py` anew (needs mpmath,
which torch brings with sympy). Polynomials by Remez' exchange; the weight makes
the error that is levelled the relative error of the function finally computed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60
Real = mp.mpf
Fn = Callable[[Real], Real]


def remez(f: Fn, lo, hi, degree: int, weight: Fn, sweeps: int = 12) -> list[Real]:
    """Coefficients c0 ... c_degree of the polynomial with least max |weight * (f - p)| on [lo, hi].
    Ends when the error at the reference points is level to a per mille."""
    n = degree + 2
    lo, hi = mp.mpf(lo), mp.mpf(hi)
    scale = max(abs(lo), abs(hi))
    grid = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * i / (40 * n)) for i in range(40 * n + 1)]
    fs, ws = [f(x) for x in grid], [weight(x) for x in grid]
    at = [round(40 * n * (i + mp.mpf(1) / 2) / n) for i in range(n)]
    for _ in range(sweeps):
        rows = mp.matrix(n, n)
        for i, j in enumerate(at):
            for k in range(degree + 1):
                rows[i, k] = ws[j] * (grid[j] / scale) ** k
            rows[i, n - 1] = (-1) ** i * ws[at[-1]]
        solution = mp.lu_solve(rows, mp.matrix([ws[j] * fs[j] for j in at]))
        c = [v / scale**k for k, v in enumerate(list(solution)[:-1])]
        error = [w * (v - mp.polyval(c[::-1], x)) for x, v, w in zip(grid, fs, ws)]
        worst = max(abs(e) for e in error)
        if worst < abs(solution[n - 1] * ws[at[-1]]) * mp.mpf("1.001"):
            break
        at = _alternation(error, n)
    return c


def _alternation(error: list[Real], n: int) -> list[int]:
    """Positions of the n largest extrema of alternating sign."""
    runs: list[int] = []
    for i, e in enumerate(error):
        if runs and mp.sign(error[runs[-1]]) == mp.sign(e):
            if abs(e) > abs(error[runs[-1]]):
                runs[-1] = i
        elif e != 0:
            runs.append(i)
    while len(runs) > n:
        runs.pop(0 if abs(error[runs[0]]) < abs(error[runs[-1]]) else -1)
    assert len(runs) == n, "error does not alternate: too high a degree"
    return runs


# -- the functions ----------------------------------------------------------
def exp_tail(r):
    """(e^r - 1 - r) / r^2"""
    return mp.mpf(1) / 2 + r / 6 if abs(r) < 1e-25 else (mp.expm1(r) - r) / (r * r)


def atanh_tail(z):
    """(2 atanh(s) - 2s) / s^3 with s^2 = z"""
    s = mp.sqrt(z)
    return mp.mpf(2) / 3 if z < 1e-25 else (2 * mp.atanh(s) - 2 * s) / s**3


def sin_tail(z):
    """(sin(2 pi u) / u - 2 pi) / u^2 with u^2 = z"""
    u = mp.sqrt(z)
    return -(2 * mp.pi) ** 3 / 6 if z < 1e-25 else (mp.sin(2 * mp.pi * u) / u - 2 * mp.pi) / z


def cos_tail(z):
    """(cos(2 pi u) - 1) / u^2 with u^2 = z"""
    return -(2 * mp.pi) ** 2 / 2 if z < 1e-25 else (mp.cos(2 * mp.pi * mp.sqrt(z)) - 1) / z


def sin_rest(z):
    """(sin(r) - r) / r^3 with r^2 = z"""
    r = mp.sqrt(z)
    return mp.mpf(-1) / 6 if z < 1e-25 else (mp.sin(r) - r) / r**3


def cos_rest(z):
    """(cos(r) - 1 + r^2/2) / r^4 with r^2 = z"""
    return mp.mpf(1) / 24 if z < 1e-20 else (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def erf_slope(z):
    """erf(x) / x - 1 with x^2 = z"""
    x = mp.sqrt(z)
    return (2 / mp.sqrt(mp.pi) if z < 1e-25 else mp.erf(x) / x) - 1


HALF_LN2 = mp.log(2) / 2 + mp.mpf("1e-6")
LOG_Z = (3 - 2 * mp.sqrt(2)) ** 2 + mp.mpf("1e-6")   # s = f/(2+f), 1+f within [sqrt 1/2, sqrt 2]
ERF_END = {"f32": mp.mpf("4.0"), "f64": mp.mpf("6.0")}


def tables(real: str) -> dict[str, list[Real]]:
    """All tables of one precision, constant coefficient first."""
    single = real == "f32"
    end = ERF_END[real]
    out = {
        "exp": remez(exp_tail, -HALF_LN2, HALF_LN2, 4 if single else 9, lambda r: r * r / mp.exp(r)),
        "log": remez(atanh_tail, 0, LOG_Z, 2 if single else 6, lambda z: z / 2),
        "log1p_unit": remez(atanh_tail, 0, mp.mpf(1) / 9, 4 if single else 10, lambda z: z / 2),
        "sin2pi": remez(sin_tail, 0, mp.mpf(1) / 64, 2 if single else 5, lambda z: z),
        "cos2pi": remez(cos_tail, 0, mp.mpf(1) / 64, 2 if single else 5, lambda z: z),
        "erf": remez(erf_slope, 0, 1, 6 if single else 11, lambda z: 1 / (1 + erf_slope(z))),
        # -ln erfc from 1 on; an error in it counts erfc / erf times
        "erfc": remez(lambda u: -mp.log(mp.erfc(1 + u)), 0, end - 1, 5 if single else 18,
                      lambda u: mp.erfc(1 + u) / mp.erf(1 + u)),
    }
    if not single:  # float goes through double here
        eighth = (mp.pi / 4 + mp.mpf("1e-6")) ** 2
        out["sin"] = remez(sin_rest, 0, eighth, 5, lambda z: z)
        out["cos"] = remez(cos_rest, 0, eighth, 5, lambda z: z * z)
    return out


def _rounded(x: Real, real: str) -> float:
    return struct.unpack("f", struct.pack("f", float(x)))[0] if real == "f32" else float(x)


def main() -> None:
    print('"""Minimax coefficients, constant term first. Computed, not copied: printed by\n'
          '`python -m ostinato.backends.llvm.fit`, where each function fitted is written down."""\n')
    for real in ("f32", "f64"):
        print(f"{real.upper()} = {{")
        for name, values in tables(real).items():
            lines = [repr(_rounded(v, real)) for v in values]
            print(f'    "{name}": (')
            for i in range(0, len(lines), 4):
                print("        " + ", ".join(lines[i:i + 4]) + ",")
            print("    ),")
        print("}")


if __name__ == "__main__":
    main()
