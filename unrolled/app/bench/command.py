"""`unrolled bench`: the command. No torch is imported before it runs."""

import json as json_
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unrolled.errors import InputError


def bench(
    suite: str = "all",
    /,
    *,
    out: Path | None = None,
    engine: str = "auto",
    quick: bool = False,
    json: Annotated[bool, Parameter(help="Print one JSON object on standard output, last.")] = False,
) -> int:
    """Measure this package beside PyTorch and ONNX Runtime on this machine, which should do nothing else meanwhile.

    Parameters
    ----------
    suite
        training, small, generation, memory or all.
    out
        Folder for bench.md, bench.json and roofline.png.
    engine
        auto, or the engine to measure (see unrolled doctor).
    quick
        Tiny sizes and hardly any time: shows that everything runs, measures nothing.
    """
    from unrolled.app.bench.report import markdown
    from unrolled.app.bench.suites import chosen, run

    names = chosen(suite)
    if engine != "auto" and engine not in _engines():
        raise InputError(f"unknown engine {engine!r}: choose one of auto, {', '.join(_engines())}")
    folder = _new_folder(out) if out else None

    def keep(results: dict[str, Any]) -> None:
        if folder:
            _write(folder, results)

    results = run(names, quick=quick, engine=engine, say=_say, done=keep)
    if folder:
        results["roofline"] = _picture(folder, results)
        _say(f"roofline: {results['roofline']}")
        _write(folder, results)
    print(markdown(results))
    if json:
        print(json_.dumps(results, ensure_ascii=False))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _engines() -> list[str]:
    from unrolled.engines import ENGINES

    return list(ENGINES)


def _new_folder(out: Path) -> Path:
    """The folder, made before anything is measured, so that nothing is measured in vain."""
    if (out / "bench.json").exists():
        raise InputError(f"{out} holds a measurement already: name another folder with --out")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder: name another one with --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _write(folder: Path, results: dict[str, Any]) -> None:
    from unrolled.app.bench.report import markdown

    (folder / "bench.json").write_text(json_.dumps(results, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "bench.md").write_text(markdown(results), encoding="utf-8")


def _picture(folder: Path, results: dict[str, Any]) -> str:
    """Draw it, and say where it is or why it is not there."""
    if not {"training", "generation"} & set(results):
        return "not drawn: it shows training and generation, and neither was measured"
    from unrolled.app.bench.roofline import draw

    draw(results, folder / "roofline.png")
    return "roofline.png"
