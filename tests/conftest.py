"""What several test files share: real data, a small text, an untrained model, the command line."""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import unrolled
from unrolled.data.tokenizers import from_json
from unrolled.tasks.language_model import Network, resolve
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions

ROOT = Path(__file__).resolve().parents[1]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]

# the same examples on every machine and in every run, and nothing written into the checkout
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir()) / "unrolled-hypothesis"))
settings.register_profile("unrolled", derandomize=True, database=None, deadline=None, max_examples=150)
settings.load_profile("unrolled")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; without it tests skip, in CI they fail."""
    named = os.environ.get("UNROLLED_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    reason = f"no real data at {folder}: set UNROLLED_TEST_DATA to its folder"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 6,000 characters of sentences, numbers, quotes and a few letters outside ASCII; always the same."""
    draw = random.Random(7)
    syllables = "an be cor dé el fi gra hu il jo ka lun mo né or pa qui ra sto tu va we xi yl zo"
    words = ["".join(draw.choices(syllables.split(), k=draw.randint(1, 3))) for _ in range(120)]
    lines, size = [], 0
    while size < 6_000:
        sentence = [draw.choice(words) for _ in range(draw.randint(2, 9))]
        if draw.random() < 0.2:
            sentence.insert(1, str(draw.randint(0, 1999)))
        line = " ".join(sentence).capitalize() + draw.choice([".", ".", "?", "!", '" said Ana.', ";"])
        lines.append(line + draw.choice(["\n", "\n", "\n\n", "\t"]))
        size += len(lines[-1])
    path = tmp_path_factory.mktemp("tiny") / "tiny.txt"
    path.write_text("".join(lines)[:6_000], encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="session")
def make_model() -> Callable[..., LanguageModel]:
    """Builds an untrained model with decided opinions: make_model(characters, **options); None for bytes."""

    def make(characters: str | None = "abcdefgh \n", seed: int = 1, **options: object) -> LanguageModel:
        kind = "byte" if characters is None else "char"
        chosen = resolve(LanguageModelOptions(**{"hidden": 8, "tokens": kind, "steps": 1, **options}))
        tokenizer = from_json({"kind": kind, "characters": characters})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = Network(tokenizer.size, chosen)
            with torch.no_grad():
                for parameter in network.topology.parameters():
                    parameter.mul_(3)
        return LanguageModel(network, tokenizer, chosen, {"val_loss": 1.5, "bits_per_character": 2.25}, step=3)

    return make


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    """The package that the tests import is the one that runs, installed or not."""
    paths = [str(Path(unrolled.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(more or {})}


@pytest.fixture(scope="session")
def unrolled_cli() -> Cli:
    """unrolled_cli(*arguments, cwd=None, env=None): the command in a process of its own, its output as text."""

    def run(
        *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "unrolled", *map(str, arguments)],
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=120,
        )

    return run


# Importing torch takes seconds. A process that has done so forks one for each command.
SERVER = """
import json, os, signal, sys
from unrolled.app import cli
import unrolled.tasks.fitting
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(60)
    os.chdir(request["cwd"])
    for number in (0, 1, 2):
        os.dup2(os.open(request[str(number)], (os.O_WRONLY | os.O_CREAT) if number else os.O_RDONLY), number)
    sys.stdin = open(0, closefd=False)
    sys.argv = ["unrolled", *request["arguments"]]
    code = 1
    try:
        cli.main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    os._exit(code)
"""


@pytest.fixture(scope="session")
def quick_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """As `unrolled_cli` without `env`: a process for each command too, but torch is imported only once."""
    output = tmp_path_factory.mktemp("cli")
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env=_environment(None),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as server:

        def run(*arguments: object, cwd: Path = output, stdin: str = "") -> "subprocess.CompletedProcess[str]":
            assert server.stdin and server.stdout
            out, err, given = output / "stdout", output / "stderr", output / "stdin"
            given.write_text(stdin, encoding="utf-8")
            out.unlink(missing_ok=True)
            err.unlink(missing_ok=True)
            words = list(map(str, arguments))
            request = {"arguments": words, "cwd": str(cwd), "0": str(given), "1": str(out), "2": str(err)}
            print(json.dumps(request), file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            texts = [path.read_text("utf-8", errors="backslashreplace") for path in (out, err)]
            return subprocess.CompletedProcess(words, code, *texts)

        yield run
        assert server.stdin
        server.stdin.close()
