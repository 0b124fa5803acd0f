"""Sequences of arrays in batches: what is stored comes back, padding is padding, nothing is copied for a second use."""

import numpy as np
import torch

from unrolled.data.batches import BucketStream, Examples, Limit, in_order_of_length
from unrolled.data.frames import Frames

CLIPS = [np.arange(n * 6, dtype=np.uint8).reshape(n, 2, 3) + n for n in (3, 1, 4)]


def test_padded_sequences_are_the_stored_ones():
    frames = Frames.pack(CLIPS).take(np.array([2, 0, 2, 1]))
    assert len(frames) == 4 and frames.shape == (2, 3) and frames.lengths.tolist() == [4, 3, 4, 1]
    arrays, lengths = frames.padded(np.array([1, 2, 3]), 9)
    assert arrays.shape == (4, 3, 2, 3) and arrays.dtype == torch.uint8 and lengths.tolist() == [3, 4, 1]
    for column, clip in enumerate((CLIPS[0], CLIPS[2], CLIPS[1])):
        assert np.array_equal(arrays[: len(clip), column].numpy(), clip)
        assert (arrays[len(clip) :, column] == 9).all()


def test_a_sequence_that_is_used_twice_is_stored_once():
    frames = Frames.pack(CLIPS)
    assert np.shares_memory(frames.take(np.array([0, 0]))[1], frames.array)


def test_examples_of_frames_go_through_both_streams():
    examples = Examples(Frames.pack(CLIPS), np.array([0, 1, 2]))
    for batch in (next(BucketStream(examples, Limit(3), 0)), next(in_order_of_length(examples, Limit(3)))):
        for column, row in enumerate(batch.rows.tolist()):
            assert batch.targets[column] == row and batch.lengths[column] == len(CLIPS[row])
            assert np.array_equal(batch.inputs[: len(CLIPS[row]), column].numpy(), CLIPS[row])
