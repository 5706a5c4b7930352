"""How fast a corpus is built, how large it gets, and in how much memory, on synthetic images of 15 regions each.

    python -m benchmarks.corpus_build        # needs pip install ".[beam]", or --nobeam

builds 2,000, 6,000 and 20,000 images (is time linear and memory flat?), pairs of builds with 1 and 2 workers, one of
200,000 images with 3 million regions, and one on Beam's local runner; extrapolates to 6.4 million images with 97.3
million regions. Each build is a process of its own; its memory is the sum of the resident memory of its process tree,
pages that processes share counted once for each.
"""

import collections
import io
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import psutil
from absl import flags
from PIL import Image

from data.assembly import build_corpus
from data.report import Report
from data.sources import Items, Source
from data.sources.regions import tight_box
from medp_clip_jax.corpus import Corpus, open_corpus
from medp_clip_jax.errors import run_cli
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.records import Region, RegionExample, decode_image, encode_mask

REGIONS, SIDE, LABELS = 15, 64, 200
TARGET_IMAGES, TARGET_REGIONS = 6_400_000, 97_300_000
BEAM = ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def image(index: int) -> Iterator[RegionExample]:
    """Image `index`: noise with 15 bright ellipses, encoded as PNG and decoded again as adapters do to check a file;
    masks are encoded and boxes are found as for mask files."""
    rng = np.random.default_rng(index)
    pixels = rng.integers(0, 64, (SIDE, SIDE), dtype=np.uint8)
    y, x = np.ogrid[:SIDE, :SIDE]
    centres, radii = rng.uniform(6, SIDE - 6, (REGIONS, 2)), rng.uniform(2, 10, (REGIONS, 2))
    regions = []
    for (cx, cy), (rx, ry), label in zip(centres, radii, rng.integers(LABELS, size=REGIONS).tolist(), strict=True):
        mask = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1
        pixels[mask] += 10
        box = tight_box(mask)
        assert box is not None
        regions.append(Region(f"label_{label}", box, encode_mask(mask), float(np.count_nonzero(mask))))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", compress_level=1)
    assert decode_image(png.getvalue()).shape[:2] == (SIDE, SIDE)
    yield RegionExample(
        png.getvalue(), SIDE, SIDE, dataset="synthetic", image_id=f"image_{index}", group=f"patient_{index // 10}",
        modality=("ct", "mri", "x-ray")[index % 3], anatomy="", view="", caption="", image_labels=(),
        regions=tuple(regions),
    )  # fmt: skip


def build(count: int, output: pathlib.Path, workers: int, beam: Sequence[str]) -> Corpus:
    """Builds a corpus of `count` such images."""
    items = {"train": Items(range(count), image)}
    source = Source(
        "synthetic", "benchmark", f"{count}", {"train": items["train"].stream}, {"origin": "generated"}, items=items
    )
    ontology = Ontology([Node(f"label_{label}", f"label {label}") for label in range(LABELS)])
    return build_corpus(output, [lambda _: source], ontology, Report(), workers, beam)


