"""The results for people: Markdown."""

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]
NAMES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}


def markdown(results: dict[str, Any]) -> str:
    """All of it, one section a suite."""
    parts = [_machine(results)]
    parts += [section(results[name]) for name, section in SECTIONS.items() if name in results]
    return "\n\n".join(parts) + "\n"


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    flags = ", ".join(machine["simd_of_cpu"]) or "unknown"
    lines = [
        "## Machine",
        "",
        f"- {machine['cpu']}, {machine['cores']} cores ({flags}), {machine['memory_gib']} GiB, {machine['platform']}",
        f"- torch {machine['torch']} with {machine['simd_of_torch']}, {machine['threads']} threads; Python "
        f"{machine['python']}; unrolled {machine['unrolled']}, engine {results['engine']}",
        f"- Measured: {machine['matrix_gflops']:.0f} GFLOP/s in float32 matrix products, "
        f"{machine['bandwidth_gbs']:.1f} GB/s of memory (triad)",
    ]
    if results["quick"]:
        lines.append(
            "- **--quick: tiny sizes, hardly measured. These figures say that everything runs, nothing more.**"
        )
    for suite, found in results["idle"].items():
        if found["warning"]:
            lines.append(f"- **Not idle during {suite}: {found['warning']}.**")
        else:
            lines.append(
                f"- Idle during {suite}: others used {found['others_cores']:.2f} cores, other virtual machines "
                f"{found['stolen_cores']:.2f}"
            )
    return "\n".join(lines)


def _training(found: dict[str, Any]) -> str:
    rows = found["rows"]
    names = _contenders(rows)
    header = ["", *(f"{name}, chars/s" for name in names), "× best peer", "of them with one-hot", "GFLOP/s", "of peak"]
    table = _table(
        header,
        (
            [
                _what(row),
                *(_speed(row, name) for name in names),
                f"**{row['ratio']:.2f}**",
                f"{row['ratio_with_one_hot']:.2f}",
                f"{row['contenders']['unrolled']['gflops']:.0f}",
                f"{row['of_peak']:.2f}",
            ]
            for row in rows
        ),
    )
    means = (
        f"Geometric means: {found['geometric_mean_ratio']:.2f} times the best peer, "
        f"{found['geometric_mean_ratio_with_one_hot']:.2f} with one-hot input among the peers, "
        f"{found['geometric_mean_of_peak']:.2f} of the matrix peak. GFLOP/s are dense-equivalent (products that a "
        "look-up saves count as done); the peak is measured in the same rounds."
    )
    size = f"{rows[0]['batch']} rows × {rows[0]['steps']} timesteps, 65 tokens"
    return f"## Training step, {size}\n\n{table}\n\n{means}{_compile_note(rows)}{_missing(rows)}"


def _compile_note(rows: list[Row]) -> str:
    seconds = [row["compile_seconds"] for row in rows if "compile_seconds" in row]
    if not seconds:
        return ""
    took = f"{min(seconds):.0f} to {max(seconds):.0f} s a model"
    return f" torch.compile took {took}, not counted; by default it leaves the recurrent layers as they are."


def _plain(title: str) -> Callable[[dict[str, Any]], str]:
    """A section of times and ratios."""

    def section(found: dict[str, Any]) -> str:
        rows, names = found["rows"], _contenders(found["rows"])
        table = _table(
            ["", "rows × timesteps", *(f"{name}, ms" for name in names), "times as fast"],
            (
                [
                    _what(row),
                    f"{row['batch']} × {row['steps']}",
                    *(f"{1000 * row['contenders'][name]['seconds']:.3f}" for name in names),
                    f"**{row['ratio']:.2f}**",
                ]
                for row in rows
            ),
        )
        mean, least = found["geometric_mean_ratio"], min(row["ratio"] for row in rows)
        return f"## {title}\n\n{table}\n\nGeometric mean {mean:.2f}, least {least:.2f}.{_missing(rows)}"

    return section


def _generation(found: dict[str, Any]) -> str:
    rows, names = found["rows"], _contenders(found["rows"])
    table = _table(
        ["", "rows", *(f"{name}, chars/s" for name in names), "× best peer"],
        (
            [
                _what(row),
                str(row["batch"]),
                *(_speed(row, name) + _variant(row, name) for name in names),
                f"**{row['ratio']:.2f}**",
            ]
            for row in rows
        ),
    )
    means = " and ".join(
        f"{mean:.2f} with {name.rpartition('_')[2]} rows"
        for name, mean in found.items()
        if name.startswith("geometric_mean")
    ).replace("1 rows", "1 row")
    return f"## Generation, temperature 1, 65 characters\n\n{table}\n\nGeometric means: {means}.{_missing(rows)}"


def _variant(row: Row, name: str) -> str:
    variant = row["contenders"].get(name, {}).get("variant")
    return f" ({variant})".replace(" 1 threads", " 1 thread") if variant else ""


def _memory(found: dict[str, Any]) -> str:
    title = "## Memory of a training step: peak above the level before the first"
    rows, names = found["rows"], _contenders(found["rows"])
    if not rows:
        return f"{title}\n\nNot measured: {found['not_measured']}."
    table = _table(
        ["", *(f"{name}, MiB" for name in names), "torch.nn ÷ unrolled"],
        (
            [
                _what(row),
                *(f"{row['contenders'][name]['bytes'] / 2**20:.1f}" for name in names),
                f"**{row['ratio']:.2f}**",
            ]
            for row in rows
        ),
    )
    least = min(row["ratio"] for row in rows)
    return f"{title}\n\n{table}\n\nGeometric mean {found['geometric_mean_ratio']:.2f}, least {least:.2f}."


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "training": _training,
    "layers": _plain("The layers alone, forward and backward"),
    "small_training": _plain("Small work: training step"),
    "small_layers": _plain("Small work: the layers alone, forward and backward"),
    "generation": _generation,
    "memory": _memory,
}


def _contenders(rows: list[Row]) -> list[str]:
    """The names in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in (*row["contenders"], *row.get("not_measured", {}))))


def _what(row: Row) -> str:
    return f"{NAMES[row['cell']]} {row['layers']}×{row['hidden']}"


def _speed(row: Row, name: str) -> str:
    found = row["contenders"].get(name)
    return f"{found['characters_per_second']:,.0f}" if found else "–"


def _missing(rows: list[Row]) -> str:
    """What was not measured and why, each once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, reason in row.get("not_measured", {}).items():
            reasons.setdefault((name, reason), []).append(_what(row))
    lines = []
    for (name, reason), where in reasons.items():
        place = "" if len(where) == len(rows) else f" ({', '.join(where)})"
        lines.append(f"- {name} not measured{place}: {reason}")
    return "\n\n" + "\n".join(lines) if lines else ""


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
