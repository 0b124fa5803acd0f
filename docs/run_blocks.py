"""Runs the code blocks of Markdown pages. The tests and the site's build both run them through this file.

    python docs/run_blocks.py README.md docs/lecture/*.md     # shows each block and what it printed
    python docs/run_blocks.py --set-up README.md              # shows the set-up commands, which `.ci/run` runs

- `sh` and `python` blocks run, in order, in one temporary folder a page. Each `sh` block is a `bash -euo pipefail` of
  its own, so files persist and variables do not; the `python` blocks of a page share one process and its names.
  `text` and `json` are for reading.
- The folder holds what a reader has: `input.txt`, `other.txt` and `new.txt`, real text, and tables of
  lines of it: `reviews.tsv` and `test.tsv` with labels, `pairs.tsv` and `test-pairs.tsv` with translations.
- `unrolled` and `python` are those of this checkout.
- Trainings are shortened (`Limits`): `--seconds N` and `seconds=N` become at most 4, in the tests `--steps 3`;
  `--steps N` and `steps=N` at most 300, in the tests 40; of moving digits at most 60 clips are made to train on, 12 to
  validate on and 6 to test on.
- A block that begins with `python3 -m venv` sets things up and is run by `.ci/run`.
- `<!-- not run: REASON -->` in the line before a block keeps it from running; tests/test_docs.py lists the reasons.
"""

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
RUN, READ = ("sh", "python"), ("text", "json", "")
"""Languages of blocks that run, and of those that are only read."""
SET_UP = "python3 -m venv"
BLOCK_SECONDS = 300
"""A block that takes longer is killed: it hangs."""
HANGING = 124
"""Its exit code, as that of `timeout`."""
PICTURES = (".png", ".svg")
TIMED_COMMAND = re.compile(r"(unrolled train (?:[^\n\\|&;]|\\\n)*?)--seconds[ =]+[\d.]+")
TIMED_FIT = re.compile(r"(\.fit\([^()]*?\b)seconds=[\d._]+")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
NOT_RUN = re.compile(r"^\s*<!-- not run: (?P<reason>.+) -->\s*$")


class DocumentationError(Exception):
    """A block that cannot be read or that fails; the message says where."""


@dataclass(frozen=True)
class Limits:
    """What trainings in documentation are shortened to."""

    seconds: int = 4
    steps: int = 300
    train: int = 60
    val: int = 12
    test: int = 6
    updates: int | None = None
    """What timed trainings become instead: the tests must not depend on how fast the machine starts Python."""

    def shorten(self, code: str) -> str:
        """The code with every length of a training at most the limit.

        >>> Limits().shorten("unrolled train language-model a.txt --seconds 300 --steps 2")
        'unrolled train language-model a.txt --seconds 4 --steps 2'
        >>> Limits().shorten('fit("a.txt", seconds=60.5, steps=1_000)')
        'fit("a.txt", seconds=4, steps=300)'
        >>> Limits().shorten("unrolled moving-digits digits --train 1200 --val 200 --test 200")
        'unrolled moving-digits digits --train 60 --val 12 --test 6'
        >>> Limits(updates=3).shorten("unrolled train language-model a.txt --seconds 300 && unrolled demo --seconds 60")
        'unrolled train language-model a.txt --steps 3 && unrolled demo --seconds 4'
        """

        if self.updates is not None:
            code = TIMED_COMMAND.sub(rf"\g<1>--steps {self.updates}", code)
            code = TIMED_FIT.sub(rf"\g<1>steps={self.updates}", code)
        limits = {name: limit for name, limit in asdict(self).items() if name != "updates"}
        for unit, limit in limits.items():
            pattern = rf"(--{unit}[ =]+|(?<![\w-]){unit}=)(\d[\d_]*(?:\.\d+)?)"
            code = re.sub(pattern, lambda m, most=limit: m[1] + (m[2] if float(m[2]) <= most else str(most)), code)
        return code


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    first: int
    """Line of the opening fence, from 1"""
    last: int
    """Line of the closing fence"""
    indent: str = ""
    reason: str | None = None
    """Why it is not run"""

    @property
    def sets_up(self) -> bool:
        return self.language == "sh" and self.code.startswith(SET_UP)

    @property
    def runs(self) -> bool:
        return self.language in RUN and not self.sets_up and self.reason is None