def measure(count: int, workers: int, folder: pathlib.Path, beam: bool = False) -> dict[str, float | str]:
    """Builds in a process of its own and returns seconds, peak memory, sizes and checksum."""
    output = folder / f"corpus_{count}_{workers}_{beam}"
    command = [sys.executable, "-m", "benchmarks.corpus_build", f"--build={count}", f"--output={output}"]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, f"--workers={workers}", f"--beam={beam}"], stdout=subprocess.DEVNULL)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    if process.wait():
        sys.exit("error: the build failed")
    seconds = time.perf_counter() - begin
    watcher.join()
    corpus = open_corpus(output)
    entry = corpus.manifest["sources"]["synthetic"]
    sample = corpus.source("synthetic", "train")[:: max(1, count // 500)]
    result = {
        "images": count, "workers": workers, "seconds": seconds, "peak_mib": peak[0] / 2**20,
        "bytes": sum(entry["files"].values()), "regions": entry["splits"]["train"]["regions"],
        "png_bytes": statistics.mean(len(record.image) for record in sample), "shards": len(entry["files"]),
        "checksum": entry["checksum"],
    }  # fmt: skip
    shutil.rmtree(output)
    return result


def _watch(pid: int, peak: list[int]) -> None:
    """Keeps the largest resident memory of a process and all below it, looked at ten times a second."""
    process = psutil.Process(pid)
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        total = 0
        try:
            for one in [process, *process.children(recursive=True)]:
                total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # ended meanwhile: look again
        peak[0] = max(peak[0], total)
        time.sleep(0.1)


def table(results: Sequence[dict]) -> Iterator[str]:
    """Markdown rows of measured builds."""
    yield "| images | regions | workers | s | images/s | bytes/image | PNG alone | bytes/region | peak MiB | shards |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for r in results:
        of_region = (r["bytes"] / r["images"] - r["png_bytes"]) / REGIONS
        cells = [
            f"{r['images']:,}", f"{r['regions']:,}", r["workers"], f"{r['seconds']:.1f}",
            f"{r['images'] / r['seconds']:.0f}", f"{r['bytes'] / r['images']:.0f}", f"{r['png_bytes']:.0f}",
            f"{of_region:.0f}", f"{r['peak_mib']:.0f}", r["shards"],
        ]  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def extrapolate(large: dict, speed_up: float) -> Iterator[str]:
    """What the largest build says of the whole."""
    hours = large["seconds"] / large["images"] * TARGET_IMAGES / 3600
    around = (large["bytes"] / large["images"] - large["png_bytes"]) / REGIONS * TARGET_REGIONS
    each = TARGET_REGIONS / TARGET_IMAGES
    yield f"{TARGET_IMAGES:,} images with {TARGET_REGIONS:,} regions ({each:.1f} each), assuming that"
    yield f"- an image takes as long as one of {SIDE} px with {REGIONS} regions does among {large['images']:,}:"
    yield f"  {hours:.1f} hours with {large['workers']} workers; reading and decoding larger files comes to that;"
    yield f"- cores add up, as the second adds {speed_up - 1:.2f}: {hours * large['workers'] / 64:.1f} hours on 64;"
    yield f"- a region takes as many bytes: {around / 1e9:.0f} GB; the image files as they are come to that;"
    yield "- memory stays flat, but for what an adapter keeps of its tables."


def define_flags() -> None:
    """The command line."""
    flags.DEFINE_list("sizes", ["2000", "6000", "20000"], "Images of the builds that show how time and memory grow.")
    flags.DEFINE_integer("large", 200_000, "Images of the large build; 0: none.")
    flags.DEFINE_integer("pairs", 5, "Pairs of builds with one worker and with two.")
    flags.DEFINE_integer("pair_size", 20_000, "Images of these.")
    flags.DEFINE_integer("workers", 2, "Workers of the other builds.")
    flags.DEFINE_bool("beam", True, "Build on Beam's local runner, too, and compare.")
    flags.DEFINE_string("folder", "", "Where to build; a temporary folder if not given.")
    flags.DEFINE_string("json", "", "Write the measurements to this file, too.")
    flags.DEFINE_integer("build", 0, "Only build a corpus of so many images at --output.")
    flags.DEFINE_string("output", "", "Corpus directory of --build.")


def main(argv: Sequence[str]) -> None:
    """Measures and prints."""
    values = flags.FLAGS
    if values.build:
        build(values.build, pathlib.Path(values.output), values.workers, BEAM if values.beam else ())
        return
    with tempfile.TemporaryDirectory(dir=values.folder or None) as name:
        folder = pathlib.Path(name)
        beam = measure(int(values.sizes[0]), 2, folder, beam=True) if values.beam else None  # first: it may be missing
        results = [measure(int(size), values.workers, folder) for size in values.sizes]
        ratios, checksums = [], collections.defaultdict(set)
        for _ in range(values.pairs):  # taken in turns, so that what else the machine does meets both
            pair = [measure(values.pair_size, workers, folder) for workers in (1, 2)]
            ratios.append(pair[0]["seconds"] / pair[1]["seconds"])
            checksums[values.pair_size] |= {result["checksum"] for result in pair}
        if values.large:
            results.append(measure(values.large, values.workers, folder))
        print("\n".join(table(results)))
        slowest, fastest = (pick(r["seconds"] / r["images"] for r in results) for pick in (max, min))
        print(f"\ntime per image: {1000 * fastest:.2f} to {1000 * slowest:.2f} ms; start-up is part of it")
        if ratios:
            print(
                f"2 workers against 1, {values.pair_size:,} images: {statistics.median(ratios):.2f} times as fast "
                f"(median of {', '.join(f'{ratio:.2f}' for ratio in ratios)}), "
                f"{'equal' if len(checksums[values.pair_size]) == 1 else 'DIFFERENT'} files"
            )
        if beam:
            same = beam["checksum"] == results[0]["checksum"]
            print(f"Beam's local runner, 2 workers: {'equal' if same else 'DIFFERENT'} files ({beam['seconds']:.1f} s)")
        print("\n" + "\n".join(extrapolate(results[-1], statistics.median(ratios or [1.0]))))
    if values.json:
        pathlib.Path(values.json).write_text(json.dumps({"builds": results, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    define_flags()
    run_cli(main)
