"""Where a run's figures go: the progress bar, `metrics.jsonl` and TensorBoard."""

import json
import math
import os
import time
from pathlib import Path

import tensorboardX
import tqdm


class MetricWriter:
    """Writes one line of `metrics.jsonl` per report; an interrupted run's lines after step `start` are dropped."""

    def __init__(self, workdir: Path, start: int, steps: int):
        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text(errors="replace").splitlines() if _step(line) <= start]
            shorter = path.with_suffix(".partial")  # a kill while it is written must not cost the history
            shorter.write_text("".join(line + "\n" for line in kept))
            os.replace(shorter, path)
        self._file = path.open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1, write_to_disk=True)
        self._bar = tqdm.tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, mininterval=1.0)
        self._clock, self._images, self._regions = time.monotonic(), 0, 0

    def advance(self, images: int, regions: int) -> None:
        """Counts one finished step."""
        self._images, self._regions = self._images + images, self._regions + regions
        self._bar.update()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Records the metrics of a step; what is not finite is null in the file, since JSON knows no NaN."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Records training metrics and shows them with the throughput since the last report.

        Throughput goes to TensorBoard and the bar only, so that `metrics.jsonl` is a function of the configuration.
        """
        self.write(step, metrics)
        seconds = time.monotonic() - self._clock
        speed = {"images/s": self._images / seconds, "regions/s": self._regions / seconds}
        for name, value in speed.items():
            self._board.add_scalar(f"speed/{name}", value, step)
        shown = {"loss": f"{metrics['loss']:.3f}", **{name: f"{value:.0f}" for name, value in speed.items()}}
        self._bar.set_postfix(shown)
        self._clock, self._images, self._regions = time.monotonic(), 0, 0

    def close(self) -> None:
        """Flushes everything."""
        self._bar.close()
        self._file.close()
        self._board.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be cut short
        return math.inf
