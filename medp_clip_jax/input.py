"""Records to training batches: a pure grain chain in which batch i is a function of the configuration and i alone."""

import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags

from medp_clip_jax import augment, prompt_kinds, simulate
from medp_clip_jax.errors import InputError
from medp_clip_jax.loading import ImageCache, Loaded, ShuffledEpochs, load, max_side, region_spans, side_for
from medp_clip_jax.mask_layout import mask_side
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.records import Region, RegionExample
from medp_clip_jax.spans import area_map
from medp_clip_jax.targets import mask_targets

_LEAST_VISIBLE = 0.5  # a region with less of its area in the view is not asked about
_VIEW_TRIES = 4
_IGNORED = (signal.SIGTERM, signal.SIGINT)  # by workers


def text_id(text: str) -> int:
    """Stable id of a caption in [0, 2**31): equal captions, and in practice only those, share it on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def mixture(corpus, config, split: str) -> dict[str, float]:
    """Weight of each source that has images in the split: images ** temperature, or config.data.weights, which then is
    the whole mixture.

    Raises:
      InputError: an unknown source, a weight below zero, or nothing left to draw from.
    """
    weights = dict(config.data.weights)
    for name in (*config.data.sources, *weights):
        if name not in corpus.sources:
            raise InputError(f"config.data names the source {name!r}; the corpus has {', '.join(corpus.sources)}")
    chosen = weights or config.data.sources or corpus.sources
    sizes = {name: len(corpus.source(name, split)) for name in corpus.sources if name in chosen}
    mixed = {name: weights.get(name, size**config.data.temperature) for name, size in sizes.items() if size}
    if any(weight < 0 for weight in mixed.values()):
        raise InputError(f"config.data.weights: expected weights >= 0, got {weights}")
    mixed = {name: float(weight) for name, weight in mixed.items() if weight > 0}
    if not mixed:
        raise InputError(
            f"no images in split {split!r} of sources {', '.join(chosen)}: name other sources or another split"
        )
    return mixed


def _mixed(corpus, config, wrap) -> grain.MapDataset:
    """The endless stream of training records: sources shuffled anew every epoch, drawn by their weights."""
    split, weights = config.data.train_split, mixture(corpus, config, config.data.train_split)
    # the source's name is part of its seed, so that adding a source does not reorder the others
    parts = [
        ShuffledEpochs(
            wrap(corpus.source(name, split)),
            (config.seed, text_id(name)),
            corpus.weights(name, split) if config.data.balanced else None,
        )
        for name in weights
    ]
    return grain.MapDataset.mix([grain.MapDataset.source(part) for part in parts], list(weights.values()))


def region_order(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Random order of the regions: the first of every label comes before the second of any."""
    turn: dict[str, int] = {}
    rounds = []
    for index in rng.permutation(len(labels)).tolist():
        turn[labels[index]] = turn.get(labels[index], -1) + 1
        rounds.append((turn[labels[index]], len(rounds), index))
    return [index for _, _, index in sorted(rounds)]


def _draw(
    example: RegionExample, known, scale, rng: np.random.Generator
) -> tuple[tuple[int, int, int, int], list[int]]:
    """A random view and the regions to ask about in it, in order; it shows the first one unless a few tries fail."""
    order = [
        i for i in region_order([region.label for region in example.regions], rng) if example.regions[i].label in known
    ]
    view = augment.random_view(example.width, example.height, scale, rng)
    for _ in range(_VIEW_TRIES):
        if not order or augment.box_share(example.regions[order[0]].box, view) >= _LEAST_VISIBLE:
            break
        view = augment.random_view(example.width, example.height, scale, rng)
    return view, [i for i in order if augment.box_share(example.regions[i].box, view) > 0]


