"""Images per second that the training input prepares, beside a PyTorch DataLoader on the same files: a Markdown table.

python -m benchmarks.input_throughput --peer_python=PEERS/bin/python

`PEERS` is an environment with torch, pycocotools, tokenizers and scipy, apart from this one. Both sides make, from the
same encoded bytes, batches of uint8 canvases with the same number of prompted regions, mask maps and tokens: random
view, letterbox, value jitter, prompt simulation, tokenising. On both sides JPEGs are decoded at a fraction of their
size, large images are averaged before they are scaled, and central clicks are searched on the same grid. Either side
may use threads or processes, as many as there are cores; its faster is taken. Rounds alternate, so that both meet the
same machine, and the side that waits is stopped; a ratio is the median over rounds. The table ends with the cores that
accelerators need at the measured rate. It takes some two minutes.
"""

import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags

from benchmarks import input_files
from configs import vitl
from launch.chips import CHIPS
from medp_clip_jax import flops
from medp_clip_jax.errors import InputError, run_cli

PEER = flags.DEFINE_string("peer_python", None, "Python with torch, pycocotools, tokenizers and scipy.", required=True)
KINDS = flags.DEFINE_list("kinds", ["jpeg", "png"], "Files to compare on.")
IMAGES = flags.DEFINE_integer("images", 64, "Different images of each kind.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds of each side.", lower_bound=1)
BATCHES = flags.DEFINE_integer("batches", 8, "Batches per round.", lower_bound=1)
BATCH = flags.DEFINE_integer("batch", 32, "Images per batch.", lower_bound=1)
REGIONS = flags.DEFINE_integer("regions", 8, "Regions per image.", lower_bound=1)
CORES = flags.DEFINE_integer("cores", 2, "Cores for each side.", lower_bound=1)
MEANS = ["threads", "workers"]
OURS = flags.DEFINE_list("ours", MEANS, "What prepares our batches: threads, workers or both to take the faster.")
THEIRS = flags.DEFINE_list("theirs", MEANS, "What prepares the peer's batches, likewise.")
PREFETCH = flags.DEFINE_list("prefetch", ["2"], "Prefetch factors of the peer to try; the fastest is taken.")
FOLDER = flags.DEFINE_string("folder", "", "Keep the files here and use those of an earlier run; default: temporary.")

