"""The goodput clock: where a run's time went, over all its starts."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from medp_clip_jax import processes

# `step` alone trains. `input` is waiting for a batch while the devices are idle, `lost` are steps that a kill undid.
PARTS = ("start", "compile", "input", "step", "save", "eval", "lost")


class Goodput:
    """Adds up seconds by part, those of the main process in the run directory's `goodput.json`."""

    def __init__(self, workdir: Path):
        self._path = workdir / "goodput.json"
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._at: dict[int, float] = {}  # step -> seconds of steps up to it, while it can still be resumed from
        if self._path.exists():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged clock must not stop a run
                stored = json.loads(self._path.read_text())
                self.seconds |= {part: float(stored["seconds"][part]) for part in PARTS}
                self._at = {int(step): float(seconds) for step, seconds in stored["at"].items()}
        self._window = dict(self.seconds)

    def resume(self, step: int) -> None:
        """Counts as lost what an earlier start of the run did after `step`, from which this one goes on."""
        lost = self.seconds["step"] - self._at.get(step, 0.0 if step == 0 else self.seconds["step"])
        self.seconds["step"] -= lost
        self.seconds["lost"] += lost
        self._window = dict(self.seconds)

    @contextlib.contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Counts the time of the block as `part`."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(part, time.monotonic() - began)

    def add(self, part: str, seconds: float) -> None:
        """Counts seconds as `part`."""
        self.seconds[part] += seconds

    def saved(self, step: int) -> None:
        """Notes that the run can be resumed from `step`."""
        self._at[step] = self.seconds["step"]

    def window(self) -> dict[str, float]:
        """Seconds by part since the last call; also stores the clock."""
        window = {part: self.seconds[part] - self._window[part] for part in PARTS}
        self._window = dict(self.seconds)
        self.store()
        return window

    def store(self) -> None:
        """Writes the clock to the run directory, whole or not at all."""
        if processes.is_main():
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps({"seconds": self.seconds, "at": self._at}, indent=1) + "\n")
            os.replace(partial, self._path)

    def share(self) -> float:
        """Goodput, in [0, 1]: the share of all the time that went into steps that count."""
        return self.seconds["step"] / max(sum(self.seconds.values()), 1e-9)

    def line(self) -> str:
        """The whole clock in words."""
        total = max(sum(self.seconds.values()), 1e-9)
        parts = ", ".join(f"{part} {seconds / total:.1%}" for part, seconds in self.seconds.items())
        return f"goodput {self.share():.1%} of {total:.0f} s ({parts})"