def _crop(example: RegionExample, region: int, margin: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """The region's box with about the evaluation's margin, as the crop baseline sees it."""
    return augment.with_margin(
        example.regions[region].box, (example.height, example.width), margin * rng.uniform(0.5, 1.5)
    )


def _asks_mask(region: Region, view: Sequence[int], kind: str) -> bool:
    """Whether a prompt of this kind needs the region's mask: a box that the view shows whole is stored."""
    x0, y0, x1, y1 = region.box
    whole = view[0] <= x0 and view[1] <= y0 and x1 <= view[2] and y1 <= view[3]
    return bool(region.rle) and not (kind == "box" and whole)


def _target(loaded: Loaded, index: int, view: tuple[int, int, int, int], kind: str) -> simulate.Target | None:
    region: Region = loaded.example.regions[index]
    if _asks_mask(region, view, kind):
        spans = loaded.masks.get(index) or region_spans(loaded, [index])[0]
        return simulate.see_mask(spans, view, _LEAST_VISIBLE)
    if augment.box_share(region.box, view) < _LEAST_VISIBLE:
        return None
    x0, y0, x1, y1 = region.box
    return simulate.Target((max(x0, view[0]), max(y0, view[1]), min(x1, view[2]), min(y1, view[3])), None)


def _kinds(config) -> tuple[tuple[str, ...], np.ndarray]:
    """Prompt kinds and their cumulative probabilities."""
    shares = dict(config.input.prompt_kinds)
    unknown = set(shares) - set(prompt_kinds.TRAINED)
    if unknown or not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
        raise InputError(
            f"config.input.prompt_kinds: expected shares >= 0 of {', '.join(prompt_kinds.TRAINED)}, got {shares}"
        )
    kinds = tuple(kind for kind in prompt_kinds.TRAINED if shares.get(kind, 0) > 0)
    cumulative = np.cumsum([shares[kind] for kind in kinds])
    return kinds, cumulative / cumulative[-1]


def _element(
    record: Loaded | RegionExample, rng: np.random.Generator, *, config, ontology, tokenizer, index, kinds
) -> dict[str, np.ndarray]:
    """One training example: view, regions and prompts, canvas, caption."""
    example, settings = record.example if isinstance(record, Loaded) else record, config.input
    view, candidates = _draw(example, index, settings.crop_scale, rng)
    labels = np.full(settings.regions, -1, np.int32)
    prompts = simulate.empty_prompts(settings.regions, settings.points, settings.mask_size)
    if settings.view == "crop" and candidates:
        view = _crop(example, candidates[0], config.model.prompt.margin, rng)
        labels[0], prompts["valid"][0] = index[example.regions[candidates[0]].label], True
        candidates = []  # the crop is the prompt
    loaded = record if isinstance(record, Loaded) else load(record, side_for(view, example, config.model.image.size))
    row, shown, slots = 0, [], settings.regions
    exact = np.zeros_like(prompts["masks"])
    drawn = np.searchsorted(kinds[1], rng.random(len(candidates)), side="right").tolist()
    asked = [(candidate, kinds[0][kind]) for candidate, kind in zip(candidates, drawn, strict=True)]
    masks = [i for i, kind in asked[:slots] if _asks_mask(example.regions[i], view, kind)]
    region_spans(loaded, masks)  # together is cheaper
    for candidate, kind in asked:
        if row == slots:
            break
        target = _target(loaded, candidate, view, kind)
        if target is None:
            continue
        simulate.write_simulated(prompts, row, target, view, kind, rng)
        if config.loss.consistency and "mask" not in kind:
            whole = _target(loaded, candidate, view, "mask")
            if whole is not None and whole.spans is not None:
                exact[row] = area_map(whole.spans, view, settings.mask_size)
        labels[row] = index[example.regions[candidate].label]
        shown.append(candidate)
        row += 1
    mirror = augment.may_mirror(example, settings.flips, ontology) and rng.random() < 0.5
    if mirror:
        augment.mirror_prompts(prompts)
        exact = np.ascontiguousarray(exact[..., ::-1])
    width, height = loaded.picture.size
    scale = width / example.width, height / example.height  # of the stored image to its decoded pixels
    table = augment.jitter_table(settings.jitter, rng)
    box = [edge * side for edge, side in zip(view, scale * 2, strict=True)]
    image, rectangle = augment.letterbox(loaded.picture, config.model.image.size, box, table, mirror, gap=1.0)
    told = functools.partial(ontology.caption, example, style=settings.caption, view=view, mirrored=mirror)
    caption = told(rng=rng)
    text = np.asarray(tokenizer([caption], config.model.text.context)[0], np.int32)
    targets = {}
    if config.loss.segment:
        side = mask_side(config.model)
        targets = mask_targets(loaded, shown, view, rectangle, mirror, config.segment.regions, side)
    return {
        "image": image,
        "rectangle": rectangle,
        "label": labels,
        "text": text,
        # By content, not wording: two wordings of one content must not be pushed apart.
        "text_id": np.int32(text_id(told())),
        **prompts,
        **({"exact": exact} if config.loss.consistency else {}),
        **targets,
    }


def stack(elements: Sequence[dict[str, np.ndarray]]) -> dict:
    """Elements to one batch: arrays get a leading batch axis, and those of the prompts become a `RegionPrompts`."""
    batch = {name: np.stack([element[name] for element in elements]) for name in elements[0]}
    fields = [field.name for field in dataclasses.fields(RegionPrompts)]
    return batch | {"prompts": RegionPrompts(**{name: batch.pop(name) for name in fields})}


def train_dataset(corpus, config, tokenizer, bank, process_index: int = 0, process_count: int = 1) -> grain.MapDataset:
    """The training batches of one process: element i is its part of global batch i, the length is config.train.steps.

    A batch holds image uint8 [batch, size, size, 3], rectangle float32 [batch, 4] (where the view lies on the canvas,
    in [0, 1]), prompts `RegionPrompts` [batch, regions, ...] in [0, 1] of the view, label int32 [batch, regions] (row
    of the bank, -1 = padding), text int32 [batch, context], text_id int32 [batch] (equal content shares it) and
    position int32 [batch] (in the global batch), with `loss.segment` what `targets.mask_targets` makes, and with
    `loss.consistency` exact uint8 [batch, regions, mask_size, mask_size], masks of regions that are asked otherwise.
    The examples of a step do not depend on the number of processes: process p of P takes every P-th. InputError where
    the mixture, the prompt kinds or the batch size cannot be used.
    """
    batch_size, steps = config.input.batch_size, config.train.steps
    if batch_size % process_count:
        raise InputError(
            f"config.input.batch_size: {batch_size} does not divide among {process_count} processes; choose a multiple"
        )
    if not 1 <= config.input.mask_size <= 64:
        raise InputError(f"config.input.mask_size: expected 1 to 64, got {config.input.mask_size}")
    limit, wrap = config.input.cache_images, lambda records: records
    if limit:  # pictures that serve every view; without a cache each is decoded as its view needs it
        wrap = functools.partial(ImageCache, max_side=max_side(config), limit=limit, count=[0], lock=threading.Lock())
    index = {label: row for row, label in enumerate(bank.ids)}
    make = functools.partial(
        _element, config=config, ontology=corpus.ontology, tokenizer=tokenizer, index=index, kinds=_kinds(config)
    )
    examples = _mixed(corpus, config, wrap)[: steps * batch_size].seed(config.seed).random_map(make)
    examples = examples.map_with_index(lambda i, example: example | {"position": np.int32(i % batch_size)})
    return examples[process_index::process_count].batch(batch_size // process_count, batch_fn=stack)


def iterate(batches: grain.MapDataset, config) -> Iterator[dict]:
    """Batches in their order, prepared ahead by `config.input.threads` threads, or by so many `workers`: processes.

    A batch is a function of its number, so that threads, workers and the batch to begin with change nothing. Workers
    are worth their start-up and memory where many cores prepare batches: threads share one interpreter.
    """
    threads, workers = config.input.threads, config.input.workers
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    if not workers:
        return iter(batches.to_iter_dataset(options))
    if not flags.FLAGS.is_parsed():  # grain asks for flags of its own, also in programs without any
        flags.FLAGS.mark_as_parsed()
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    several = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    return _from_workers(iter(batches.to_iter_dataset(options).mp_prefetch(several, _start_worker)))


def _from_workers(batches: grain.DatasetIterator) -> Iterator[dict]:
    """Workers inherit what blocks a signal, so that one meant for the job ends none before it ignores them itself."""
    with contextlib.closing(batches):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            first = next(batches)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield first
        yield from batches


def _start_worker(index: int, count: int) -> None:
    """A worker lives as long as the process that it works for, which alone decides what a signal to the job means."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def label_prior(corpus, config, bank, examples: int = 2000) -> np.ndarray:
    """Log prior of the sampled regions over the bank, float32 [labels], with add-one smoothing.

    Runs the region sampler over the first `examples` records of the training stream with the same views, visibility by
    boxes alone; nothing is decoded. It does not depend on the number of processes.
    """
    rng = np.random.default_rng(config.seed)
    index = {label: row for row, label in enumerate(bank.ids)}
    counts = np.ones(len(index))
    records = _mixed(corpus, config, lambda records: records)
    for i in range(examples):
        example = records[i]
        view, candidates = _draw(example, index, config.input.crop_scale, rng)
        visible = [r for r in candidates if augment.box_share(example.regions[r].box, view) >= _LEAST_VISIBLE]
        for region in visible[: 1 if config.input.view == "crop" else config.input.regions]:
            counts[index[example.regions[region].label]] += 1
    return np.log(counts / counts.sum()).astype(np.float32)
