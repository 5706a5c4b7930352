"""Sessions with a simulated user: prompts, answers and corrections about every region with a mask of a split."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from medp_clip_jax import simulate, spans
from medp_clip_jax.eval_input import EvalTable, eval_batches
from medp_clip_jax.evaluators import click_protocols, mask_metrics
from medp_clip_jax.mask_images import on_image
from medp_clip_jax.models import segmenter
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.vit import Images
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.records import encode_mask

STARTS = ("click", "box", "noisy_box")
NOISE, MOST = 0.1, 20.0  # of a noisy box: deviation in sides, and the most that a side moves, in pixels


@dataclasses.dataclass(frozen=True)
class Session:
    """Answers about one region: scores after each prompt, and the clicks, as whole pixels of the image."""

    row: int  # in the table
    dice: list[float]
    iou: list[float]
    nsd: list[float]
    hd95: list[float]
    clicks: list[click_protocols.Click]
    box: tuple[float, ...] | None
    first: bytes  # run lengths of the answer to the first prompt, as records have them


def sessions(
    model: Any,
    params: Any,
    corpus: Any,
    table: EvalTable,
    config: Any,
    start: str,
    clicks: int,
    protocol: str = "center",
    seed: int = 0,
) -> Iterator[Session]:
    """Asks about each region that has a mask, by one of `STARTS`, then corrects up to `clicks` clicks in all.

    Scores are taken on the pixels of the stored image. A region whose answer is perfect gets no more clicks, and keeps
    its scores. A user's dice depend on the seed and the region alone.
    """
    encode, read, ask = _functions(ml_collections.FrozenConfigDict(model.config))
    readers = {name: corpus.source(name, table.split) for name, _ in table.records}
    for batch in eval_batches(corpus, table, config, ()):
        features = encode(params, Images(batch["image"], batch["rectangle"]))
        users = {}
        for place, row in np.ndenumerate(batch["region_row"]):
            if row >= 0 and table.has_mask[row]:
                users[place] = _user(readers, table, int(row), batch["rectangle"][place[0]], start, protocol, seed)
        turns = clicks if start == "click" else 1 + clicks
        prompts = _blank(batch["region_row"].shape, clicks)
        previous = tokens = None
        for turn in range(turns):
            for place, user in users.items():
                user.prompt(prompts, place, turn)
            tokens = read(params, features, prompts) if tokens is None else tokens
            previous = ask(params, features, prompts, tokens, previous)
            logits = np.asarray(jax.device_get(previous))
            for place, user in users.items():
                user.see(logits[place])
        yield from (user.session() for user in users.values())


class _User:
    """One simulated user of one region."""

    def __init__(self, row: int, truth: np.ndarray, rectangle: np.ndarray, start: str, protocol: str, seed: int):
        self.row, self.truth, self.rectangle, self.protocol = row, truth, rectangle, protocol
        self.rng = np.random.default_rng((seed, row))
        self.answer: np.ndarray | None = None
        self.clicks: list[click_protocols.Click] = []
        self.scores: list[tuple[float, float, float, float]] = []
        self.first = b""
        self.box = None if start == "click" else self._box(start)

    def _box(self, start: str) -> tuple[float, ...]:
        rows, columns = np.flatnonzero(self.truth.any(1)), np.flatnonzero(self.truth.any(0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
        if start == "noisy_box":
            height, width = self.truth.shape
            sides = np.tile(box[2:] - box[:2], 2)
            moved = box + np.clip(self.rng.normal(0, NOISE, 4) * sides, -MOST, MOST)
            moved = np.clip(moved, 0, (width, height, width, height))
            box = moved if (moved[2:] - moved[:2] >= 1).all() else box
        return tuple(box.tolist())

    @property
    def perfect(self) -> bool:
        return self.answer is not None and bool((self.answer == self.truth).all())

    def prompt(self, prompts: RegionPrompts, place: tuple[int, ...], turn: int) -> None:
        """Writes the prompt of a turn into the place of the region."""
        height, width = self.truth.shape
        if self.box is not None:
            prompts.boxes[place] = np.divide(self.box, (width, height, width, height))
            prompts.box_valid[place] = True
        if (self.box is not None and turn == 0) or self.perfect:
            return
        x, y, label = click_protocols.click(self.protocol, self.truth, self.answer, self.rng)
        slot = len(self.clicks) if click_protocols.ACCUMULATES[self.protocol] else 0
        self.clicks.append((x, y, label))
        prompts.points[(*place, slot)] = (x + 0.5) / width, (y + 0.5) / height
        prompts.point_labels[(*place, slot)] = label

    def see(self, logits: np.ndarray) -> None:
        """Scores an answer; after a perfect one nobody asks again."""
        if self.perfect:
            self.scores.append(self.scores[-1])
            return
        answer = on_image(logits, self.rectangle, self.truth.shape[::-1]) > 0
        self.first = self.first or encode_mask(answer)
        if self.answer is None or (answer != self.answer).any():
            overlap = mask_metrics.dice(answer, self.truth), mask_metrics.iou(answer, self.truth)
            self.scores.append((*overlap, *mask_metrics.nsd_hd95(answer, self.truth)))
        else:
            self.scores.append(self.scores[-1])
        self.answer = answer

    def session(self) -> Session:
        dice, iou, nsd, hd95 = (list(values) for values in zip(*self.scores, strict=True))
        return Session(self.row, dice, iou, nsd, hd95, self.clicks, self.box, self.first)


def _user(
    readers: dict[str, Any], table: EvalTable, row: int, rectangle: np.ndarray, start: str, protocol: str, seed: int
) -> _User:
    name, record = table.records[table.image_index[row]]
    example = readers[name][record]
    (found,) = spans.read([example.regions[table.region_index[row]].rle], example.height, example.width)
    return _User(row, spans.picture(found, (0, 0, example.width, example.height)), rectangle, start, protocol, seed)


def _blank(shape: Sequence[int], points: int) -> RegionPrompts:
    parts = [simulate.empty_prompts(shape[1], max(points, 1), 1) for _ in range(shape[0])]
    return RegionPrompts(**{name: np.stack([part[name] for part in parts]) for name in parts[0]})


@functools.lru_cache(maxsize=4)
def _functions(config: ml_collections.FrozenConfigDict) -> tuple[Any, Any, Any]:
    """(encode_image, read, ask): what `segment` does; `ask` answers with logits [batch, regions, side, side]."""
    model = MedPCLIP(config)

    @jax.jit
    def encode(params: Any, images: Images) -> Any:
        return model.apply({"params": params}, images, method="encode_image")

    @jax.jit
    def read(params: Any, features: Any, prompts: RegionPrompts) -> jax.Array:
        return model.apply({"params": params}, features, prompts, method="read")[0]

    @jax.jit
    def ask(params: Any, features: Any, prompts: RegionPrompts, tokens: jax.Array, previous: Any) -> jax.Array:
        found = model.apply({"params": params}, features, prompts, tokens, previous, method="decode")
        return segmenter.pick(found.masks, segmenter.choose(found, prompts))

    return encode, read, ask
