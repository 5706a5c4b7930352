"""The PyTorch side of `benchmarks.input_throughput`: a DataLoader over plain files, with Pillow and pycocotools.

Runs in the peer's Python, which needs torch, pycocotools, tokenizers and scipy and nothing of this repository.
Arguments are one JSON object; then each line on stdin asks for a round, and each line on stdout answers with its
seconds and CPU seconds.
"""

import collections
import concurrent.futures
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
import PIL
import tokenizers
import torch
from input_clock import cpu_seconds
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

PADDING = (123, 117, 104)
KINDS, SHARES = ("mask", "box", "point", "box_point", "mask_box"), np.cumsum([0.3, 0.3, 0.25, 0.075, 0.075])


class Regions(torch.utils.data.Dataset):
    """Random view, letterboxed canvas, up to `regions` prompted regions and caption tokens of image i."""

    def __init__(self, case: dict):
        self.case, self.folder = case, pathlib.Path(case["folder"])
        self.rows = json.loads((self.folder / "annotations.json").read_text())
        self.tokenizer = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(case["context"] - 2)
        self.start, self.end = (self.tokenizer.token_to_id(f"<|{name}oftext|>") for name in ("start", "end"))
        for row in self.rows:
            for region in row["regions"]:
                region["rle"] = region["rle"].encode()

    def __len__(self) -> int:
        return self.case["examples"]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.case["seed"], index))
        row = self.rows[index % len(self.rows)]
        order = distinct_first([region["label"] for region in row["regions"]], rng)
        view = random_view(row["width"], row["height"], rng)
        for _ in range(4):
            if box_share(row["regions"][order[0]]["box"], view) >= 0.5:
                break
            view = random_view(row["width"], row["height"], rng)
        image, rectangle = self.canvas(row, view, rng)
        element = {"image": image, "rectangle": rectangle} | self.prompts(row, view, order, rng)
        ids = self.tokenizer.encode(row["caption"], add_special_tokens=False).ids
        text = np.zeros(self.case["context"], np.int32)
        text[: len(ids) + 2] = [self.start, *ids, self.end]
        return element | {"text": text}

    def canvas(self, row: dict, view: tuple, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The view on a square canvas; a JPEG is decoded at the smallest scale that needs no enlarging."""
        size = self.case["size"]
        scale = size / max(view[2] - view[0], view[3] - view[1])
        w, h = (min(size, max(1, round(side * scale))) for side in (view[2] - view[0], view[3] - view[1]))
        with Image.open(self.folder / row["file"]) as image:
            image.draft(image.mode, (math.ceil(row["width"] * scale), math.ceil(row["height"] * scale)))
            image.load()
        x, y = image.width / row["width"], image.height / row["height"]
        box = (view[0] * x, view[1] * y, view[2] * x, view[3] * y)
        image = image.resize((w, h), Image.Resampling.BILINEAR, box=box, reducing_gap=1.0)
        gamma, contrast = np.exp(rng.uniform(-0.2, 0.2, 2))
        value = (np.linspace(0, 1, 256) ** gamma - 0.5) * contrast + 0.5 + rng.uniform(-0.1, 0.1)
        table = np.clip(np.rint(value * 255), 0, 255).astype(np.uint8).tolist()
        image = image.point(table * len(image.getbands()))
        canvas = Image.new("RGB", (size, size), PADDING)
        x0, y0 = (size - w) // 2, (size - h) // 2
        canvas.paste(image, (x0, y0))
        return np.array(canvas), np.array([x0, y0, x0 + w, y0 + h], np.float32) / size

    def prompts(self, row: dict, view: tuple, order: list[int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Simulated prompts of the first regions of which the view shows half."""
        slots, points, side = self.case["regions"], self.case["points"], self.case["mask_size"]
        made = {
            "label": np.full(slots, -1, np.int32),
            "points": np.zeros((slots, points, 2), np.float32),
            "point_labels": np.full((slots, points), -1, np.int32),
            "boxes": np.zeros((slots, 4), np.float32),
            "box_valid": np.zeros(slots, bool),
            "masks": np.zeros((slots, side, side), np.uint8),
            "mask_valid": np.zeros(slots, bool),
        }
        corner, extent = np.array(view[:2]), np.array([view[2] - view[0], view[3] - view[1]])
        slot = 0
        for index in order:
            region = row["regions"][index]
            if slot == slots:
                break
            if box_share(region["box"], view) == 0:
                continue
            mask, x, y = shown(region, row, view)
            if mask is None:
                continue
            kind = KINDS[int(np.searchsorted(SHARES, rng.random(), side="right"))]
            made["label"][slot] = region["label"]
            if "mask" in kind:
                small = map_of(mask, x - view[0], y - view[1], extent, side)
                made["masks"][slot] = small if rng.random() < 0.5 else sloppy(small, rng)
                made["mask_valid"][slot] = True
            if "box" in kind:
                box = np.array([x, y, x + mask.shape[1], y + mask.shape[0]], np.float64)
                if rng.random() < 0.5:
                    sides = np.tile(box[2:] - box[:2], 2)
                    box += rng.normal(0, rng.uniform(0, 0.15), 4) * sides
                made["boxes"][slot] = np.clip((box - np.tile(corner, 2)) / np.tile(extent, 2), 0, 1)
                made["box_valid"][slot] = True
            if "point" in kind:
                count = 1 if rng.random() < 0.5 else int(rng.integers(2, points + 1))
                for i in range(count):
                    point, label = click(mask, rng, i)
                    made["points"][slot, i] = (np.array(point) + (x, y) - corner) / extent
                    made["point_labels"][slot, i] = label
            slot += 1
        return made


def distinct_first(labels: list[int], rng: np.random.Generator) -> list[int]:
    """Random order in which the first of every label comes before the second of any."""
    seen: dict[int, int] = {}
    ranked = []
    for place, index in enumerate(rng.permutation(len(labels)).tolist()):
        seen[labels[index]] = seen.get(labels[index], -1) + 1
        ranked.append((seen[labels[index]], place, index))
    return [index for _, _, index in sorted(ranked)]


def random_view(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    side = math.sqrt(rng.uniform(0.6, 1.0))
    w, h = round(width * side), round(height * side)
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return x, y, x + w, y + h


def box_share(box: list[float], view: tuple) -> float:
    w = min(box[2], view[2]) - max(box[0], view[0])
    h = min(box[3], view[3]) - max(box[1], view[1])
    return max(w, 0) * max(h, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def shown(region: dict, row: dict, view: tuple) -> tuple[np.ndarray | None, int, int]:
    """The part of a mask in the view, cut to its bounding box, and its corner; None where half of it is not shown."""
    mask = coco_mask.decode({"size": [row["height"], row["width"]], "counts": region["rle"]})
    # The stored box spares a search through the whole picture.
    x0, y0, x1, y1 = (int(edge) for edge in region["box"])
    left, top, right, bottom = max(x0, view[0]), max(y0, view[1]), min(x1, view[2]), min(y1, view[3])
    part = np.ascontiguousarray(mask[top:bottom, left:right])
    if (left, top, right, bottom) == (x0, y0, x1, y1):
        return part, left, top
    if np.count_nonzero(part) < max(0.5 * region["area"], 1):
        return None, 0, 0
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    part = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(part), left + int(columns[0]), top + int(rows[0])


def map_of(mask: np.ndarray, x: int, y: int, extent: np.ndarray, side: int) -> np.ndarray:
    """A cut mask on a side x side map of the view: Pillow's area average of the cells that it touches, never empty."""
    cell = extent / side
    c0, r0 = int(x // cell[0]), int(y // cell[1])
    c1, r1 = min(side, math.ceil((x + mask.shape[1]) / cell[0])), min(side, math.ceil((y + mask.shape[0]) / cell[1]))
    # A picture of whole cells around the mask, so that averages of its border cells count what lies outside.
    left, top = math.floor(c0 * cell[0]), math.floor(r0 * cell[1])
    width, height = math.ceil(c1 * cell[0]) - left, math.ceil(r1 * cell[1]) - top
    around = np.zeros((height, width), np.uint8)
    around[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]] = mask * np.uint8(255)
    box = (c0 * cell[0] - left, r0 * cell[1] - top, min(c1 * cell[0] - left, width), min(r1 * cell[1] - top, height))
    small = np.asarray(Image.fromarray(around).resize((c1 - c0, r1 - r0), Image.Resampling.BOX, box=box))
    made = np.zeros((side, side), np.uint8)
    made[r0:r1, c0:c1] = small
    if not small.any():
        made[
            min(int((y + mask.shape[0] / 2) / cell[1]), side - 1), min(int((x + mask.shape[1] / 2) / cell[0]), side - 1)
        ] = 1
    return made


def sloppy(area: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grown, shrunk or coarser, unless that would multiply or erase the region."""
    choice = rng.integers(3)
    if choice == 2:
        step = 4 if rng.random() < 0.5 else 2
        side = len(area)
        coarse = area.reshape(side // step, step, side // step, step).mean((1, 3))
        return np.ceil(coarse).astype(np.uint8).repeat(step, 0).repeat(step, 1)
    size = 3 if rng.random() < 0.5 else 5
    changed = (ndimage.maximum_filter if choice == 0 else ndimage.minimum_filter)(area, size).astype(np.float32)
    changed = np.rint(area + rng.random() * (changed - area)).astype(np.uint8)
    return changed if 0.5 < changed.sum() / max(area.sum(), 1) < 2 else area


def click(mask: np.ndarray, rng: np.random.Generator, turn: int) -> tuple[tuple[float, float], int]:
    """A click (x, y) on a cut mask: the first inside, half of the time at the centre; later ones may lie outside."""
    if turn and rng.random() < 0.4:
        for x, y in rng.uniform(-0.25, 1.25, (4, 2)) * mask.shape[::-1]:
            if not (0 <= x < mask.shape[1] and 0 <= y < mask.shape[0] and mask[int(y), int(x)]):
                return (x, y), 0
    if turn == 0 and rng.random() < 0.5:
        step = math.ceil(max(mask.shape) / 32)  # the centre of a coarse mask will do
        coarse = mask[::step, ::step]
        if coarse.any():
            distance = ndimage.distance_transform_edt(np.pad(coarse, 1))[1:-1, 1:-1]
            y, x = divmod(int(distance.argmax()), coarse.shape[1])
            return (x * step + 0.5, y * step + 0.5), 1
    inside = np.flatnonzero(mask)
    y, x = divmod(int(inside[rng.integers(len(inside))]), mask.shape[1])
    return (x + rng.random(), y + rng.random()), 1


def loader(case: dict, workers: int) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(
        Regions(case),
        batch_size=case["batch"],
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=case["prefetch"] if workers else None,
        pin_memory=False,
        drop_last=True,
    )


def threaded(case: dict, threads: int) -> Iterator[dict[str, torch.Tensor]]:
    """Shuffled batches as a DataLoader makes them, in threads, which it does not offer: no batch changes process."""
    data, size = Regions(case), case["batch"]
    order = torch.randperm(len(data)).tolist()

    def made(start: int) -> dict[str, torch.Tensor]:
        return torch.utils.data.default_collate([data[index] for index in order[start : start + size]])

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        ahead: collections.deque = collections.deque()
        for start in range(0, len(order) - size + 1, size):
            ahead.append(pool.submit(made, start))
            if len(ahead) == threads * case["prefetch"]:
                yield ahead.popleft().result()


def main() -> None:
    case = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    threads, workers = case["threads"], case["workers"]
    batches = threaded(case, threads) if threads else iter(loader(case, workers))
    next(batches)
    about = ", ".join(f"{module.__name__} {module.__version__}" for module in (torch, PIL, np, tokenizers))
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        # What was prepared while this side had to wait is not counted.
        for _ in range((threads + workers) * case["prefetch"]):
            next(batches)
        began, cpu = time.perf_counter(), cpu_seconds()
        regions = 0
        for _ in range(case["batches"]):
            regions += int((next(batches)["label"] >= 0).sum())
        answer = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu, "regions": regions}
        print(json.dumps(answer), flush=True)
    sys.stdout.flush()
    os._exit(0)  # threads work ahead for nobody


if __name__ == "__main__":
    main()