@dataclass
class Outcome:
    """What a block did."""

    code: str
    """As it ran, shortened"""
    output: str
    """Standard output and error as they came"""
    exit_code: int
    pictures: dict[str, str] = field(default_factory=dict)
    """Pictures that it wrote, by their path in the page's folder, in base64"""


def blocks(text: str, page: str = "page") -> list[Block]:
    """The fenced blocks of a page. Raises `DocumentationError` for an unclosed one or an unknown language."""
    found: list[Block] = []
    lines = text.splitlines()
    number, reason = 0, None
    while number < len(lines):
        fence = FENCE.match(lines[number])
        if not fence:
            if lines[number].strip():
                mark = NOT_RUN.match(lines[number])
                reason = mark["reason"] if mark else None
            number += 1
            continue
        first, indent, language = number, fence["indent"], (fence["info"].split() or [""])[0]
        if language not in RUN + READ:
            known = ", ".join(filter(None, RUN + READ))
            raise DocumentationError(f"{page}:{first + 1}: a block of language {language!r}: name one of {known}")
        closing = re.compile(rf"^ *{fence['fence'][0]}{{{len(fence['fence'])},}} *$")
        number += 1
        while number < len(lines) and not closing.match(lines[number]):
            number += 1
        if number == len(lines):
            raise DocumentationError(f"{page}:{first + 1}: this block is never closed")
        code = "\n".join(line.removeprefix(indent) for line in lines[first + 1 : number])
        found.append(Block(language, code, first + 1, number + 1, indent, reason))
        number, reason = number + 1, None
    return found


def texts() -> dict[str, str]:
    """The files that a reader has: tiny Shakespeare where it is at hand, else modules of Python's standard library."""
    named = os.environ.get("UNROLLED_TEST_DATA")
    shakespeare = (Path(named) if named else ROOT.parent / "shared" / "data") / "tiny_shakespeare" / "input.txt"
    if shakespeare.is_file():
        whole = shakespeare.read_text(encoding="utf-8")
    else:
        modules = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-h]*.py"))
        whole = "".join(module.read_text(encoding="utf-8") for module in modules)
    return {
        "input.txt": whole[:400_000],
        "other.txt": whole[400_000:450_000],
        "new.txt": whole[450_000:600_000],
        "reviews.tsv": table(whole[:100_000]),
        "test.tsv": table(whole[100_000:200_000]),
        "pairs.tsv": pairs(whole[:100_000]),
        "test-pairs.tsv": pairs(whole[100_000:110_000]),
    }


def pairs(text: str) -> str:
    """A table of lines and the same lines in capitals."""
    lines = [line.replace("\t", " ").strip() for line in text.splitlines()]
    return "source\ttarget\n" + "".join(f"{line}\t{line.upper()}\n" for line in lines if line)


def table(text: str) -> str:
    """A table of texts and labels: lines that ask, and lines that do not."""
    lines = [line.replace("\t", " ").strip() for line in text.splitlines()]
    rows = [f"{line}\t{'asks' if '?' in line else 'says'}" for line in lines if line]
    return "text\tlabel\n" + "\n".join(rows) + "\n"


WORKER = """
import json, os, sys, traceback
names = {"__name__": "__main__"}
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    request = json.loads(line)
    output = os.open(request["output"], os.O_WRONLY)
    os.dup2(output, 1), os.dup2(output, 2), os.close(output)
    code = 0
    try:
        exec(compile(request["code"], request["name"], "exec"), names)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(code, file=answers, flush=True)
"""