HERE = pathlib.Path(__file__).parent
UTILISATION = 0.5


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}; flags look like --peer_python=PATH")
    if unknown := {*OURS.value, *THEIRS.value}.difference(MEANS):
        raise InputError(f"--ours and --theirs: expected {' or '.join(MEANS)}, got {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no stopped process stays behind
    with tempfile.TemporaryDirectory() as temporary:
        measured = {kind: measure(kind, pathlib.Path(FOLDER.value or temporary)) for kind in KINDS.value}
    about = dict.fromkeys(name for each in measured.values() for name in each["about"])
    print(f"{'; '.join(about)}; {CORES.value} cores; median (least to greatest) of {ROUNDS.value} rounds.\n")
    print("| files | ours, images/s | peer, images/s | ours / peer | CPU ms per image, ours | peer | by CPU time |")
    print("|" + "---|" * 7)
    for kind, each in measured.items():
        width, height = input_files.SIZES[kind]
        cells = [f"{kind.upper()}, {width} x {height}", spread(each["ours"]), spread(each["peer"])]
        cells += [spread(each["ratio"], 2), spread(each["ours_cpu"], 2), spread(each["peer_cpu"], 2)]
        print(f"| {' | '.join([*cells, spread(each['cpu_ratio'], 2)])} |")
    print(f"\n{needs({kind: 1000 / statistics.median(each['ours_cpu']) for kind, each in measured.items()})}")


def measure(kind: str, folder: pathlib.Path) -> dict[str, Any]:
    """Rounds of both sides on one kind of file, each with its fastest setting: rates, CPU ms per image, ratios."""
    files, corpus = folder / kind, folder / f"{kind}_corpus"
    if not files.exists():
        input_files.write_files(files, kind, IMAGES.value)
        with contextlib.redirect_stdout(sys.stderr):
            input_files.write_corpus(files, corpus)
    case = {
        "folder": str(files), "corpus": str(corpus), "seed": 0, "examples": 1_000_000, "batch": BATCH.value,
        "batches": BATCHES.value, "size": 224, "regions": REGIONS.value, "points": 5, "mask_size": 32, "context": 77,
    }  # fmt: skip
    cores = CORES.value
    settings = {"threads": {"threads": cores, "workers": 0}, "workers": {"threads": 0, "workers": cores}}
    ours = [{**case, **settings[name]} for name in OURS.value]
    peers = [{**case, **settings[name], "prefetch": int(each)} for name in THEIRS.value for each in PREFETCH.value]
    with contextlib.ExitStack() as stack:
        mine = fastest("ours", [sys.executable, "-m", "benchmarks.input_ours"], ours, stack)
        other = fastest("the peer", [PEER.value, str(HERE / "input_peer.py")], peers, stack)
        rounds = [(mine.round(), other.round()) for _ in range(ROUNDS.value)]
    images = BATCH.value * BATCHES.value
    regions = [sum(each[side]["regions"] for each in rounds) / images / len(rounds) for side in (0, 1)]
    result: dict[str, Any] = {"about": [f"ours: {mine.about}", f"peer: {other.about}"]}
    result["about"].append(f"{kind}: {regions[0]:.1f} and {regions[1]:.1f} regions per image")
    for index, side in enumerate(("ours", "peer")):
        result[side] = [images / each[index]["seconds"] for each in rounds]
        result[f"{side}_cpu"] = [1000 * each[index]["cpu"] / images for each in rounds]
    result["ratio"] = [each[1]["seconds"] / each[0]["seconds"] for each in rounds]
    result["cpu_ratio"] = [each[1]["cpu"] / each[0]["cpu"] for each in rounds]
    return result


def fastest(name: str, command: list[str], cases: list[dict], stack: contextlib.ExitStack) -> "Side":
    """The side with the setting that was faster in a trial round."""
    sides = [stack.enter_context(Side(name, [*command, json.dumps(case)])) for case in cases]
    seconds = [side.round()["seconds"] if len(sides) > 1 else 0.0 for side in sides]
    best = seconds.index(min(seconds))
    chosen = {key: cases[best][key] for key in ("threads", "workers", "prefetch") if cases[best].get(key)}
    sides[best].about += f" ({', '.join(f'{key} {value}' for key, value in chosen.items())})"
    return sides[best]


class Side:
    """A group of processes that answers each round; stopped while it has none, as its workers would work ahead."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": ""}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        cores = sorted(os.sched_getaffinity(0))[: CORES.value]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{command[0]}: cannot be run ({error.strerror}); name a Python binary") from None
        self.about = self._answer()
        os.killpg(self.process.pid, signal.SIGSTOP)

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def round(self) -> dict[str, float]:
        """Seconds, CPU seconds and regions of one round."""
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        answer = self._answer()
        os.killpg(self.process.pid, signal.SIGSTOP)
        return answer

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise InputError(f"{self.name} ended with exit code {self.process.wait(30)}; see its message above")
        return json.loads(line)


def needs(rates: dict[str, float]) -> str:
    """Cores per host that a ViT-L/14 with these regions needs at half of the peak, at measured images/s per core."""
    config = vitl.get_config()
    config.input.regions = REGIONS.value
    work = flops.step_flops(config, 1000).model / config.input.batch_size
    v5e = CHIPS["v5e"]
    hosts = {"H100": (flops.peak_flops("NVIDIA H100 80GB HBM3"), 1)}
    hosts[f"v5e host of {v5e.per_host} chips"] = v5e.peak, v5e.per_host
    hosts["v5e host of 8 chips"] = v5e.peak, 8
    lines = [f"| accelerator | images/s at {UTILISATION:.0%} MFU | " + " | ".join(f"cores, {kind}" for kind in rates)]
    lines = [f"{lines[0]} |", "|" + "---|" * (2 + len(rates))]
    for name, (peak, count) in hosts.items():
        images = UTILISATION * peak * count / work
        cells = [name, f"{images:,.0f}", *(f"{images / rate:.1f}" for rate in rates.values())]
        lines.append(f"| {' | '.join(cells)} |")
    per_core = ", ".join(f"{rate:.0f} ({kind})" for kind, rate in rates.items())
    return f"ViT-L/14 with {REGIONS.value} regions per image; images/s per core: {per_core}.\n\n" + "\n".join(lines)


def spread(values: list[float], digits: int = 0) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    run_cli(main)
