"""Frames to features: what is padding does not count, a clip is changed as a whole, and nothing else changes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.nn.augment import Variety, vary, warp
from unrolled.nn.convnet import FrameEncoder, Packed, PictureEncoder, pack, standardise, with_differences

LENGTHS = torch.tensor([5, 1, 3])


def clips(seed: int = 0, padding: int = 0, channels: int = 3) -> Tensor:
    """(5, 3, 6, 8, channels) uint8"""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (5, 3, 6, 8, channels), generator=generator, dtype=torch.uint8)
    frames[torch.arange(5)[:, None] >= LENGTHS] = padding
    return frames


def frames_of(packed: Packed, clip: int) -> Tensor:
    return packed.frames[packed.column == clip]


def test_packing_leaves_the_padding_out_and_unpacking_puts_each_frame_back() -> None:
    packed = pack(clips(), LENGTHS)
    assert packed.frames.shape == (9, 3, 6, 8)
    for clip, length in enumerate(LENGTHS.tolist()):
        assert torch.equal(frames_of(packed, clip), clips()[:length, clip].permute(0, 3, 1, 2))
    features = packed.frames.float().flatten(1)
    unpacked = packed.unpack(features)
    assert unpacked.shape == (5, 3, 144)
    for clip, length in enumerate(LENGTHS.tolist()):
        assert torch.equal(unpacked[:length, clip], features[packed.column == clip])
        assert (unpacked[length:, clip] == 0).all()


def test_differences_are_to_the_neighbours_in_the_same_clip() -> None:
    packed = with_differences(pack(clips().float(), LENGTHS))
    for clip, length in enumerate(LENGTHS.tolist()):
        x = clips()[:length, clip].permute(0, 3, 1, 2).float()
        before, after = torch.cat((x[:1], x[:-1])), torch.cat((x[1:], x[-1:]))
        assert torch.equal(frames_of(packed, clip), torch.cat((x, x - before, after - x), 1))


def test_standardising_makes_each_clip_alike_whatever_its_light_and_its_company() -> None:
    packed = standardise(pack(clips(), LENGTHS))
    for clip in range(3):
        found = frames_of(packed, clip)
        assert found.mean((0, 2, 3)).abs().max() < 1e-5
        assert torch.allclose(found.square().mean((0, 2, 3)), torch.ones(3), atol=1e-4)
    brighter = (clips().float() * 0.5 + 60).round()
    brighter[:, 0] = clips()[:, 0].float() * 0.5 + 60
    assert torch.allclose(frames_of(standardise(pack(brighter, LENGTHS)), 0), frames_of(packed, 0), atol=1e-4)
    alone = standardise(pack(clips()[:3, 2:], LENGTHS[2:]))
    assert torch.allclose(alone.frames, frames_of(packed, 2), atol=1e-6)
    black = standardise(pack(torch.zeros(2, 1, 6, 8, 1, dtype=torch.uint8), torch.tensor([2])))
    assert (black.frames == 0).all()


@pytest.mark.parametrize(("height", "width", "channels"), [(40, 64, 3), (64, 64, 9), (9, 33, 1), (8, 8, 3)])
def test_the_encoder_takes_frames_of_any_size(height: int, width: int, channels: int) -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(height, width, channels, 10, (4, 6))
    x = torch.randn(7, channels, height, width)
    encoder(x).square().sum().backward()
    assert encoder(x).shape == (7, 10) and encoder(x).dtype == torch.float32
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    encoder.eval()
    assert torch.allclose(encoder(x)[:1], encoder(x[:1]), atol=1e-5)  # a frame does not depend on the others


def test_half_of_the_features_know_a_thing_wherever_it_is() -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(64, 64, 1, 8, (4, 6), anywhere=True).eval()
    thing = torch.randn(8, 8)
    frames = torch.zeros(2, 1, 64, 64)
    frames[0, 0, 16:24, 16:24] = thing
    frames[1, 0, 32:40, 32:40] = thing
    with torch.no_grad():
        found = encoder(frames)
    assert found.shape == (2, 8)
    assert torch.allclose(found[0, 4:], found[1, 4:], atol=1e-5) and found[0, 4:].abs().sum() > 0
    assert not torch.allclose(found[0, :4], found[1, :4], atol=1e-2)


def test_training_in_bfloat16_is_close_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder, x = FrameEncoder(32, 32, 3, 16, (8, 16)), torch.randn(64, 3, 32, 32)
    gradients = []
    for allowed in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda allowed=allowed: allowed)
        encoder.zero_grad()
        encoder(x).sum(0)[:8].sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


# Variety


def test_none_changes_nothing() -> None:
    packed = pack(clips(), LENGTHS)
    assert torch.equal(vary(packed, Variety()).frames, packed.frames.float())
    at, lengths = warp(LENGTHS, 0.0)
    assert torch.equal(lengths, LENGTHS)
    for clip, length in enumerate(LENGTHS.tolist()):
        assert at[:length, clip].tolist() == list(range(length))


def test_a_warped_clip_keeps_the_order_of_its_frames_and_its_ends() -> None:
    torch.manual_seed(1)
    lengths = torch.tensor([20, 1, 2, 33, 7] * 20)
    at, new = warp(lengths, 0.5)
    assert at.shape == (new.max(), 100)
    assert (new <= (1.5 * lengths).round()).all() and (new >= (lengths / 1.5).round().clamp(min=1)).all()
    assert new.float().std() > 0 and len(set(new[lengths == 20].tolist())) > 5
    for clip, (length, steps) in enumerate(zip(lengths.tolist(), new.tolist(), strict=True)):
        taken = at[:steps, clip]
        assert (taken.diff() >= 0).all() and 0 <= taken[0] <= taken[-1] < length
        if length == 33:
            assert taken[0] <= 1 and taken[-1] >= 31


def test_a_clip_is_moved_as_a_whole_by_at_most_the_shift() -> None:
    """A spot is found again within it, at the same place in all frames of a clip and at another in other clips."""
    torch.manual_seed(2)
    inputs = torch.zeros(4, 30, 24, 32, 1, dtype=torch.uint8)
    inputs[:, :, 12, 16] = 255
    packed = pack(inputs, torch.full((30,), 4))
    moved = vary(packed, Variety(shift=0.25)).frames
    weights = moved / moved.sum((2, 3), keepdim=True)
    rows = (weights * torch.arange(24)[:, None]).sum((1, 2, 3)) - 12
    columns = (weights * torch.arange(32)).sum((1, 2, 3)) - 16
    assert rows.abs().max() <= 6.01 and columns.abs().max() <= 8.01
    assert rows.std() > 2 and columns.std() > 3
    for clip in range(30):
        assert rows[packed.column == clip].std() < 1e-4


def test_flipping_mirrors_half_of_the_clips_exactly() -> None:
    torch.manual_seed(3)
    inputs = torch.randint(0, 256, (2, 40, 6, 8, 1), dtype=torch.uint8)
    packed = pack(inputs, torch.full((40,), 2))
    found = vary(packed, Variety(flip=True)).frames
    same = torch.isclose(found, packed.frames.float(), atol=1e-3).flatten(1).all(1)
    mirrored = torch.isclose(found, packed.frames.float().flip(3), atol=1e-3).flatten(1).all(1)
    assert (same ^ mirrored).all() and 8 <= int(mirrored.sum()) <= 72


def test_turning_is_a_rotation_in_pixels_whatever_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn of a wide picture puts a point at the same distance from the middle."""
    monkeypatch.setattr("unrolled.nn.augment._around_zero", lambda clips, like: torch.ones(clips))
    inputs = torch.zeros(1, 1, 21, 41, 1, dtype=torch.uint8)
    inputs[0, 0, 10, 26] = 255  # six to the right of the middle
    turned = vary(pack(inputs, torch.ones(1, dtype=torch.long)), Variety(turn=90.0)).frames[0, 0]
    assert (turned > 200).nonzero().tolist() in ([[4, 20]], [[16, 20]])


