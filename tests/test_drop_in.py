"""What people do with a `torch.nn` layer beside calling it: export, trace, copy, differentiate, load in workers."""

import copy
import importlib.util
import io
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from helpers import assert_one_sentence
from test_nn_parity import as_tuple, kinds, pair
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, Dataset

import unrolled.nn
from unrolled.errors import InputError, UnrolledError

X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(1))
"""An input, and one of other sizes."""


@pytest.fixture
def quiet() -> Iterator[None]:
    """PyTorch warns that tracing is deprecated and that its exporter uses what is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """Outputs and final state of two layers."""
    for one, other in zip((ours[0], *as_tuple(ours[1])), (theirs[0], *as_tuple(theirs[1])), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# Exporting


@pytest.mark.parametrize("lengths", [False, True], ids=["lengths absent", "lengths given"])
def test_onnx_runtime_computes_the_same_with_other_times_and_batches(lengths: bool) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is absent: install unrolled[test]")
    place = ROOT / "benchmarks" / "onnx_parity.py"
    if not place.is_file():
        pytest.skip("benchmarks/ is in the checkout alone")
    spec = importlib.util.spec_from_file_location("onnx_parity", place)
    assert spec and spec.loader
    parity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parity)
    # the script's table has all; these stand for it here, since the exporter takes a second for each node
    cases = [c for c in parity.CASES if c[1:3] in ([(1, True)] if lengths else [(1, False), (2, True)])]
    assert {c[0] for c in cases} == {"LSTM", "GRU", "RNN tanh", "RNN relu"}
    assert max(parity.differences(cases, lengths)) < 1e-5


@kinds
def test_torch_export_leaves_time_and_batch_open(kind: str) -> None:
    layer = getattr(unrolled.nn, kind)(3, 4, 2, bidirectional=True, batch_first=True)
    any_size = torch.export.Dim.DYNAMIC
    exported = torch.export.export(layer, (X,), dynamic_shapes=({0: any_size, 1: any_size},)).module()
    assert_same(exported(OTHER), layer(OTHER))


def test_an_exported_program_is_loaded_once_the_operators_are_registered(tmp_path: Path) -> None:
    layer = unrolled.nn.GRU(3, 4)
    torch.export.save(torch.export.export(layer, (X,)), tmp_path / "layer.pt2")
    torch.save([X, layer(X)[0].detach()], tmp_path / "expected.pt")
    code = (
        "import torch; from unrolled.engines.fused import register; register();"
        "x, expected = torch.load('expected.pt');"
        "torch.testing.assert_close(torch.export.load('layer.pt2').module()(x)[0], expected)"
    )
    path = {**os.environ, "PYTHONPATH": str(Path(unrolled.__file__).parents[1])}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=path, check=True, timeout=60)


def test_torch_jit_trace_records_what_runs_at_other_sizes_and_without_this_package(tmp_path: Path, quiet: None) -> None:
    for layer in (cls(3, 4, 2, bidirectional=True) for cls in (unrolled.nn.RNN, unrolled.nn.GRU, unrolled.nn.LSTM)):
        traced = torch.jit.trace(layer, (X,))
        assert_same(traced(OTHER), layer(OTHER))
    traced.save(tmp_path / "traced.pt")
    torch.save([OTHER, layer(OTHER)[0].detach()], tmp_path / "expected.pt")
    code = (
        "import sys, torch; x, expected = torch.load('expected.pt');"
        "torch.testing.assert_close(torch.jit.load('traced.pt')(x)[0], expected); assert 'unrolled' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_a_trace_with_lengths_follows_them(quiet: None) -> None:
    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = unrolled.nn.LSTM(3, 4, 2, bidirectional=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Any:
            return self.layer(x, lengths=lengths)

    model = Padded()
    traced = torch.jit.trace(model, (X, torch.tensor([2, 5])))
    for lengths in ([7, 1, 3, 4], [2, 2, 6, 1]):
        assert_same(traced(OTHER, torch.tensor(lengths)), model(OTHER, torch.tensor(lengths)))


# Devices, copies, processes


@kinds
def test_a_layer_on_the_meta_device_has_shapes_and_takes_weights(kind: str) -> None:
    ours, theirs = pair(kind, 3, 4, 2, bidirectional=True)
    empty = type(ours)(3, 4, 2, bidirectional=True, device="meta")
    outputs, state = empty(X.to("meta"))
    assert outputs.is_meta and outputs.shape == theirs(X)[0].shape
    assert [s.shape for s in as_tuple(state)] == [s.shape for s in as_tuple(theirs(X)[1])]
    filled = empty.to_empty(device="cpu")
    filled.load_state_dict(theirs.state_dict())
    assert_same(filled(X), theirs(X))


@kinds
def test_whole_layers_are_copied_pickled_and_saved(kind: str) -> None:
    layer = getattr(unrolled.nn, kind)(3, 4, 2, bidirectional=True)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)
    for copied in copies:
        assert torch.equal(copied(X)[0], layer(X)[0]) and repr(copied) == repr(layer)


class Encoded(Dataset[Tensor]):
    """Examples that a recurrent layer computes, in the process of the worker."""

    def __init__(self, layer: torch.nn.Module) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.layer(OTHER[: index + 1])[0][-1, 0]


@kinds
def test_workers_forked_after_parallel_regions_compute_the_same(kind: str) -> None:
    layer = getattr(unrolled.nn, kind)(3, 64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        layer(torch.randn(20, 32, 3))[0].sum().backward()  # OpenMP's threads exist when the workers are forked
        data = Encoded(layer)
        loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
        assert torch.equal(torch.cat(list(loader)), torch.stack([data[i] for i in range(6)]))
    finally:
        torch.set_num_threads(threads)


# Differentiating and changing weights


@kinds
def test_functional_call_and_the_transforms_of_torch_func(kind: str, quiet: None) -> None:
    ours, theirs = pair(kind, 3, 4, dtype=torch.float64)
    x = X.double()

    def derivatives(layer: torch.nn.Module) -> list[Tensor]:
        weights = {name: p.detach() for name, p in layer.named_parameters()}

        def loss(w: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(layer, w, (x,))[0].square().sum()

        return [*grad(loss)(weights, x).values(), grad(loss, argnums=1)(weights, x)]

    for one, other in zip(derivatives(ours), derivatives(theirs), strict=True):
        torch.testing.assert_close(one, other)
    tangent = jvp(lambda y: ours(y)[0], (x,), (x,))[1]
    rows = vmap(lambda row: ours(row)[0], in_dims=1, out_dims=1)(x)  # torch.nn has no rule for it
    torch.testing.assert_close(rows, ours(x)[0])
    step = 1e-6
    torch.testing.assert_close(tangent, (ours(x * (1 + step))[0] - ours(x * (1 - step))[0]) / (2 * step))


@pytest.mark.parametrize("engine", ["auto", "fused", "bptt"])
def test_a_forward_derivative_is_never_lost(engine: str, quiet: None) -> None:
    layer = unrolled.nn.GRU(3, 4, engine=engine).requires_grad_(False)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, X)
        if engine == "auto":
            assert forward_ad.unpack_dual(layer(dual)[0]).tangent.any()
        else:
            with pytest.raises(UnrolledError, match="forward-mode"):
                layer(dual)


@kinds
def test_pruning_and_parametrizations_act_as_on_torchs(kind: str) -> None:
    ours, theirs = pair(kind, 3, 4)
    for layer in (ours, theirs):
        prune.l1_unstructured(layer, "weight_hh_l0", 0.5)
        torch.manual_seed(0)
        parametrizations.weight_norm(layer, "weight_ih_l0")
    assert_same(ours(X), theirs(X))
    (mine,), (expected,) = ours.all_weights, theirs.all_weights
    assert [w.shape for w in mine] == [w.shape for w in expected]
    ours(X)[0].sum().backward()
    prune.remove(ours, "weight_hh_l0")
    assert (ours.weight_hh_l0 == 0).sum() == ours.weight_hh_l0.numel() // 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@kinds
def test_other_dtypes_run_and_are_not_mixed(kind: str, dtype: torch.dtype) -> None:
    layer = getattr(unrolled.nn, kind)(3, 4).to(dtype)
    outputs, state = layer(X.to(dtype))
    assert outputs.dtype == as_tuple(state)[0].dtype == dtype
    start = torch.zeros(1, 2, 4)
    for call in ((X,), (X.to(dtype), (start, start) if kind == "LSTM" else start)):
        with pytest.raises(InputError, match="float32") as raised:
            layer(*call)
        assert_one_sentence(str(raised.value))


@kinds
def test_repr_is_torchs(kind: str) -> None:
    many = {"bias": False, "num_layers": 3, "dropout": 0.5, "bidirectional": True}
    options: tuple[dict[str, Any], ...] = ({}, {"num_layers": 2, "batch_first": True}, many)
    for given in options:
        assert repr(getattr(unrolled.nn, kind)(3, 4, **given)) == repr(getattr(torch.nn, kind)(3, 4, **given))
    assert repr(getattr(unrolled.nn, kind)(3, 4, engine="loop")) == f"{kind}(3, 4, engine='loop')"


@pytest.mark.parametrize(("option", "value"), [("hidden_size", 4.0), ("num_layers", True), ("dropout", True)])
def test_sizes_are_whole_numbers_and_shares_are_numbers(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option) as raised:
        unrolled.nn.GRU(**{"input_size": 3, "hidden_size": 4, "num_layers": 2, option: value})
    assert_one_sentence(str(raised.value))
