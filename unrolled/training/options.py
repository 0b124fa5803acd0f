"""What every training can be told. No torch here: the command line makes its flags of these classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from unrolled.data.contents import check
from unrolled.errors import InputError

ADDED = frozenset({"bad_files"})
"""Options that came after version 0.1.0: files without them have the default."""
MOST = {
    **dict.fromkeys(("hidden", "embedding", "features"), 1 << 24),
    **dict.fromkeys(("batch", "steps", "eval_every"), 1 << 40),
    **{"vocabulary": 1_000_000, "layers": 1000, "threads": 1024, "size": 4096},
}
"""Above these nothing can be meant, and what comes before the memory is known would take for ever, or crash."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options common to every task.

    Attributes
    ----------
    seconds
        Wall time from the start of the command to the saved model, final validation included; compiling the kernels,
        once per machine, does not count. Default: 300, unless --steps is given.
    steps
        Number of updates, instead of a time: repeatable bit for bit.
    batch
        Rows of a batch. Default: chosen for the task.
    bptt
        Timesteps of truncated backpropagation through time, or "full" for a whole lane or document. Default: chosen
        for the task.
    lr
        Peak learning rate of AdamW. Default: chosen for the cell and its width.
    weight_decay
        AdamW's weight decay.
    warmup
        Updates over which the learning rate rises to its peak; it then falls linearly to zero, by step or by clock.
    clip
        Largest norm of the gradient; 0 for no limit.
    eval_every
        Updates between validations. Default: a tenth of the training.
    patience
        Stop after this many validations in which neither the task's metric nor the loss was better than ever before; 0
        never stops early.
    average
        Measure and keep the mean of the newest weights, over this part of the training, such as 0.1; 0 for the last
        weights alone.
    seed
        Seed of initial weights, dropout and samples.
    engine
        auto, or one engine by name (see unrolled doctor).
    device
        cpu, cuda, cuda:1, … Default: cuda where there is one.
    threads
        Threads of PyTorch. Default: its own choice.
    """

    seconds: float | None = None
    steps: int | None = None
    batch: int | None = None
    bptt: str | int | None = None
    lr: float | None = None
    weight_decay: float = 0.01
    warmup: int = 50
    clip: float = 1.0
    eval_every: int | None = None
    patience: int = 0
    average: float = 0.0
    seed: int = 0
    engine: str = "auto"
    device: str | None = None
    threads: int | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """From what a file keeps; raises `InputError` where an option is missing or of another type."""
        check(values, cls, "its options", ADDED)
        return cls(**values)

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name, None)
            if value is not None and value > most:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} is {value:,}: no machine has the memory for it, give at most {most:,}")
        if self.seconds is not None and self.steps is not None:
            raise InputError("--seconds and --steps are both given: choose one")
        for name in ("seconds", "steps", "batch", "lr", "eval_every", "threads"):
            self._at_least(name, above=0)
        for name in ("weight_decay", "warmup", "clip", "patience"):
            self._at_least(name, low=0)
        self._below_one("average")
        for name in ("lr", "seconds", "clip", "weight_decay"):
            if getattr(self, name) == float("inf"):
                raise InputError(f"--{name.replace('_', '-')} is infinite: give a number")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed is {self.seed}: it must be from 0 to 2^63 - 1")
        if self.bptt not in ("full", None):
            if not str(self.bptt).isdigit() or int(self.bptt) < 1:
                raise InputError(f"--bptt is {self.bptt!r}: give a number of timesteps from 1, or full")
            object.__setattr__(self, "bptt", int(self.bptt))

    @property
    def bptt_steps(self) -> int | None:
        """Timesteps of a chunk; None for full backpropagation through time."""
        assert self.bptt is not None
        return None if self.bptt == "full" else int(self.bptt)

    def check_together(self, *, val: bool, start: bool) -> None:
        """Raises `InputError` where an option that is given would have no effect. For a new training alone: the options
        of a model file or of a run have every choice made.

        val: data to validate on are given; start: a model to start from.
        """
        groups, fraction = (getattr(self, name, None) for name in ("val_groups", "val_fraction"))
        for flag, given in (("--val-groups", groups), ("--val-fraction", fraction)):
            if val and given is not None:
                raise InputError(f"--val says what to validate on, and {flag} too: leave one of them out")
        if groups is not None and fraction is not None:
            raise InputError("--val-groups and --val-fraction are both given: leave one of them out")
        if self.whole and self.bptt not in ("full", None):
            raise InputError(
                f"--bptt {self.bptt} is for language models: other tasks backpropagate through whole examples, so "
                "leave it out"
            )

    @property
    def whole(self) -> bool:
        """Whether an example is always backpropagated through as a whole."""
        return True

    def _at_least(self, name: str, *, low: float | None = None, above: float | None = None) -> None:
        value: Any = getattr(self, name)
        flag = "--" + name.replace("_", "-")
        if value is None:
            return
        if low is not None and not value >= low:
            raise InputError(f"{flag} is {value}: it must be at least {low}")
        if above is not None and not value > above:
            raise InputError(f"{flag} is {value}: it must be greater than {above}")

    def _one_of(self, name: str, allowed: Sequence[str]) -> None:
        value = getattr(self, name)
        if value is not None and value not in allowed:
            raise InputError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")

    def _below_one(self, name: str) -> None:
        value = getattr(self, name)
        if value is not None and not 0 <= value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at least 0 and less than 1")

    def like(self, other: Any, names: Sequence[str]) -> Self:
        """These options with those called `names` of the model to start from; refuses a contradiction."""
        for name in names:
            asked, has = getattr(self, name), getattr(other, name)
            if asked is not None and asked != has:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} {asked} contradicts the model to start from, which has {has}: leave it out")
        return replace(self, **{name: getattr(other, name) for name in names})
