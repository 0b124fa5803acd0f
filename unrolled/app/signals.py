"""Ctrl-C and SIGTERM: a training finishes its update, writes a checkpoint, and only then ends."""

import signal
from types import FrameType, TracebackType
from typing import Any


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
            raise KeyboardInterrupt
