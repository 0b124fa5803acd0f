"""`unrolled train TASK` and `unrolled resume`: the commands. No torch is imported before one runs."""

import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from unrolled.app.output import JsonFlag, print_json, say_what_takes_long
from unrolled.app.process import STARTED
from unrolled.tasks.media_options import (
    FrameLabelerOptions,
    ImageCaptionerOptions,
    VideoCaptionerOptions,
    VideoClassifierOptions,
)
from unrolled.tasks.options import LanguageModelOptions, TextClassifierOptions, TranslateOptions
from unrolled.training.options import TrainingOptions

if TYPE_CHECKING:
    from unrolled.tasks.fitting import Fitted

NEXT = {
    "language-model": 'sample {out} --prompt "…" --length 500 --temperature 0.8',
    "classify-text": "predict {out} TEXT",
    "translate": "predict {out} TEXT",
    "caption-image": "predict {out} PICTURE",
    "caption-video": "predict {out} CLIP",
    "classify-video": "predict {out} CLIP",
    "label-frames": "predict {out} CLIP",
}
"""What to do with a trained model."""
TOPOLOGIES = {
    "classify-text": "many_to_one",
    "translate": "sequence_to_sequence",
    "caption-image": "one_to_many",
    "caption-video": "sequence_to_sequence",
    "classify-video": "many_to_one",
    "label-frames": "many_to_many",
}
"""Of the tasks that have but one."""

train = App(name="train", help="Train a model.", help_format="plaintext", default_parameter=Parameter(negative=()))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a training goes.

    Attributes
    ----------
    out
        Folder of the run. Default: the first of runs/TASK-1, runs/TASK-2, … that is free.
    overwrite
        Replace an existing run folder.
    start_from
        Model to start from: its weights, architecture and vocabulary.
    json
        Print one JSON object on standard output at the end.
    """

    out: Path | None = None
    overwrite: bool = False
    start_from: Path | None = None
    json: bool = False


@train.command(name="language-model")
def train_language_model(
    *files: Path,
    val: Path | None = None,
    options: Annotated[LanguageModelOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a language model on text files or folders of them.

    Parameters
    ----------
    files
        Text in UTF-8; each file is a document, a folder gives the text files in it. Folders or files named after train,
        val and test are the parts of the data.
    val
        Text to validate on, instead of the end of the training text.
    """
    return _train("language-model", files, val, options or LanguageModelOptions(), output or Output())