def test_blur_spreads_a_spot_as_a_gaussian_of_at_most_its_part_of_the_side_and_keeps_its_light() -> None:
    torch.manual_seed(6)
    inputs = torch.zeros(3, 20, 25, 31, 1, dtype=torch.uint8)
    inputs[:, :, 12, 15] = 255
    packed = pack(inputs, torch.full((20,), 3))
    found = vary(packed, Variety(blur=1.5 / 31)).frames[:, 0]
    assert torch.allclose(found.sum((1, 2)), torch.full((60,), 255.0), atol=0.1)
    variance = (found.sum(1) * (torch.arange(31) - 15) ** 2).sum(1) / 255
    assert variance.max() <= 1.51**2 and variance.max() > 1 and variance.min() < 0.3
    assert torch.allclose((found.sum(2) * (torch.arange(25) - 12) ** 2).sum(1) / 255, variance, atol=1e-3)
    for clip in range(20):
        assert variance[packed.column == clip].std() < 1e-4


def test_light_changes_a_clip_as_a_whole_and_covering_hides_one_place() -> None:
    torch.manual_seed(4)
    inputs = torch.randint(80, 120, (3, 20, 12, 16, 1), dtype=torch.uint8)
    packed = pack(inputs, torch.full((20,), 3))
    lit = vary(packed, Variety(light=0.3)).frames
    for clip in range(20):
        x, y = packed.frames[packed.column == clip].flatten().double(), lit[packed.column == clip].flatten().double()
        slope, start = np.polyfit(x.numpy(), y.numpy(), 1)
        assert torch.allclose(slope * x + start, y, atol=1e-2) and 1 / 1.3 <= slope <= 1.3 and abs(start) <= 77
    covered = vary(packed, Variety(cover=0.5)).frames
    hidden = covered != packed.frames
    for clip in range(20):
        places = hidden[packed.column == clip]
        assert (places == places[0]).float().mean() > 0.97  # but where a pixel has the mean's value by chance
        assert places.float().mean() <= 0.26
    assert hidden.any()


