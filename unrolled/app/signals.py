"""Ctrl-C and SIGTERM: a training finishes its update, writes a checkpoint, and only then ends."""

import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler. As after Ctrl-C, what has been begun is tidied up on the way out."""
    raise Interrupted(number)


class Signals:
    """A context in which the first signal is remembered for `stop`, and a second one ends at once.

    Before training asks for the first time there is nothing to keep, and a signal ends the command as usual.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._armed = False
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 0 after none."""
        return 128 + self.received if self.received else 0

    def stop(self, step: int) -> bool:
        self._armed = True
        return self.received is not None

    def __enter__(self) -> "Signals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        at_once = not self._armed or self.received is not None
        self.received = number
        if at_once:
            end_at_once(number, frame)