@train.command(name="classify-text")
def train_classify_text(
    *files: Path,
    val: Path | None = None,
    options: Annotated[TextClassifierOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a text classifier on labelled texts.

    Parameters
    ----------
    files
        A TSV, CSV or JSON-lines file with a column of texts and one of labels; or a folder with a folder or a file for
        each class; or a file for each class, a text a line. Folders named train, val and test are the parts of the
        data.
    val
        Labelled texts to validate on, instead of a part of the training texts.
    """
    return _train("classify-text", files, val, options or TextClassifierOptions(), output or Output())


@train.command(name="translate")
def train_translate(
    *files: Path,
    val: Annotated[tuple[Path, ...] | None, Parameter(consume_multiple=True)] = None,
    options: Annotated[TranslateOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a translator: a line in, a line out (languages, notations, spellings).

    Parameters
    ----------
    files
        A file of sources and a file of targets, line by line; or one table (TSV, CSV, JSON lines) with a column
        of each.
    val
        Pairs to validate on, in the same form, instead of a part of the training pairs.
    """
    return _train("translate", files, val, options or TranslateOptions(), output or Output())


@train.command(name="caption-image")
def train_caption_image(
    *files: Path,
    val: Path | None = None,
    options: Annotated[ImageCaptionerOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a captioner: a picture in, a sentence out. A pretrained image network (--backbone) sees, and what it sees
    is computed once and kept in the cache; without one, small convolutions learn from the pictures themselves.

    Parameters
    ----------
    files
        A folder of pictures with their captions (captions.csv with image, caption and where wanted split;
        metadata.jsonl; a *.token.txt; COCO's annotations/), or that file; the pictures lie beside it or in images/.
    val
        Captioned pictures to validate on, in the same form, instead of a part of the training pictures.
    """
    return _train("caption-image", files, val, options or ImageCaptionerOptions(), output or Output())


@train.command(name="caption-video")
def train_caption_video(
    *files: Path,
    val: Path | None = None,
    options: Annotated[VideoCaptionerOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a captioner of clips: a video in, a sentence out.

    Parameters
    ----------
    files
        A table (captions.csv, metadata.jsonl) with columns path and caption, and where wanted split, a row a caption;
        or a folder with one. A clip is a video file or a folder of pictures.
    val
        Captioned clips to validate on, in the same form, instead of a part of the training clips.
    """
    return _train("caption-video", files, val, options or VideoCaptionerOptions(), output or Output())


@train.command(name="classify-video")
def train_classify_video(
    *files: Path,
    val: Path | None = None,
    options: Annotated[VideoClassifierOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a classifier of clips: a video in, a label out.

    Parameters
    ----------
    files
        A folder with a folder of clips for each class; or a table (CSV, TSV) with columns path and label, and where
        wanted group and split. A clip is a video file or a folder of pictures.
    val
        Labelled clips to validate on, in the same form, instead of a part of the training clips.
    """
    return _train("classify-video", files, val, options or VideoClassifierOptions(), output or Output())


@train.command(name="label-frames")
def train_label_frames(
    *files: Path,
    val: Path | None = None,
    options: Annotated[FrameLabelerOptions | None, Parameter(name="*")] = None,
    output: Output | None = None,
) -> int:
    """Train a labeler of frames: a video in, a label for every frame out.

    Parameters
    ----------
    files
        A table (CSV, TSV) with columns path, start_frame, end_frame (the frame after the last) and label, or path,
        frame and label, and where wanted group and split; or a folder with segments.csv. Frames without a label
        become a class of their own, none.
    val
        Clips to validate on, in the same form, instead of a part of the training clips.
    """
    return _train("label-frames", files, val, options or FrameLabelerOptions(), output or Output())


def _train(
    task: str,
    files: tuple[Path, ...],
    val: Path | tuple[Path, ...] | None,
    options: TrainingOptions,
    output: Output,
) -> int:
    from unrolled.training.run import Claim

    with Claim.next_free(Path("runs"), task) if output.out is None else nullcontext(output.out) as out:
        from unrolled.tasks.fitting import fit

        return _training(
            lambda **how: fit(
                files,
                options=options,
                val=val,
                start_from=output.start_from,
                out=out,
                overwrite=output.overwrite,
                **how,
            ),
            out.folder if isinstance(out, Claim) else out,
            output.json,
        )


Several = Annotated[tuple[Path, ...] | None, Parameter(consume_multiple=True)]


def resume(run: Path, *, data: Several = None, val: Several = None, json: JsonFlag = False) -> int:
    """Go on with a stopped training: bit for bit the same result under --steps.

    Parameters
    ----------
    run
        The run folder.
    data
        Where the files are now that it was trained on, in the same order, if they have moved. They must be the same.
    val
        Where those are now that --val named.
    """
    from unrolled.tasks.fitting import resume

    return _training(lambda **how: resume(run, data=data or None, val=val or None, **how), run, json)


def _training(start: Any, out: Path, as_json: bool) -> int:
    """Run a training with signals, progress and a summary; `start` takes clock and observer."""
    from unrolled.app.progress import display
    from unrolled.app.signals import Signals
    from unrolled.training.schedule import Clock

    say_what_takes_long()
    with Signals() as signals, display(sys.stderr, signals.stop) as observer:
        fitted: Fitted = start(clock=Clock(started=STARTED), observer=observer)
    summary, quoted = _summary(fitted, out), shlex.quote(str(out))
    if as_json:
        print_json(summary)
    if not fitted.result.finished:
        print(
            f"stopped at step {fitted.result.steps:,}, nothing is lost. Go on with:\n  unrolled resume {quoted}",
            file=sys.stderr,
        )
    elif not as_json:
        shown = [
            *fitted.result.metrics,
            *(["generated_examples"] if fitted.result.generated else []),
            "seconds",
            "model",
        ]
        for name in shown:
            value = summary[name]
            print(f"{name:20} {value:.4f}" if isinstance(value, float) else f"{name:20} {value}")
        print(f"next:\n  unrolled {NEXT[summary['task']].format(out=quoted)}")
    return 0 if fitted.result.finished else signals.exit_code or 1


def _summary(fitted: "Fitted", out: Path) -> dict[str, Any]:
    result, options = fitted.result, fitted.model.options
    return {
        "task": fitted.model.task,
        "topology": getattr(options, "topology", TOPOLOGIES.get(fitted.model.task)),
        "cell": options.cell,
        "engine": fitted.engine,
        "parameters": sum(p.numel() for p in fitted.model.network.parameters() if p.requires_grad),
        "seconds": result.seconds,
        "steps": result.steps,
        "best_step": result.best_step,
        "tokens_per_second": result.tokens_per_second,
        "train_loss": result.train_loss,
        **(result.metrics or {"val_loss": None}),
        "validated_tokens": result.validated,
        "generated_examples": result.generated,
        "finished": result.finished,
        "skipped": [one._asdict() for one in fitted.skipped],
        "model": str(out / "model.safetensors"),
    }
