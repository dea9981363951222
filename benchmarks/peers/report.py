"""From the measured rounds to two tables in Markdown: times, and ratios to xpnet with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

BASE = "xpnet"
PEERS = ("torch", "torch-compile", "torch-graph", "jax", "jax-scan", "sklearn")  # that others wrote


def ratio(system: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Return median, lower and upper quartile of the ratios system/base, round by round.

    The two times of a round were taken seconds apart, so what slowed the machine then slowed both.
    """
    ratios = [one / other for one, other in zip(system, base, strict=True)]
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    lower, middle, upper = quantiles(ratios, n=4, method="inclusive")
    return middle, lower, upper


def number(value: float) -> str:
    """Return three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def tables(results: dict[str, Any]) -> str:
    """Return the whole report of a JSON file that `python -m benchmarks.peers` wrote, as Markdown."""
    names = list(dict.fromkeys(name for work in results["works"].values() for name in work["systems"]))
    parts = [_heading(results), "Microseconds a step, median:", _times(results, names)]
    if BASE in names:
        parts += [
            "Time of each system divided by xpnet's, median of the rounds' ratios (quartiles); above 1, "
            "xpnet is faster. The best peer is the fastest by median of the systems that others wrote:",
            _ratios(results, [name for name in names if name != BASE]),
        ]
    timed = [name for name in names if any(_first_step(work, name) for work in results["works"].values())]
    for since, words in (("imported", "the library's import"), ("started", "the start of the process")):
        if timed:
            parts += [
                f"Milliseconds from {words} to the end of the first step with empty code caches (again, with "
                "those filled), median:",
                _first_steps(results, timed, since),
            ]
    parts += _failures(results)
    return "\n\n".join(parts)


def _heading(results: dict[str, Any]) -> str:
    machine, settings = results["machine"], results["settings"]
    text = (
        f"{machine['date']}, {_gpu(machine)}{machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"{machine['blas']}; {settings['threads']} threads, {settings['rounds']} rounds of {settings['seconds']} s; "
        + ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items()))
    )
    engines = {
        said["engine"]
        for work in results["works"].values()
        for name, said in work["systems"].items()
        if name == BASE and "engine" in said
    }
    if engines:
        text += f"; xpnet's engine is {' or '.join(sorted(engines))}"
    limits = [limit for work in results["works"].values() for limit in work["limits"] if limit]
    if limits:
        product, copy = (median(limit[name] for limit in limits) / 1e9 for name in ("flops", "bytes"))
        text += f". In the same run, median: float32 product {product:.0f} GFLOP/s, copy {copy:.1f} GB/s"
    return text + "."


def _gpu(machine: dict[str, Any]) -> str:
    if not machine.get("gpu"):
        return ""
    return f"{machine['gpu']}, CUDA driver {machine['cuda_driver']} and runtime {machine['cuda_runtime']}, "


def _times(results: dict[str, Any], names: list[str]) -> str:
    rows = []
    for key, work in results["works"].items():
        cells = [f"{key}. {work['name']}"]
        for name in names:
            times = _seconds(work, name)
            cells.append(number(median(times) * 1e6) if times else _why_not(work, name))
        rows.append([*cells, _share(work)])
    return _markdown(["work", *names, "xpnet's share of a large product's rate"], rows)


def _share(work: dict[str, Any]) -> str:
    """FLOP/s of xpnet's step over those of a large product in the same round: median and quartiles."""
    times, cost = _seconds(work, BASE), work["systems"].get(BASE, {}).get("flops")
    if not times or not cost or not all(work["limits"]):
        return ""
    products = [cost / limit["flops"] for limit in work["limits"]]
    middle, lower, upper = ratio(products, times)
    return f"{middle:.1%} ({lower:.1%} to {upper:.1%})"


def _ratios(results: dict[str, Any], names: list[str]) -> str:
    rows = []
    for key, work in results["works"].items():
        cells = [f"{key}. {work['name']}"]
        cells += [_ratio(work, name) or _why_not(work, name) or _why_not(work, BASE) for name in names]
        best = best_peer(work)
        rows.append([*cells, f"{best}: {_ratio(work, best)}" if best else ""])
    return _markdown(["work", *names, "best peer"], rows)


def best_peer(work: dict[str, Any]) -> str | None:
    """Return which of the systems that others wrote has the least median time; None if none or not xpnet was timed."""
    medians = {name: median(times) for name in PEERS if (times := _seconds(work, name))}
    return min(medians, key=medians.__getitem__) if medians and _seconds(work, BASE) else None


def _ratio(work: dict[str, Any], name: str) -> str:
    """Return a system's time over xpnet's: median and quartiles; "" if one of them was not timed."""
    times, base = _seconds(work, name), _seconds(work, BASE)
    if not times or not base:
        return ""
    middle, lower, upper = (number(value) for value in ratio(times, base))
    return f"{middle} ({lower} to {upper})"


def _first_steps(results: dict[str, Any], names: list[str], since: str) -> str:
    rows = []
    for key, work in results["works"].items():
        cells = [f"{key}. {work['name']}"]
        for name in names:
            times = _first_step(work, name)
            cold, again = (
                median(one[since] for one in times[kind]) * 1e3 if times else 0.0 for kind in ("cold", "again")
            )
            cells.append(f"{number(cold)} ({number(again)})" if times else _why_not(work, name))
        rows.append(cells)
    return _markdown(["work", *names], rows)


def _first_step(work: dict[str, Any], name: str) -> dict[str, list[dict[str, float]]]:
    return work["systems"].get(name, {}).get("first_step", {})


def _failures(results: dict[str, Any]) -> list[str]:
    lines = [f"- left out: {name}, {reason}" for name, reason in results["left_out"].items()]
    for key, work in results["works"].items():
        lines += [
            f"- work {key}: {name} failed: {said['failed']}"
            for name, said in work["systems"].items()
            if "failed" in said
        ]
    return ["\n".join(lines)] if lines else []


def _seconds(work: dict[str, Any], name: str) -> list[float]:
    said = work["systems"].get(name, {})
    return [] if "failed" in said else said.get("seconds", [])


def _why_not(work: dict[str, Any], name: str) -> str:
    return "failed" if "failed" in work["systems"].get(name, {}) else ""


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    table = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)
