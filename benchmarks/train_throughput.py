"""Training throughput beside open_clip, and regions per second beside Alpha-CLIP's method: one Markdown table.

python -m benchmarks.train_throughput --peer_python=PEERS/bin/python

`PEERS` is an environment with torch and open_clip_torch, apart from this one. On a GPU: ViT-L/14 and ViT-B/16 in bf16
with and without 16 regions per image. Without one: ViT-B/32 at batch 16 in float32, and the image towers alone with 16
regions per image. Ours and the peer's rounds alternate, so that both meet the same machine; a ratio is the median over
rounds. Nothing is measured while the other side works, nor is the first step after it.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
from typing import Any

from absl import flags

from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.flops import mfu

PEER = flags.DEFINE_string("peer_python", None, "Python with torch and open_clip_torch.", required=True)
DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to run; auto takes a GPU if there is one.")
MODELS = flags.DEFINE_list("models", [], "Image towers, such as ViTB/32; default by device.")
BATCH = flags.DEFINE_integer("batch", 0, "Images per step; 0 = by device.", lower_bound=0)
REGIONS = flags.DEFINE_integer("regions", 16, "Regions per image.", lower_bound=1)
TEXT = flags.DEFINE_integer("text_length", 77, "Tokens per text, ours and the peer's.", lower_bound=2, upper_bound=77)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each side.", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 0, "Steps per round; 0 = by device.", lower_bound=0)
THREADS = flags.DEFINE_integer("threads", 2, "CPU cores for each side, on a CPU.", lower_bound=1)
REMAT = flags.DEFINE_enum(
    "remat",
    "auto",
    ["auto", "none", "dots", "full"],
    "What our backward pass recomputes; auto is none on a CPU, else dots.",
)

HERE = pathlib.Path(__file__).parent
# Huge pages for the buffers of a step, which XLA asks for anew each time: glibc's switch, a documented user setting.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what both sides do, and how much of it is one step."""

    title: str
    model: str
    ours: str  # a `work` of throughput_ours
    peer: str  # a `work` of throughput_peer
    regions: int
    unit: str
    rounds: int


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; flags look like --peer_python=PATH")
    if not shutil.which(PEER.value):
        raise InputError(f"--peer_python={PEER.value}: no such program; name a Python with torch and open_clip_torch")
    device = DEVICE.value if DEVICE.value != "auto" else ("gpu" if has_gpu() else "cpu")
    about: dict[str, None] = {}
    print("| work | model | unit | ours | peer | ours / peer | MFU ours | MFU peer |\n|" + "---|" * 8, flush=True)
    for row in rows(device):
        print(measure(row, device, about), flush=True)
    print(f"\n{describe(device, about)}")


def rows(device: str) -> list[Row]:
    """The lines of the table for this device."""
    regions, many = REGIONS.value, f"{REGIONS.value} regions per image"
    if device == "gpu":
        made = []
        for model in MODELS.value or ["ViTL/14", "ViTB/16"]:
            made.append(Row("train step, pairs", model, "pairs", "pairs", 0, "images/s", ROUNDS.value))
            title = f"train step, {many}; peer: pairs alone"
            made.append(Row(title, model, "pairs", "pairs", regions, "images/s", ROUNDS.value))
        return made
    few = min(3, ROUNDS.value)  # a round of one pass per region takes most of a minute
    made = []
    for model in MODELS.value or ["ViTB/32"]:
        made += [
            Row("train step, pairs", model, "pairs", "pairs", 0, "pairs/s", ROUNDS.value),
            Row(f"image tower, training, {many}", model, "train", "train", regions, "regions/s", min(2, few)),
            Row(f"image tower, inference, {many}, one pass", model, "infer", "infer", regions, "regions/s", few),
            Row(f"image tower, inference, {many}, two stages", model, "infer_kept", "infer", regions, "regions/s", few),
        ]
    return made