class Folder:
    """A page's temporary folder, and the processes that run its blocks there."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._temporary = tempfile.TemporaryDirectory(prefix="unrolled-docs-")
        top = Path(self._temporary.name).resolve()
        self.path, programs, self._output = top / "page", top / "bin", top / "output"
        self.path.mkdir()
        programs.mkdir()
        for name, text in texts().items():
            (self.path / name).write_text(text, encoding="utf-8")
        for name, what in (("unrolled", " -m unrolled"), ("python", ""), ("python3", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{what} "$@"\n')
            (programs / name).chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONSAFEPATH": "1",  # the page's folder is for data
        }
        self._worker: subprocess.Popen[str] | None = None
        self._seen: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._worker:
            assert self._worker.stdin and self._worker.stdout
            self._worker.stdin.close()
            try:
                self._worker.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
            self._worker.stdout.close()
        self._temporary.cleanup()

    def run(self, block: Block, name: str) -> Outcome:
        """Run a block; `name` is where it stands, for tracebacks."""
        code = self.limits.shorten(block.code)
        self._output.write_bytes(b"")
        exit_code = self._shell(code) if block.language == "sh" else self._python(code, name)
        output = self._output.read_text(encoding="utf-8", errors="backslashreplace")
        return Outcome(code, output, exit_code, self._new_pictures())

    def _shell(self, code: str) -> int:
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", code],
                cwd=self.path,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(timeout=BLOCK_SECONDS)
            except BaseException as error:  # a block that hangs, or Ctrl-C: nothing that it started is left
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                output.write(f"\n(killed after {BLOCK_SECONDS} s)\n".encode())
                return HANGING

    def _python(self, code: str, name: str) -> int:
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, "-u", "-c", WORKER],
                cwd=self.path,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
        assert self._worker.stdin and self._worker.stdout
        request = {"code": code, "name": name, "output": str(self._output)}
        hanging = threading.Timer(BLOCK_SECONDS, self._worker.kill)
        hanging.start()
        print(json.dumps(request), file=self._worker.stdin, flush=True)
        answer = self._worker.stdout.readline()
        hanging.cancel()
        return int(answer) if answer else 1

    def _new_pictures(self) -> dict[str, str]:
        """Those written since the last block."""
        pictures = {}
        for path in sorted(self.path.rglob("*")):
            if path.suffix in PICTURES and self._seen.get(path) != (changed := path.stat().st_mtime_ns):
                self._seen[path] = changed
                pictures[str(path.relative_to(self.path))] = base64.b64encode(path.read_bytes()).decode()
        return pictures


def run_page(text: str, page: str, limits: Limits | None = None, cache: Path | None = None) -> dict[Block, Outcome]:
    """Run the blocks of a page. Raises `DocumentationError` at the first that fails.

    cache: folder that keeps outcomes, for as long as the page, this checkout's code and the limits stay as they are.
    """
    limits = limits or Limits()
    to_run = [block for block in blocks(text, page) if block.runs]
    kept = cache / f"{_key(to_run, limits)}.json" if cache and to_run else None
    if kept and kept.is_file():
        return dict(zip(to_run, (Outcome(**o) for o in json.loads(kept.read_text("utf-8"))), strict=True))
    outcomes: dict[Block, Outcome] = {}
    with Folder(limits) as folder:
        for block in to_run:
            place = f"{page}:{block.first}"
            outcomes[block] = outcome = folder.run(block, place)
            if outcome.exit_code:
                raise DocumentationError(
                    f"{place}: the block ended with exit code {outcome.exit_code}\n\n{outcome.code}\n\n{outcome.output}"
                )
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([asdict(o) for o in outcomes.values()]), encoding="utf-8")
    return outcomes


def _key(to_run: list[Block], limits: Limits) -> str:
    """Changes with whatever a block's outcome depends on."""
    digest = hashlib.sha256(json.dumps([asdict(limits), texts(), [(b.language, b.code) for b in to_run]]).encode())
    for path in sorted((ROOT / "unrolled").rglob("*")):
        if path.suffix in (".py", ".cpp", ".h"):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def main(arguments: list[str]) -> None:
    """The pages named, each block with what it printed; or their set-up commands."""
    set_up = arguments[:1] == ["--set-up"]
    for page in arguments[set_up:]:
        text = Path(page).read_text(encoding="utf-8")
        if set_up:
            print("\n".join(block.code for block in blocks(text, page) if block.sets_up))
            continue
        for block, outcome in run_page(text, page).items():
            print(f"--- {page}:{block.first} {block.language}\n{outcome.code}\n--- printed\n{outcome.output}")
            print("".join(f"--- drew {picture}\n" for picture in outcome.pictures), end="")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DocumentationError as error:
        sys.exit(str(error))
