"""Pictures of clips: what stands in them is what the model says."""

from pathlib import Path

import numpy as np
import pytest
from helpers import svg_text

from unrolled.inspection import pictures, timeline
from unrolled.tasks.frame_labeler import LabelledSegment, Labelling
from unrolled.tasks.text_classifier import Prediction

NAMES = ["up", "down", "never", "seldom"]


def labelling(stride: int = 1) -> Labelling:
    """Thirty frames up, ten down; the third label never likely, the fourth for one frame."""
    chances = np.zeros((40, 4))
    chances[:30, 0], chances[30:, 1], chances[:, 2], chances[5, 3] = 0.9, 0.8, 0.1, 0.2
    labels = ["up"] * 30 + ["down"] * 10
    runs = [LabelledSegment(0, 30 * stride, "up", 0.9), LabelledSegment(30 * stride, 40 * stride, "down", 0.8)]
    return Labelling(labels, chances, runs)


def drawn_text(figure: object, path: Path) -> list[str]:
    pictures.save(figure, path)  # type: ignore[arg-type]
    return svg_text(path).splitlines()


@pytest.mark.parametrize("stride", [1, 3])
def test_each_frame_of_the_strip_has_its_label_and_its_number_in_the_clip(tmp_path: Path, stride: int) -> None:
    frames = [np.full((20, 20, 3), n, dtype=np.uint8) for n in range(4)]
    figure = timeline.labelled(frames, labelling(stride), NAMES)
    lines = drawn_text(figure, tmp_path / "a.svg")
    assert lines[:8] == [
        "up",
        str(5 * stride),
        "up",
        str(15 * stride),
        "up",
        str(25 * stride),
        "down",
        str(35 * stride),
    ]
    shown = [np.asarray(image.get_array())[0, 0, 0] for image in figure.axes[0].images]
    assert shown == [0, 1, 2, 3]


def test_labels_have_a_curve_where_they_are_likely_somewhere(tmp_path: Path) -> None:
    figure = timeline.labelled([np.zeros((20, 20, 1), dtype=np.uint8)], labelling(), NAMES)
    curves = {line.get_label(): np.asarray(line.get_ydata()) for line in figure.axes[-1].lines}
    assert list(curves) == ["up", "down", "seldom"]
    assert (curves["up"] == labelling().probabilities[:, 0]).all()
    assert "predicted" in drawn_text(figure, tmp_path / "a.svg")


def test_the_truth_stands_above_what_is_predicted(tmp_path: Path) -> None:
    true = [LabelledSegment(0, 40, "seldom", 1.0)]
    figure = timeline.labelled([np.zeros((20, 20, 1), dtype=np.uint8)], labelling(), NAMES, true)
    lines = drawn_text(figure, tmp_path / "a.svg")
    assert lines.index("truth") < lines.index("predicted") and "seldom" in lines


def test_a_classified_clip_has_its_likeliest_labels_first(tmp_path: Path) -> None:
    chances = {f"class {n}": (n + 1) / 78 for n in range(12)}
    found = Prediction("class 11", 12 / 78, chances)
    lines = drawn_text(timeline.classified([np.zeros((20, 40, 1), dtype=np.uint8)] * 3, found), tmp_path / "a.svg")
    assert [line for line in lines if line.startswith("class")] == [f"class {n}" for n in range(11, 3, -1)]
    assert f"{12 / 78:.2f}" in lines


def test_as_many_frames_stand_side_by_side_as_have_room() -> None:
    assert timeline.fitting(64, 64) == 10 and timeline.fitting(64, 40) == 6 and timeline.fitting(40, 64) == 12
