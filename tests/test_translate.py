"""Translation: the loss, what is written and how it is measured."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_one_sentence
from sacrebleu.metrics import BLEU, CHRF
from translate_helpers import TINY, examples_of, make, pairs_file, words

from unrolled.cells import Inputs
from unrolled.data.vocabulary import BEGIN, END, SPECIALS
from unrolled.errors import InputError
from unrolled.metrics import translation
from unrolled.tasks.translate import Languages, TranslateTask
from unrolled.tasks.translator import Translator
from unrolled.tasks.writing import mean_loss

CPU = torch.device("cpu")

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
    """The log-probability of a text is that of its tokens, read back with teacher forcing."""
    model = make(growth=0.6)
    texts = words(10)
    wide, narrow = model.predict(texts, 8), model.predict(texts, 1)
    assert sum(a.log_probability > b.log_probability + 1e-6 for a, b in zip(wide, narrow, strict=True)) > 0
    for text, found in (*zip(texts, wide, strict=True), *zip(texts, narrow, strict=True)):
        with torch.no_grad():
            scores, tokens = model.network.scores(examples_of(model, [text], [found.text]).batch(np.arange(1)))
        log_p = scores.masked_fill(~model.network.writable, -torch.inf).log_softmax(-1)
        assert len(tokens) == len(found.tokens)
        expected = log_p.gather(1, tokens[:, None]).sum().item()
        assert found.log_probability == pytest.approx(expected, rel=1e-4)
    for found in wide:
        assert found.score == pytest.approx(found.log_probability / ((5 + len(found.tokens)) / 6))


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


def test_bleu_of_short_targets_counts_the_n_grams_that_there_are() -> None:
    """Plain BLEU is 0 where no text has 4 tokens, so that no model would be better than another."""
    targets = ["red ball", "a dog", "two men"]
    assert BLEU().corpus_score(targets, [targets]).score == 0
    found, signature = translation.scores(["red ball", "a dog", "two cows"], targets)
    assert found["bleu"] == pytest.approx(100 * (5 / 6 * 2 / 3) ** 0.5)
    assert "eff:yes" in signature and "tok:13a" in signature


def test_what_was_written_never_decides_how_bleu_is_measured() -> None:
    references = ["one two three four five", "six seven eight nine"]
    signatures = {translation.scores(w, references)[1] for w in (["one", "six"], references, ["", ""], ["ก", "ข"])}
    assert len(signatures) == 1 and "eff:no|tok:13a" in signatures.pop()
    assert translation.scores(["one", "six"], references)[0]["bleu"] == 0


@pytest.mark.parametrize("target", ["สุนัขวิ่งเล่นในสวน", "一只狗在公园里跑", "犬が公園で走っている", "2026-11-28"])
def test_bleu_of_texts_without_spaces_counts_characters(target: str) -> None:
    """By words, one wrong character made a whole text wrong."""
    found, signature = translation.scores([target[:-1] + "x"], [target])
    assert "tok:char" in signature and 60 < found["bleu"] < 100
    assert found["bleu"] == pytest.approx(BLEU(tokenize="char").corpus_score([target[:-1] + "x"], [[target]]).score)
    mixed, signature = translation.scores([target], ["a long sentence of many words, as most of these are"])
    assert "tok:13a" in signature and mixed["bleu"] == 0


def test_without_sacrebleu_one_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(InputError, match=r"pip install 'unrolled\[text\]'") as raised:
        Translator.fit(pairs_file(tmp_path, 20), steps=1, **TINY)
    assert_one_sentence(str(raised.value))
