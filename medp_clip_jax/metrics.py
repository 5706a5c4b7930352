"""Where a run's figures go: the progress bar, `metrics.jsonl`, `speed.jsonl` and TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import tensorboardX
import tqdm

from medp_clip_jax import processes


class MetricWriter:
    """Writes one line per report; an interrupted run's lines after step `start` are dropped.

    `metrics.jsonl` is a function of the configuration; what depends on the machine goes to `speed.jsonl`.
    """

    def __init__(self, workdir: Path, start: int, steps: int, mfu_per_image: float | None = None):
        main = processes.is_main()  # the others write nothing
        self._metrics, self._speed = (
            _continued(workdir / f"{name}.jsonl", start) if main else open(os.devnull, "a")
            for name in ("metrics", "speed")
        )
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1, write_to_disk=main)
        self._bar = tqdm.tqdm(
            total=steps, initial=start, unit="step", dynamic_ncols=True, mininterval=1.0, disable=not main
        )
        self._mfu_per_image = mfu_per_image
        self._images = self._regions = 0

    def advance(self, images: int, regions: int) -> None:
        """Counts one finished step."""
        self._images, self._regions = self._images + images, self._regions + regions
        self._bar.update()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Records the metrics of a step; what is not finite is null in the file, since JSON knows no NaN."""
        _append(self._metrics, step, metrics)
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)

    def report(self, step: int, metrics: dict[str, float], window: Mapping[str, float], goodput: float) -> None:
        """Records training metrics, and throughput and utilisation since the last report.

        `window` is the clock's (goodput.py): throughput is over training alone, without evaluations and checkpoints.
        """
        self.write(step, metrics)
        seconds = max(window["step"] + window["input"] + window["compile"], 1e-9)
        speed = {"images/s": self._images / seconds, "regions/s": self._regions / seconds}
        if self._mfu_per_image is not None:
            speed["mfu"] = self._mfu_per_image * speed["images/s"]
        speed |= {"input_wait": window["input"] / seconds, "goodput": goodput}
        self._images = self._regions = 0
        _append(self._speed, step, speed)
        for name, value in speed.items():
            self._board.add_scalar(f"speed/{name}", value, step)
        rates = {name: f"{value:.0f}" for name, value in speed.items() if name.endswith("/s")}
        self._bar.set_postfix({"loss": f"{metrics['loss']:.3f}", **rates})

    def close(self) -> None:
        """Flushes everything."""
        self._bar.close()
        self._metrics.close()
        self._speed.close()
        self._board.close()


def _continued(path: Path, start: int) -> TextIO:
    """The file, open at its end and without the lines after step `start`."""
    if path.exists():
        kept = [line for line in path.read_text(errors="replace").splitlines() if _step(line) <= start]
        shorter = path.with_suffix(".partial")  # a kill while it is written must not cost the history
        shorter.write_text("".join(line + "\n" for line in kept))
        os.replace(shorter, path)
    return path.open("a")


def _append(file: TextIO, step: int, values: dict[str, float]) -> None:
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
    file.flush()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be cut short
        return math.inf
