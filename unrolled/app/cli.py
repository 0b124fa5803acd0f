"""The command line. No torch is imported before a command that needs it runs."""

import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

import unrolled
from unrolled.app.given import looks_like_a_file, say
from unrolled.app.output import DeviceFlag, JsonFlag, ModelArgument, print_json, say_what_takes_long
from unrolled.app.process import tune
from unrolled.app.signals import Interrupted, end_at_once
from unrolled.errors import InputError, UnrolledError

app = App(
    name="unrolled",
    help="Recurrent sequence models: from a text file to a model that writes.",
    version=unrolled.__version__,
    version_flags=["--version"],
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # else every signal would end with 130
)
app.command("unrolled.app.train:train", name="train", help="Train a model.")
app.command(
    "unrolled.app.train:resume", name="resume", help="Go on with a stopped training: the same bits under --steps."
)
app.command("unrolled.app.predict:predict", name="predict", help="Label or translate texts.")
app.command("unrolled.app.evaluate:evaluate", name="evaluate", help="Measure a model on data.")
app.command("unrolled.app.report:report", name="report", help="Pictures with their captions, on a sheet or a page.")
app.command("unrolled.app.explain:explain", name="explain", help="Every number of a tiny network that learns a word.")
app.command("unrolled.app.bench.command:bench", name="bench", help="Measure it beside PyTorch and ONNX Runtime.")
app.command("unrolled.app.digits:moving_digits", name="moving-digits", help="Write clips of moving digits to train on.")
app.command("unrolled.app.graph:graph", name="graph", help="Draw a model or topology, unrolled.")


@app.command
def sample(
    model: ModelArgument,
    *,
    prompt: Annotated[str, Parameter(allow_leading_hyphen=True)] = "",
    length: int = 500,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    seed: int | None = None,
    samples: int = 1,
    beam: int | None = None,
    no_repeat_ngram: int | None = None,
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Let a language model write.

    Parameters
    ----------
    prompt
        Text to continue; it may begin with a dash.
    length
        Characters to write.
    temperature
        Scores are divided by it: below 1 safer, above 1 bolder, 0 always the likeliest character.
        Default: 1.
    top_k
        Choose among the k likeliest only; 0 for all. Default: 0.
    top_p
        Choose among the likeliest that together reach this probability. Default: 1.
    min_p
        Choose among those at least this times as likely as the likeliest. Default: 0.
    stop
        End before this text appears.
    seed
        The same seed gives the same text. Default: a new one each time, printed with --json.
    samples
        How many texts; number i is the one of seed + i, with --beam the i-th likeliest.
    beam
        Draw nothing, but search for the likeliest text with so many hypotheses.
    no_repeat_ngram
        With --beam: no so many tokens in a row come twice; 0 allows it. Default: 0.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    _check_prompt(prompt)
    say_what_takes_long()
    loaded = load(model, pick_device(device), task="language-model")
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    how = {name: value for name, value in how.items() if value is not None}
    if beam is None and no_repeat_ngram is not None:
        raise InputError("--no-repeat-ngram is for --beam: give one, such as --beam 5")
    if beam is not None:
        if how or stop is not None or seed is not None:
            raise InputError(
                "--beam searches and draws nothing: leave out --temperature, --top-k, --top-p, --min-p, --stop, --seed"
            )
        return _search(loaded, model, prompt, length, (beam, samples, no_repeat_ngram or 0), json)
    seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
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
        print_json({"model": str(model), "prompt": prompt, "seed": seed, "texts": texts})
    else:
        for number, text in enumerate(texts):
            print(f"--- seed {seed + number}\n{text}")
    return 0


def _check_prompt(prompt: str) -> None:
    """Says where it was meant for something else: an option, or a file."""
    if re.fullmatch(r"--[a-z][a-z-]*", prompt):
        raise InputError(f"--prompt {prompt}: give it a text; to continue {prompt} itself, put a space before it")
    if looks_like_a_file(prompt) and Path(prompt).is_file():
        say([f'the prompt is the text {prompt!r}, not what is in that file: for that, --prompt "$(cat {prompt})"'])


def _search(loaded: Any, model: Path, prompt: str, length: int, how: tuple[int, int, int], as_json: bool) -> int:
    """The likeliest texts. how: hypotheses, texts, and the length of what does not come twice."""
    beam, count, no_repeat_ngram = how
    if not 1 <= count <= beam:
        raise InputError(f"--beam is {beam} and --samples {count}: it finds at least 1 text, and as many as it is wide")
    texts = loaded.likeliest(prompt, length, beam=beam, count=count, no_repeat_ngram=no_repeat_ngram)
    if as_json:
        print_json({"model": str(model), "prompt": prompt, "beam": beam, "texts": texts})
    else:
        print(*(texts if count == 1 else (f"--- number {n}\n{text}" for n, text in enumerate(texts, 1))), sep="\n")
    return 0


@app.command
def demo(*, seconds: float = 60.0, out: Path | None = None, overwrite: bool = False) -> int:
    """About a minute: train on the Python source on this machine, sample, keep the model.

    Parameters
    ----------
    seconds
        Length of the whole demonstration.
    out
        Folder of the run. Default: runs/demo, where an earlier run is replaced; one that is named is not, unless
        --overwrite is given.
    """
    from unrolled.app.demo import run_demo
    from unrolled.app.signals import Signals
    from unrolled.engines.native import build
    from unrolled.training.schedule import Clock

    say_what_takes_long()
    build.unavailable()  # compiles the kernels where they are not there yet: that is not part of the minute
    with Signals() as signals:
        run_demo(seconds, out or Path("runs/demo"), overwrite or out is None, Clock(), signals.stop)
    return signals.exit_code


@app.command
def doctor(*, json: JsonFlag = False) -> int:
    """Say what this machine offers: versions, cores, engines, speed."""
    from unrolled.app.doctor import examine, lines

    say_what_takes_long()
    findings = examine()
    if json:
        print_json(findings)
    else:
        print("\n".join(lines(findings)))
    return 0


def main() -> None:
    """The `unrolled` command: exits with 0; 1 failure; 2 unusable input; 3 non-finite loss; 130, 143 signals."""
    signal.signal(signal.SIGTERM, end_at_once)
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
    except Interrupted as error:
        _fail(f"ended by {error}", error.exit_code)
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
