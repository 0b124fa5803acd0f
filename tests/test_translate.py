"""Translation: the loss, what is written and how it is measured, training, files, and the command."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli, _environment
from helpers import Listener, assert_one_sentence
from sacrebleu.metrics import BLEU, CHRF

import unrolled
from unrolled.cells import Inputs
from unrolled.data.batches import Examples
from unrolled.data.tokenizers import CharTokenizer
from unrolled.data.vocabulary import BEGIN, END, SPECIALS, Vocabulary
from unrolled.errors import InputError
from unrolled.metrics import translation
from unrolled.tasks import fitting
from unrolled.tasks.options import TranslateOptions
from unrolled.tasks.translate import Languages, Network, TranslateTask, mean_loss, resolve
from unrolled.tasks.translator import Translator

TINY = {"tokens": "char", "hidden": 16, "embedding": 8, "batch": 8}
CPU = torch.device("cpu")


def make(characters: str = "abcdefgh", growth: float = 1.0, seed: int = 3, **options: object) -> Translator:
    """An untrained translator with decided opinions."""
    chosen = resolve(TranslateOptions(**{**TINY, "steps": 1, "dropout": 0.0, **options}))
    side = Vocabulary(CharTokenizer(characters))
    languages = Languages(side, side, growth)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(languages, chosen)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.5)
    return Translator(network, languages, chosen)


def words(count: int, seed: int = 0, letters: str = "abcdefgh", most: int = 9) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(letters, k=draw.randint(1, most))) for _ in range(count)]


def examples_of(model: Translator, sources: list[str], targets: list[str]) -> Examples:
    return Examples(model.languages.sources(sources), model.languages.targets(targets))


# The loss


@pytest.mark.parametrize("attention", ["none", "dot", "additive"])
def test_the_loss_is_the_smoothed_cross_entropy_of_real_positions(attention: str) -> None:
    """Against the definition, a pair and a token at a time: value and gradients, in float64."""
    model = make(attention=attention, label_smoothing=0.2)
    network = model.network.double().train()
    sources, targets = words(6), words(6, seed=1)
    batch = examples_of(model, sources, targets).batch(np.arange(6))
    loss, state = network(batch, None)
    assert state == ()
    found = torch.autograd.grad(loss, list(network.parameters()))

    total, count = torch.zeros((), dtype=torch.float64), 0
    for source, target in zip(sources, targets, strict=True):
        x = torch.from_numpy(model.languages.source.encode(source, end=True))[:, None]
        y = model.languages.target.encode(target, end=True).tolist()
        memory = network.topology.encode(Inputs(x, network.source_table))
        before, h = BEGIN, memory.start
        for token in y:
            scores, h, _ = network.topology.step(Inputs(torch.tensor([before]), network.table), h, memory)
            log_p = scores[0] - scores[0].exp().sum().log()
            total = total - 0.8 * log_p[token] - 0.2 * log_p.mean()
            count, before = count + 1, token
    expected = torch.autograd.grad(total / count, list(network.parameters()))
    assert loss.item() == pytest.approx(total.item() / count, rel=1e-9)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_mixed_lengths_are_what_they_are_alone() -> None:
    model = make()
    sources, targets = words(40, most=14), words(40, seed=1)
    together, count = mean_loss(model.network, examples_of(model, sources, targets), CPU)
    alone = [mean_loss(model.network, examples_of(model, [s], [t]), CPU) for s, t in zip(sources, targets, strict=True)]
    assert count == sum(n for _, n in alone) == sum(len(t) + 1 for t in targets)
    assert together == pytest.approx(sum(loss * n for loss, n in alone) / count, rel=1e-5)
    for beam in (1, 4):
        found = model.predict(sources, beam)
        for source, one in zip(sources, found, strict=True):
            (single,) = model.predict([source], beam)
            assert single.text == one.text
            assert single.score == pytest.approx(one.score, rel=1e-4)


# What is written


def test_beam_1_is_the_likeliest_token_after_the_other() -> None:
    model = make(growth=0.7)
    network, target = model.network, model.languages.target
    may = torch.from_numpy(target.writable)
    assert may.nonzero()[:, 0].tolist() == [END, *range(SPECIALS, SPECIALS + 8)]
    texts = words(12)
    for text, found in zip(texts, model.translate(texts, beam=1), strict=True):
        x = torch.from_numpy(model.languages.source.encode(text, end=True))[:, None]
        with torch.no_grad():
            memory = network.topology.encode(Inputs(x, network.source_table))
            state, token, written = memory.start, BEGIN, []
            while len(written) < int(np.ceil(0.7 * (len(x) + 10))):
                scores, state, _ = network.topology.step(Inputs(torch.tensor([token]), network.table), state, memory)
                token = int(scores[0].masked_fill(~may, -torch.inf).argmax())
                if token == END:
                    break
                written.append(token)
        assert found == target.decode(written)


def test_a_wider_beam_finds_likelier_texts_and_scores_are_true() -> None:
    """The log-probability of what is found is that of reading it back."""
    model = make(growth=0.6)
    texts = words(10)
    wide, narrow = model.predict(texts, 8), model.predict(texts, 1)
    assert sum(a.log_probability > b.log_probability + 1e-6 for a, b in zip(wide, narrow, strict=True)) > 0
    model.network.writable[:] = True  # then nothing is left out of the normalisation, as in the loss
    for text, found in zip(texts, model.predict(texts, 1), strict=True):
        if len(found.tokens) - 1 < int(np.ceil(0.6 * (len(text) + 11))) and BEGIN not in found.tokens:
            loss, count = mean_loss(model.network, examples_of(model, [text], [found.text]), CPU)
            if count == len(found.tokens):
                assert -loss * count == pytest.approx(found.log_probability, rel=1e-4)


def test_alignments_are_weights_over_source_tokens() -> None:
    model = make()
    found, empty = model.predict(["abcab", " "], 3, aligned=True)
    assert found.source_tokens == [*"abcab", "<end>"]
    assert "".join(found.tokens[:-1]) == found.text and found.tokens[-1] == "<end>"
    weights = np.array(found.alignment)
    assert weights.shape == (len(found.tokens), 6)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert (empty.text, empty.alignment) == ("", None)
    assert model.predict(["abc"], 3)[0].alignment is None


def test_empty_texts_and_texts_that_cannot_be() -> None:
    model = make()
    assert model.translate([]) == []
    assert model.translate(["", "  ", "\t"]) == ["", "", ""]
    mixed = model.translate(["ab", "", "cd"])
    assert mixed == [*model.translate(["ab"]), "", *model.translate(["cd"])]
    model.translate(["never seen: é한"])  # spelled in bytes
    for call, message in (
        (lambda: model.translate("abc"), "takes a list of texts"),
        (lambda: model.translate(["a"], beam=0), "--beam is 0"),
        (lambda: model.translate(["a" * 100_000]), r"100,001 tokens that begins with 'a{20}' is too long"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            call()
        assert_one_sentence(str(raised.value))


# Measuring


def successor_network(first: str) -> tuple[Translator, TranslateTask]:
    """A network made by hand, whose next token is the letter after the last one: after a comes b, and so on to t, then
    the end; after y comes z, then the end. `first` is what it begins with."""
    letters = "abcdefghijklmnopqrstyz"
    size = len(letters) + 32 + SPECIALS
    options = {"cell": "rnn", "attention": "none", "hidden": size + size % 2, "embedding": size + size % 2}
    model = make(letters, **options)
    network, number = model.network, {c: n + SPECIALS for n, c in enumerate(letters)}
    follows = {BEGIN: number[first], number["t"]: END, number["z"]: END, number["y"]: number["z"]}
    follows |= {number[a]: number[b] for a, b in zip(letters[:19], letters[1:20], strict=True)}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.table[:] = 8 * torch.eye(*network.table.shape)
        assert network.topology.combine is not None
        network.topology.combine.weight[:] = 8 * torch.eye(len(network.topology.combine.weight))
        into = dict(network.topology.decoder.named_parameters())["weight_ih_l0"]
        for before, after in follows.items():
            into[after, before] = 1
    targets = ["abcdefghijklmnopqrst"] * 5
    examples = examples_of(model, ["a"] * 5, targets)
    model.languages = Languages(model.languages.source, model.languages.target, 5.0)
    return model, TranslateTask(model.options, model.languages, {"val": examples}, targets, CPU)


def test_evaluation_is_of_what_the_network_writes_by_itself() -> None:
    """One wrong token at the beginning: with teacher forcing 20 of 21 are right, but what is written is wrong."""
    model, task = successor_network("y")
    scores, targets = model.network.eval().scores(task.splits["val"].batch(np.arange(5)))
    assert (scores.argmax(-1) == targets).double().mean().item() == pytest.approx(20 / 21)
    found = task.evaluate(model.network, "val").metrics
    assert model.translate(["a"], beam=1) == ["yz"]
    assert found["exact"] == 0 and found["chrf"] < 1 and found["bleu"] < 1
    assert found["val_loss"] < 0.5
    model, task = successor_network("a")
    found = task.evaluate(model.network, "val").metrics
    assert (found["exact"], found["chrf"], found["bleu"]) == pytest.approx((1, 100, 100))


def test_scores_are_those_of_sacrebleu() -> None:
    written = ["The cat sat on the mat.", "A dog runs through deep snow", "two men"]
    references = ["The cat sat on a mat.", "A dog is running through the deep snow.", "two men"]
    found, signature = translation.scores(written, references)
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(written, [references]).score)
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(written, [references]).score)
    assert found["exact"] == pytest.approx(1 / 3)
    assert "eff:no" in signature and "tok:13a" in signature and "version:" in signature


def test_bleu_of_targets_of_one_word_is_their_share() -> None:
    """Plain BLEU is 0 where no text has 4 tokens, so that no model would be better than another."""
    assert BLEU().corpus_score(["91", "659", "79"], [["91", "659", "97"]]).score == 0
    found, signature = translation.scores(["91", "659", "79"], ["91", "659", "97"])
    assert found["bleu"] == pytest.approx(200 / 3)
    assert "eff:yes" in signature


def test_without_sacrebleu_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(InputError, match=r"pip install 'unrolled\[text\]'") as raised:
        Translator.fit(pairs_file(tmp_path, 20), steps=1, **TINY)
    assert_one_sentence(str(raised.value))


# Training


def pairs_file(folder: Path, count: int, length: int = 4) -> Path:
    """Strings of letters and their reverse."""
    draw = random.Random(1)
    texts = ["".join(draw.choices("abcdef", k=length)) for _ in range(count)]
    path = folder / "reverse.tsv"
    path.write_text("".join(f"{t}\t{t[::-1]}\n" for t in texts))
    return path


def test_resume_gives_the_same_bits(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, 60)
    options = TranslateOptions(**TINY, steps=24, eval_every=5)
    whole = fitting.fit([path], options=options, out=tmp_path / "whole")
    fitting.fit([path], options=options, out=tmp_path / "parts", observer=Listener(stop_at=7))
    fitting.resume(tmp_path / "parts", observer=Listener(stop_at=16))
    parts = fitting.resume(tmp_path / "parts")
    assert parts.result.finished and parts.result.metrics == whole.result.metrics
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, parts.model.network.state_dict()[name]), name
    lines = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    scores = [[json.loads(line)["bleu"] for line in run if "bleu" in line] for run in lines]
    assert scores[0] == scores[1] and len(scores[0]) >= 5


@pytest.mark.parametrize("tokens", ["char", "byte", "word", "bpe"])
def test_a_model_file_keeps_all(tmp_path: Path, tokens: str) -> None:
    lines = [" ".join(words(5, seed=n, letters="aeilmnrst")) for n in range(24)]
    source, target = tmp_path / "a.src", tmp_path / "a.tgt"
    source.write_text("\n".join(lines) + "\n")
    target.write_text("\n".join(line.upper() for line in lines) + "\n")
    options = {"vocabulary": 280} if tokens in ("word", "bpe") else {}
    model = Translator.fit(source, target, val=(source, target), tokens=tokens, hidden=16, steps=4, batch=8, **options)
    model.save(tmp_path / "model.safetensors")
    again = unrolled.load(tmp_path / "model.safetensors")
    assert isinstance(again, unrolled.Translator)
    assert (again.options, again.metrics, again.step) == (model.options, model.metrics, model.step)
    texts = [*lines[:10], "été 한국", ""]
    assert [(t.text, t.score) for t in again.predict(texts)] == [(t.text, t.score) for t in model.predict(texts)]
    assert again.evaluate(source, target) == model.evaluate(source, target)
    assert again.evaluate(source, target, beam=1)["chrf"] == pytest.approx(model.metrics["chrf"])
    assert again.evaluate(source, target)["val_loss"] == pytest.approx(model.metrics["val_loss"], rel=1e-5)


def test_start_from_goes_on_with_the_model(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, 60)
    first = fitting.fit([path], options=TranslateOptions(**TINY, steps=40), out=tmp_path / "first")
    how = {"steps": 1, "lr": 1e-9}
    second = fitting.fit([path], options=TranslateOptions(**how), start_from=tmp_path / "first")
    assert second.model.options.hidden == 16
    assert second.result.metrics["val_loss"] == pytest.approx(first.result.metrics["val_loss"], rel=1e-3)
    with pytest.raises(InputError, match="--hidden 32 contradicts the model to start from, which has 16"):
        fitting.fit([path], options=TranslateOptions(hidden=32, **how), start_from=tmp_path / "first")


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"{'a' * 1200}\tb\n" + "".join(f"{t}\t{t}\n" for t in words(20)))
    listener = Listener()
    fitting.fit([path], val=[path], options=TranslateOptions(**TINY, steps=1), observer=listener)
    notes = [line["note"] for line in listener.lines if "note" in line]
    assert "left out 1 training pairs with a side of more than 1,000 tokens" in notes
    path.write_text(f"{'a' * 1200}\tb\n" * 3)
    with pytest.raises(InputError, match="every pair has a side of more than 1,000 tokens"):
        fitting.fit([path], val=[path], options=TranslateOptions(**TINY, steps=1))


def test_evaluate_counts_empty_lines_and_takes_a_split(tmp_path: Path) -> None:
    model = make()
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("abc\n\nfgh\n")
    target.write_text("cba\n\n\n")
    found = model.evaluate(source, target)
    assert found["pairs"] == 3
    assert 1 / 3 <= found["exact"] <= 2 / 3  # the empty line is translated by an empty one
    table = tmp_path / "t.tsv"
    table.write_text("source\ttarget\tsplit\nab\tba\ttrain\ncd\tdc\ttest\n")
    assert model.evaluate(table, split="test")["pairs"] == 1
    with pytest.raises(InputError, match="no pair of the split 'val'"):
        model.evaluate(table, split="val")
    target.write_text("cba\n")
    with pytest.raises(InputError, match="3 lines and .* has 1"):
        model.evaluate(source, target)


def test_limits_follow_the_training_pairs() -> None:
    side = Vocabulary(CharTokenizer("ab"))
    limits = Languages(side, side, 0.5).limits(torch.tensor([1, 10, 9_000]))
    assert limits.tolist() == [6, 10, 1000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 33}, "--hidden is 33: it must be even"),
        ({"attention": "much"}, "unknown attention 'much'"),
        ({"tokens": "char", "vocabulary": 300}, "--vocabulary has no meaning for --tokens char"),
        ({"vocabulary": 100}, "--vocabulary is 100"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"label_smoothing": -0.1}, "--label-smoothing is -0.1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TranslateOptions(**options)


# The command


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    make().save(path)
    return path


def test_predict_gives_a_line_for_a_line(quick_cli: Cli, saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    lines = [*words(30), "", "  ", *words(5, seed=2)]
    file.write_text("\n".join(lines) + "\n")
    done = quick_cli("predict", saved, file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == unrolled.load(saved).translate(lines)
    greedy = quick_cli("predict", saved, file, "--beam", 1)
    assert greedy.stdout.split("\n")[:-1] == unrolled.load(saved).translate(lines, beam=1)
    found = json.loads(quick_cli("predict", saved, "abc", "--json").stdout)["predictions"]
    assert found[0]["source"] == "abc" and len(found[0]["alignment"]) == len(found[0]["tokens"])


def test_commands_that_cannot_be(
    quick_cli: Cli, saved: Path, tmp_path: Path, make_model: Callable[..., unrolled.LanguageModel]
) -> None:
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("1\n")
    make_model().save(tmp_path / "language.safetensors")
    for arguments, message in (
        (("train", "translate", tmp_path / "a", tmp_path / "b"), "has 2 lines and"),
        (("train", "translate", tmp_path / "a"), "give the file of translations too"),
        (("evaluate", saved, tmp_path / "a", tmp_path / "b"), "has 2 lines and"),
        (("predict", saved, "abc", "--beam", 0), "--beam is 0"),
        (("predict", saved, "a" * 100_000), "too long to translate at once"),
        (("predict", tmp_path / "language.safetensors", "abc"), "see unrolled sample"),
        (("sample", saved), "is a model for translate, not for language-model"),
    ):
        done = quick_cli(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, arguments
        assert_one_sentence(done.stderr.strip())


@pytest.mark.slow
def test_standard_input_is_answered_line_by_line(saved: Path) -> None:
    model = unrolled.load(saved)
    with subprocess.Popen(
        [sys.executable, "-m", "unrolled", "predict", str(saved)],
        env=_environment(None),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin and process.stdout
        for text in ("abc", "", "hgf"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == model.translate([text])[0] + "\n"
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.slow
def test_the_command_learns_to_reverse(quick_cli: Cli, tmp_path: Path) -> None:
    pairs_file(tmp_path, 1500)
    done = quick_cli(
        *("train", "translate", "reverse.tsv", "--tokens", "char", "--hidden", 64, "--embedding", 32, "--steps", 400),
        *("--batch", 64, "--out", "run", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["topology"] == "sequence_to_sequence" and summary["exact"] > 0.95
    assert quick_cli("predict", "run", "fade", cwd=tmp_path).stdout == "edaf\n"
    (tmp_path / "new.src").write_text("abca\nfeed\nbead\n")
    (tmp_path / "new.tgt").write_text("acba\ndeef\ndaeb\n")
    measured = quick_cli("evaluate", "run", "new.src", "new.tgt", cwd=tmp_path).stdout
    assert "exact                1.0000" in measured and "eff:yes|tok:13a" in measured