def test_regions_of_a_picture_are_row_by_row_from_the_top_left() -> None:
    torch.manual_seed(0)
    encoder = PictureEncoder(64, (8, 16)).eval()
    assert (encoder.grid, encoder.features) == ((8, 8), 16)
    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    for row, column in ((0, 0), (2, 5), (7, 3)):
        spot = grey.copy()
        spot[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
        with torch.no_grad():
            found = encoder(encoder.pixels([grey, spot]))
        assert found.shape == (64, 2, 16)
        changed = (found[:, 1] != found[:, 0]).any(-1).nonzero()[:, 0]
        assert 8 * row + column in changed.tolist()
        assert (changed // 8 - row).abs().max() <= 2 and (changed % 8 - column).abs().max() <= 2


@pytest.mark.parametrize(("side", "grid"), [(8, 4), (32, 8), (64, 8), (100, 7)])
def test_a_picture_of_any_shape_becomes_a_square(side: int, grid: int) -> None:
    encoder = PictureEncoder(side, (4, 8, 8)).eval()
    assert encoder.grid == (grid, grid)
    wide = np.zeros((20, 50, 3), dtype=np.uint8)
    wide[:, 25:] = 200
    pixels = encoder.pixels([wide])
    assert pixels.shape == (1, side, side, 3)
    assert bool((pixels[0, :, -1] == 200).all()) and bool((pixels[0, :, 0] == 0).all())
    assert encoder(pixels).shape == (grid * grid, 1, 8)
    assert encoder.place(20, 50) == (0, 0, 50, 20)
