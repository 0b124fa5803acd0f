"""What is chosen where the options leave it open, and the parts it is made of."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import Listener

from unrolled.cells import CELLS, Inputs
from unrolled.nn import Recurrent
from unrolled.nn.dropout import dropout
from unrolled.tasks import recipe
from unrolled.tasks.fitting import fit_language_model
from unrolled.tasks.options import LanguageModelOptions
from unrolled.tasks.recipe import Budget

MINUTE = Budget(seconds=55, flops=180e9, tokens=1_000_000, vocabulary=97)


def test_parameters_grow_with_the_square_root_of_the_operations() -> None:
    for operations in (1e12, 8e12, 40e12):
        few, many = (recipe.width(n) for n in (operations, 16 * operations))
        assert many == pytest.approx(2 * few, abs=32)
    assert recipe.width(6e12, layers=2) < recipe.width(6e12)
    assert recipe.width(1e30) == recipe.WIDEST and recipe.width(1) == recipe.NARROWEST


def test_more_time_means_wider_longer_and_more_dropout() -> None:
    texts = [recipe.choose(LanguageModelOptions(), MINUTE._replace(seconds=s))[0] for s in (8, 55, 290, 880)]
    for less, more in zip(texts, texts[1:], strict=False):
        assert less.hidden < more.hidden and less.bptt <= more.bptt and less.dropout <= more.dropout
    assert [t.cell for t in texts] == ["gru", "lstm", "lstm", "lstm"]


def test_a_larger_text_needs_less_dropout_and_a_smaller_one_more() -> None:
    drops = [recipe.choose(LanguageModelOptions(), MINUTE._replace(tokens=n))[0].dropout for n in (10**5, 10**6, 10**8)]
    assert drops == sorted(drops, reverse=True) and drops[0] > 0.3 and drops[-1] == 0


def test_what_is_given_is_kept_and_the_rest_fits_it() -> None:
    given = LanguageModelOptions(cell="rnn", hidden=100, layers=2, batch=7, bptt="full", dropout=0.05)
    chosen, why = recipe.choose(given, MINUTE)
    assert chosen == given
    assert "rnn 2 × 100" in why and "batch 7" in why and "chunks of full" in why and "dropout 0.05" in why
    wide, _ = recipe.choose(LanguageModelOptions(hidden=1024), MINUTE)
    assert (
        wide.dropout < recipe.choose(LanguageModelOptions(hidden=128), MINUTE)[0].dropout
    )  # it sees the text less often


def test_operations_are_those_of_the_products() -> None:
    """Counted by PyTorch's own counter on a step without look-up, less what the look-up saves."""
    from torch.utils.flop_counter import FlopCounterMode

    hidden, vocabulary, steps, rows = 12, 9, 4, 3
    layer = Recurrent(CELLS["lstm"], hidden, hidden, 2, engine="loop")
    output = torch.nn.Linear(hidden, vocabulary)
    with FlopCounterMode(display=False) as counter:
        out, _ = layer.unroll(Inputs(torch.randn(steps, rows, hidden)))
        output(out).sum().backward()
    tokens = steps * rows
    first_input = 2 * 2 * 4 * hidden * hidden * tokens  # its forward, and the gradient of its weights
    first_state = 2 * 4 * hidden * hidden * rows  # no gradient flows into the state of zeros, in either layer
    counted = counter.get_total_flops() - first_input + 2 * first_state
    assert counted == recipe.operations_per_token("lstm", hidden, 2, vocabulary) * tokens


def test_the_measured_speed_is_a_speed() -> None:
    assert 1e7 < recipe.measure_flops(torch.device("cpu"), "auto") < 1e14


def test_under_seconds_the_choice_is_said_and_stored(shared_data: Path, tmp_path: Path) -> None:
    listener = Listener()
    text = tmp_path / "text.txt"
    text.write_text((shared_data / "tiny_shakespeare" / "input.txt").read_text()[:60_000])
    fitted = fit_language_model([text], options=LanguageModelOptions(seconds=6), observer=listener)
    assert any("chosen for" in str(line.get("note")) for line in listener.lines)
    options = fitted.model.options
    assert options.cell == "gru" and options.hidden and options.dropout and options.bptt == 32


# The parts


def test_dropout_is_dropout() -> None:
    torch.manual_seed(0)
    x = torch.ones(31, 40, 53, requires_grad=True)
    dropped = dropout(x, 0.3, training=True)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.7, rel=1e-4)]
    assert (dropped == 0).float().mean() == pytest.approx(0.3, abs=0.006)
    for axis in range(3):  # no pattern along time, rows or features
        assert (dropped == 0).float().mean([a for a in range(3) if a != axis]).std() < 0.03
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped)
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.3, training=True), dropped)
    assert not torch.equal(dropout(x, 0.3, training=True), dropped)
    assert torch.equal(dropout(x, 0.3, training=False), x) and torch.equal(dropout(x, 0.0, training=True), x)
    assert not dropout(x, 1.0, training=True).any()


def test_orthogonal_start_makes_each_gate_a_rotation() -> None:
    layer = Recurrent(CELLS["gru"], 4, 6, 2, bidirectional=True, orthogonal=True)
    for name, w in layer.named_parameters():
        if name.startswith("weight_hh"):
            for block in w.chunk(3):
                torch.testing.assert_close(block @ block.t(), torch.eye(6))


def test_a_new_language_model_knows_how_frequent_tokens_are(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("aaab" * 500)
    fitted = fit_language_model([text], options=LanguageModelOptions(steps=1, lr=1e-12, hidden=4, batch=2))
    output = fitted.model.network.topology.output
    a, b = (int(fitted.model.tokenizer.encode(c)[0]) for c in "ab")
    p = F.softmax(output.bias.detach(), 0)
    assert p[a] / p[b] == pytest.approx(3, rel=0.01) and p[a] + p[b] > 0.99
