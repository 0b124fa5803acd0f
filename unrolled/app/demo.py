"""`unrolled demo`: a minute from nothing to a model that writes, on text that every Python installation carries."""

import shlex
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from unrolled.app.progress import display, quoted, visible
from unrolled.errors import InputError
from unrolled.inspection.losses import LossCurve, draw
from unrolled.inspection.pictures import COLOURS
from unrolled.metrics.text import xz_bits_per_character
from unrolled.tasks.fitting import Fitted, fit
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training.run import Run
from unrolled.training.schedule import Clock, FromFirstLook

PROMPT = "def "
BASELINE_SHARE = 0.1
"""Part of the time that goes to the one-to-one baseline."""


def library_source() -> list[Path]:
    """The modules at the top of Python's standard library, sorted by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [f for f in sorted(folder.glob("*.py")) if f.stat().st_size > 0]
    if not files:
        raise InputError(
            f"no Python source in {folder}: train on a text of your own, unrolled train language-model FILE"
        )
    return files


def run_demo(seconds: float, out: Path, overwrite: bool, clock: Clock, stop: Callable[[int], bool]) -> dict[str, float]:
    """Train the baseline and a recurrent network on the same text, print both beside xz. Returns bits a character."""
    options = LanguageModelOptions(seconds=seconds)
    Run.check(out, overwrite)
    files = library_source()
    size = sum(f.stat().st_size for f in files)
    _say(f"{len(files)} modules of Python's standard library: {size / 1e6:.1f} MB of text, a tenth for validation.\n")
    _say("1. Without memory (one_to_one): the next character from the current one alone.")
    short = BASELINE_SHARE * seconds + 1
    baseline_options = LanguageModelOptions(seconds=short, topology="one_to_one", lr=1e-2)
    with display(sys.stdout, stop, brief=True) as shown:
        baseline = fit(files, options=baseline_options, clock=FromFirstLook(), observer=shown)
    if not baseline.result.finished:
        return {}
    figures = {"one_to_one": baseline.result.metrics["bits_per_character"]}
    _say(f"   {figures['one_to_one']:.3f} bits a character. It writes like this:")
    _show(baseline.model)
    _say("\n2. With memory: a recurrent network, its state carried from chunk to chunk.")
    with display(sys.stdout, stop, PROMPT) as shown:
        fitted = fit(files, options=options, out=out, overwrite=overwrite, clock=clock, observer=shown)
    if not fitted.result.finished:
        _say(f"stopped; go on with:\n  unrolled resume {shlex.quote(str(out))}")
        return figures
    figures["recurrent"] = fitted.result.metrics["bits_per_character"]
    _say("\nAt the end it writes:")
    _show(fitted.model, length=400)
    figures["xz"] = _xz(files)
    _conclude(figures, fitted, shown.curve, out)
    return figures


def _conclude(figures: dict[str, float], fitted: Fitted, curve: LossCurve, out: Path) -> None:
    """The figures as bars, the picture, and what to do next."""
    options = fitted.model.options
    network = f"{str(options.cell).upper()} with {options.hidden} units"
    names = {"one_to_one": "no memory", "xz": "xz -9e, having read the training text", "recurrent": network}
    _say("\nBits a character on the same validation text (less is better):")
    for name, what in names.items():
        bar = "█" * round(30 * figures[name] / max(figures.values()))
        _say(f"  {what:38} {figures[name]:5.3f}  {bar}")
    numbers = sum(p.numel() for p in fitted.model.network.parameters())
    _say("xz can copy: it has all of the training text at hand, and the library repeats")
    _say(f"itself. The network has {numbers:,} numbers, and could go on learning.")
    draw(
        curve,
        out / "loss.png",
        title=f"unrolled demo: {network} learns Python's standard library",
        colour=COLOURS[str(options.cell)],
        levels=[(names[name], figures[name]) for name in ("one_to_one", "xz")],
    )
    _say(
        f"\nThe loss as a picture: {out / 'loss.png'}\n"
        f"The model:             {out / 'model.safetensors'}\n"
        "Next:\n"
        f'  unrolled sample {shlex.quote(str(out))} --prompt "import " --length 500 --temperature 0.8\n'
        "  unrolled explain hello\n"
        f"  unrolled graph {shlex.quote(str(out))}\n"
        "  unrolled train language-model FILE --seconds 300"
    )


def _show(model: LanguageModel, length: int = 160) -> None:
    _say(quoted(visible(model.sample(PROMPT, length=length, temperature=0.7, seed=1))))


def _xz(files: list[Path]) -> float:
    """Over the same split as the models: documents in order, the last tenth for validation."""
    whole = "".join(f.read_text(encoding="utf-8") for f in files)
    cut = int(len(whole) * 0.9)
    return xz_bits_per_character(whole[:cut], whole[cut:])


def _say(line: str) -> None:
    print(line, flush=True)