def measure(row: Row, device: str, about: dict[str, Any]) -> str:
    """Runs both sides of a row in turn: its line of the table. `about` learns what ran."""
    batch = BATCH.value or {"cpu": 16, "gpu": 256}[device]
    case = {
        "device": device,
        "model": row.model,
        "batch": batch,
        "regions": row.regions,
        "text_length": TEXT.value,
        "steps": STEPS.value or {"cpu": 1, "gpu": 20}[device],
        "threads": THREADS.value,
        "remat": REMAT.value if REMAT.value != "auto" else {"cpu": "none", "gpu": "dots"}[device],
        "peer_images": min(batch, 4),  # a pass per region takes long: the peer reads some of the batch's images
    }
    with Side("ours", sys.executable, ["-m", "benchmarks.throughput_ours"], {**case, "work": row.ours}) as ours:
        script = [str(HERE / "throughput_peer.py")]
        with Side("the peer", PEER.value, script, {**case, "work": row.peer}) as peer:
            seconds = [(ours.round(), peer.round()) for _ in range(row.rounds)]
    about[f"ours: {ours.about['versions']}"] = about[f"peer: {peer.about['versions']}"] = None
    about[ours.about["device"]] = None
    if row.unit == "regions/s":
        amounts = [batch * row.regions, case["peer_images"] * row.regions]
    else:
        amounts = [batch, batch]
    rates = [[case["steps"] * amounts[side] / each[side] for each in seconds] for side in (0, 1)]
    ratios = [ours / peer for ours, peer in zip(*rates, strict=True)]
    cells = [
        row.title,
        f"{row.model.replace('ViT', 'ViT-')}, batch {batch}",
        row.unit,
        *map(spread, rates),
        spread(ratios),
    ]
    cells += utilisation(
        ours.about, [statistics.median(side) / case["steps"] for side in zip(*seconds, strict=True)], device
    )
    return "| " + " | ".join(cells) + " |"


def spread(values: list[float]) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def utilisation(about: dict[str, Any], seconds: list[float], device: str) -> list[str]:
    """MFU of both sides from their seconds per step: share of a GPU's bf16 peak, a dash on CPUs."""
    if device == "cpu":
        return ["–", "–"]
    shares = [
        mfu(about[key], each, 1, about["device"]) for key, each in zip(("flops", "peer_flops"), seconds, strict=True)
    ]
    return ["–" if share is None else f"{100 * share:.1f} %" for share in shares]


class Side:
    """A process that answers each round with its seconds; alone on the machine while it does."""

    def __init__(self, name: str, python: str, arguments: list[str], case: dict[str, Any]) -> None:
        env = {**os.environ, **(HUGE_PAGES if case["device"] == "cpu" else {})}
        if case["device"] == "cpu":
            env |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(case["threads"])}
        env |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONPATH": str(HERE.parent)}
        cores = (
            sorted(os.sched_getaffinity(0))[: case["threads"]] if case["device"] == "cpu" else os.sched_getaffinity(0)
        )
        self.name = name
        self.process = subprocess.Popen(
            [python, *arguments, json.dumps(case)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self.about = self._answer()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        if self.process.wait(30):
            raise InputError(f"{self.name} ended with exit code {self.process.returncode}; see its message above")

    def round(self) -> float:
        """Seconds of one round."""
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise InputError(f"{self.name} ended with exit code {self.process.wait(30)}; see its message above")
        return json.loads(line)


def has_gpu() -> bool:
    """Whether JAX sees a GPU; asked in a process of its own, which leaves the GPU to the sides."""
    probe = "import jax; print(jax.default_backend())"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.split()[-1:] == ["gpu"]


def describe(device: str, about: dict[str, Any]) -> str:
    """The sentence below the table: machine, versions, settings."""
    where = f"{THREADS.value} threads, float32" if device == "cpu" else "bfloat16"
    return f"{'; '.join(about)}; {where}; text length {TEXT.value}; median (least to greatest) of alternating rounds."


if __name__ == "__main__":
    run_cli(main)
