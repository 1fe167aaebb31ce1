"""The results as a page of Markdown tables: ratios only, since times do not travel between machines."""

from __future__ import annotations

from .measure import geometric_mean

HEAD = """# Measured on the CPU

Written by `make bench`. A peer's column says how many times as long as ostinato it takes: median of rounds run side by
side [10th, 90th percentile]; floor is what the machine needs at least (the products at the rate of a large product, or
the bytes of inputs and outputs at the rate of a copy, whichever is longer) over our time. What is timed was first
compared with float64 at the same shape.
"""


def page(found: dict[str, dict]) -> str:
    """The page of all groups, from the contents of their JSON files."""
    parts = [HEAD]
    for name, file in found.items():
        here, rows = file["machine"], file["rows"]
        parts.append(f"## {name}\n\n{here['cpu']}, {here['threads']} thread(s), torch {here['torch']}; products "
                     f"{here['gemm_gflops']:.0f} GFLOP/s, copies {here['copy_gbytes_per_s']:.0f} GB/s.\n")
        tables = {"step": _steps, "memory": _memory, "latency": _latency, "segments": _segments,
                  "schedules": _schedules, "chunks": _chunks}
        parts.append(tables.get(name, _workloads)(rows))
    return "\n".join(parts)


def _schedules(rows: list[dict]) -> str:
    lines = [[r["cell"], str(r["T"]), ", ".join(f"{k} {v['median']:.2f}" for k, v in r["times"].items()), r["chosen"],
              f"{r['over_best']:.2f}"] for r in rows]
    return _table(["cell", "T", "ms, forward and backward", "auto takes", "of the best"], lines)


def _segments(rows: list[dict]) -> str:
    who = list(rows[0]["ratio"]) if rows else []
    return _table(["forward and backward, over one piece", "B", "T", *who],
                  [[f"{r['cell']}, {r['schedule']}", str(r["B"]), str(r["T"]), *(_range(r["ratio"][k]) for k in who)]
                   for r in rows])


def _chunks(rows: list[dict]) -> str:
    lines = [[r["cell"], *(str(r[k]) for k in "BTC"), str(r["dims"]["K"]),
              *(f"{r['share'][k]:.0%}" for k in r["times"])] for r in rows]
    return _table(["share of the rate of a large product", "B", "T", "steps per chunk", "K = V", "forward",
                   "forward and backward"], lines)


def _table(head: list[str], lines: list[list[str]]) -> str:
    out = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in out) + "\n"


def _workloads(rows: list[dict]) -> str:
    out = []
    for kind, label in (("forward", "forward"), ("both", "forward and backward")):
        who = list(dict.fromkeys(name for r in rows for name in r["ratio"][kind]))
        lines = [[r["workload"], f"{r['floor'][kind]['share']:.0%}",
                  *(_range(r["ratio"][kind].get(name)) for name in who)] for r in rows]
        means = [geometric_mean([r["ratio"][kind][name]["median"] for r in rows if name in r["ratio"][kind]])
                 for name in who]
        share = geometric_mean([r["floor"][kind]["share"] for r in rows])
        lines.append(["geometric mean", f"{share:.0%}", *(f"{v:.2f}x" for v in means)])
        out.append(_table([label, "floor", *who], lines))
    out += [f"No figure for {name} at {r['workload']}: {why}\n" for r in rows for name, why in r["fails"].items()]
    return "\n".join(out)


def _range(r: dict[str, float] | None) -> str:
    return f"{r['median']:.2f}x [{r['p10']:.2f}, {r['p90']:.2f}]" if r else ""


def _steps(rows: list[dict]) -> str:
    who = list(dict.fromkeys(name for r in rows for name in r["ratio"]))
    return _table(["cell", "B", "µs per step", *who],
                  [[r["cell"], str(r["B"]), f"{r['times']['ostinato']['median']:.1f}",
                    *(_range(r["ratio"].get(name)) for name in who)] for r in rows])


def _memory(rows: list[dict]) -> str:
    who = [k for k in dict.fromkeys(k for r in rows for k in r) if k != "workload"]
    return _table(["MiB of one forward and backward pass", *who],
                  [[r["workload"], *(f"{r[k]:.0f}" if k in r else "" for k in who)] for r in rows])


def _latency(rows: list[dict]) -> str:
    return _table(["seconds to the first gradient", "cache", "T", "s", "kernels compiled by other B and T"],
                  [[r["cell"], r["run"], str(r["T"]), f"{r['seconds']:.2f}", str(r["compiled_by_other_shapes"])]
                   for r in rows])
