"""The command line. No torch is imported before a command that needs it runs."""

import io
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

import unrolled
from unrolled.app.process import tune
from unrolled.errors import InputError, UnrolledError
from unrolled.tasks.options import LanguageModelOptions

if TYPE_CHECKING:
    from unrolled.tasks.fitting import Fitted

STARTED = time.monotonic()
"""When the command started: `--seconds` counts from here, the import of torch included."""

app = App(
    name="unrolled",
    help="Recurrent sequence models: from a text file to a model that writes.",
    version=unrolled.__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
)
train = App(name="train", help="Train a model.")
app.command(train)
app.command("unrolled.app.explain:explain", name="explain", help="Every number of a tiny network that learns a word.")
app.command("unrolled.app.bench.command:bench", name="bench", help="Measure it beside PyTorch and ONNX Runtime.")
app.command("unrolled.app.graph:graph", name="graph", help="Draw a model or topology, unrolled.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a training goes.

    Attributes
    ----------
    out
        Folder of the run. Default: the first of runs/TASK-1, runs/TASK-2, … that is free.
    overwrite
        Replace an existing run folder.
    start_from
        Model to start from: its weights, architecture and vocabulary.
    val
        Text to validate on, instead of the end of the training text.
    json
        Print one JSON object on standard output at the end.
    """

    out: Path | None = None
    overwrite: bool = False
    start_from: Path | None = None
    val: Path | None = None
    json: bool = False


JsonFlag = Annotated[bool, Parameter(help="Print one JSON object on standard output.")]
DeviceFlag = Annotated[str | None, Parameter(help="cpu, cuda, … Default: cuda where there is one.")]
ModelArgument = Annotated[Path, Parameter(help="A model file or a run folder.")]


@train.command(name="language-model")
def train_language_model(
    *files: Path,
    options: Annotated[LanguageModelOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a language model on text files or folders of them.

    Parameters
    ----------
    files
        Text in UTF-8; each file is a document, a folder gives the text files in it.
    """
    from unrolled.tasks.fitting import fit_language_model
    from unrolled.training.run import Run

    options, output = options or LanguageModelOptions(), output or Output()
    out = output.out or Run.next_free(Path("runs"), "language-model")
    return _training(
        lambda **how: fit_language_model(
            files,
            options=options,
            val=output.val,
            start_from=output.start_from,
            out=out,
            overwrite=output.overwrite,
            **how,
        ),
        out,
        output.json,
    )


@app.command
def resume(run: Path, *, json: JsonFlag = False) -> int:
    """Go on with a stopped training: bit for bit the same result under --steps.

    Parameters
    ----------
    run
        The run folder.
    """
    from unrolled.tasks.fitting import resume_language_model

    return _training(lambda **how: resume_language_model(run, **how), run, json)


@app.command
def sample(
    model: ModelArgument,
    *,
    prompt: str = "",
    length: int = 500,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: str | None = None,
    seed: int | None = None,
    samples: int = 1,
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Let a language model write.

    Parameters
    ----------
    prompt
        Text to continue.
    length
        Characters to write.
    temperature
        Scores are divided by it: below 1 safer, above 1 bolder, 0 always the likeliest character.
    top_k
        Choose among the k likeliest only; 0 for all.
    top_p
        Choose among the likeliest that together reach this probability.
    min_p
        Choose among those at least this times as likely as the likeliest.
    stop
        End before this text appears.
    seed
        The same seed gives the same text. Default: a new one each time, printed with --json.
    samples
        How many texts; number i is the one of seed + i.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    _say_what_takes_long()
    loaded = load(model, pick_device(device), task="language-model")
    seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    if samples == 1 and not json:
        pieces = loaded.stream(prompt, length, seed=seed, stop=stop, **how)
        sys.stdout.write(prompt)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()
        return 0
    texts = loaded.sample_many(samples, prompt, length, seed=seed, stop=stop, **how)
    if json:
        _print_json({"model": str(model), "prompt": prompt, "seed": seed, "texts": texts})
    else:
        for number, text in enumerate(texts):
            print(f"--- seed {seed + number}\n{text}")
    return 0


@app.command
def evaluate(
    model: ModelArgument, *data: Path, split: str | None = None, device: DeviceFlag = None, json: JsonFlag = False
) -> int:
    """Measure a model on data.

    Parameters
    ----------
    data
        Text files or folders.
    split
        train or val: the part of the text that a training would use so. Default: all of it.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    _say_what_takes_long()
    metrics = load(model, pick_device(device)).evaluate(*data, split=split)
    if json:
        _print_json({"model": str(model), "data": [str(d) for d in data], "split": split, **metrics})
    else:
        for name, value in metrics.items():
            print(f"{name:20} {value:.4f}")
    return 0


@app.command
def demo(*, seconds: float = 60.0, out: Path = Path("runs/demo"), overwrite: bool = False) -> int:
    """About a minute: train on the Python source on this machine, sample, keep the model.

    Parameters
    ----------
    seconds
        Length of the whole demonstration.
    out
        Folder of the run. The default is replaced, if it is a run; another is not, unless --overwrite is given.
    """
    from unrolled.app.demo import run_demo
    from unrolled.app.signals import Signals
    from unrolled.training.schedule import Clock

    _say_what_takes_long()
    with Signals() as signals:
        run_demo(seconds, out, overwrite or out == Path("runs/demo"), Clock(started=STARTED), signals.stop)
    return signals.exit_code


@app.command
def doctor(*, json: JsonFlag = False) -> int:
    """Say what this machine offers: versions, cores, engines, speed."""
    from unrolled.app.doctor import examine, lines

    _say_what_takes_long()
    findings = examine()
    if json:
        _print_json(findings)
    else:
        print("\n".join(lines(findings)))
    return 0


def _say_what_takes_long() -> None:
    """Compiling the kernels, at first use, is announced on standard error."""
    from unrolled.engines.native import build

    build.building_note = lambda note: print(note, file=sys.stderr, flush=True)


def _training(start: Any, out: Path, as_json: bool) -> int:
    """Run a training with signals, progress and a summary; `start` takes clock and observer."""
    from unrolled.app.progress import display
    from unrolled.app.signals import Signals
    from unrolled.training.schedule import Clock

    _say_what_takes_long()
    with Signals() as signals, display(sys.stderr, signals.stop) as observer:
        fitted: Fitted = start(clock=Clock(started=STARTED), observer=observer)
    summary = _summary(fitted, out)
    if as_json:
        _print_json(summary)
    if not fitted.result.finished:
        print(
            f"stopped at step {fitted.result.steps:,}, nothing is lost. Go on with:\n  unrolled resume {out}",
            file=sys.stderr,
        )
    elif not as_json:
        shown = ("val_loss", "bits_per_character", "perplexity", "unknown", "seconds", "model")
        for name in filter(summary.__contains__, shown):
            value = summary[name]
            print(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")
        print(f'next:\n  unrolled sample {out} --prompt "…" --length 500 --temperature 0.8')
    return signals.exit_code if not fitted.result.finished else 0


def _summary(fitted: "Fitted", out: Path) -> dict[str, Any]:
    result, options = fitted.result, fitted.model.options
    return {
        "task": "language-model",
        "topology": options.topology,
        "cell": options.cell,
        "engine": fitted.engine,
        "parameters": sum(p.numel() for p in fitted.model.network.parameters()),
        "seconds": result.seconds,
        "steps": result.steps,
        "best_step": result.best_step,
        "tokens_per_second": result.tokens_per_second,
        "train_loss": result.train_loss,
        **(result.metrics or {"val_loss": None, "bits_per_character": None}),
        "validated_tokens": result.validated,
        "finished": result.finished,
        "model": str(out / "model.safetensors"),
    }


def _print_json(values: dict[str, Any]) -> None:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    print(json.dumps(clean, ensure_ascii=False))


def main() -> None:
    """The `unrolled` command: exits with 0; 1 failure; 2 unusable input; 3 non-finite loss; 130, 143 signals."""
    tune()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that is not UTF-8 gets escapes, not a crash
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        sys.exit(code)
    except CycloptsError as error:
        if debug:
            raise
        _fail(_usage(error), 2)
    except UnrolledError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", 1)
    except Exception as error:  # noqa: BLE001 (the last resort: a sentence instead of a traceback)
        if debug:
            raise
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        _fail(f"{type(error).__name__}: {reason} (run it again with --debug for the whole story)", 1)


def _usage(error: CycloptsError) -> str:
    """The cause in one line; a cause of ours, raised inside an options class, in its own words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split()) + " See unrolled --help."


def _fail(message: str, code: int) -> None:
    print(f"unrolled: {message}", file=sys.stderr)
    sys.exit(code)
