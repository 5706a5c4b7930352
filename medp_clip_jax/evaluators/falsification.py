"""What would show that prompts cost the global view: image-level metrics with and without prompts, for any fusion.

    python -m medp_clip_jax.evaluators.falsification --checkpoint=RUN_OR_RELEASE --data=CORPUS_OR_FOLDER

Every image is asked four ways: without a prompt, with its smallest region, with a wrong prompt (a box of that region's
size where the least is annotated), and with sixteen prompts at once: sixteen of its regions, the smallest among
them, or those of fewer in turn until there are sixteen. Two embeddings answer for the image: the global one of the
same pass, which may not change at all, and the region embeddings themselves (their mean), which show how much of the
image a prompt leaves. Prints a table and writes `falsification.json`. With `eval.falsification` the
evaluation after a training, and so every cell of a sweep, has these numbers in its results.json.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags, logging

from medp_clip_jax import results, statistics
from medp_clip_jax.errors import run_cli
from medp_clip_jax.eval_input import EvalTable, eval_batches, eval_table, some_regions
from medp_clip_jax.evaluate import define_flags, from_flags, sentences_of
from medp_clip_jax.evaluators import prompt_record, wrong_places, zero_shot
from medp_clip_jax.evaluators.encode import Encoded, encode_labels
from medp_clip_jax.models.clip import Images, MedPCLIP
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.prompts import RegionPrompts

FLAGS = flags.FLAGS
FILE = "falsification.json"
ASKED = ("none", "small", "wrong", "sixteen")
MANY = 16


def evaluate(
    model: Any,
    params: Any,
    tokenizer: Any,
    corpus: Any,
    split: str,
    config: Any,
    ontology: Ontology,
    seed: int = 0,
    replicates: int = 1000,
) -> dict[str, Any]:
    """Image-level metrics per way of asking, as plain values for JSON: `{"global": {way: {metric: value}}, "region":
    ..., "change": {way: largest difference of the global embedding to that without prompts}, "intervals": {way: {data
    set's metric: interval}}}`, the last over patient groups and of the region embeddings.

    Metrics are those of `zero_shot`: means over data sets of image labels (`image/...`) and of annotated structures
    (`presence/...`). Images without any region are left out. Raises InputError where the split has no images.
    """
    table = eval_table(corpus, split, tuple(config.data.sources) or None)
    prompts: dict[str, list[int]] = {way: [] for way in ASKED}
    kept, answers = embed(model, params, corpus, table, config, seed, prompts)
    asked = some_regions(table, np.arange(len(table.label)))
    ids = sorted({*table.label, *(label for image in asked.images for label in image.image_labels)})
    text = encode_labels(model, params, tokenizer, ontology, ids, config.input.label_context)

    def metrics(embedding: np.ndarray, replicates: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
        flat, details = zero_shot.evaluate(Encoded(asked, embedding, {}), text, ids, replicates, seed)
        means = {name: statistics.rounded(value) for name, value in flat.items() if name.count("/") == 1}
        intervals = {
            f"{task}/{name}/{metric}": {bound: statistics.rounded(value) for bound, value in interval.items()}
            for task, sets in details.items()
            for name, entry in sets.items()
            for metric, interval in entry["intervals"].items()
        }
        return means, intervals

    plain = answers["none"]["global"]
    numbers: dict[str, Any] = {"global": {}, "region": {}, "change": {}, "intervals": {}}
    for way, found in answers.items():
        numbers["global"][way], _ = metrics(found["global"])
        numbers["region"][way], numbers["intervals"][way] = metrics(found["region"], replicates)
        numbers["change"][way] = float(np.abs(found["global"] - plain).max(initial=0))
    return {
        "data": {"name": corpus.directory.name, "split": split, "images": len(kept)},
        "fusion": config.model.fusion,
        "seed": seed,
        "prompts": {way: prompt_record.combined(np.array(each, np.uint64)) for way, each in prompts.items()},
        "sentences": results.words(sentences_of(ontology, ids)),
        **numbers,
    }


def flat(numbers: dict[str, Any]) -> dict[str, float]:
    """The numbers of `evaluate` as metrics of a results.json, such as `falsification/region/sixteen/presence/auroc`;
    `falsification/change` is the largest change of the global embedding by any prompt."""
    metrics = {
        f"falsification/{embedding}/{way}/{name}": math.nan if value is None else value
        for embedding in ("global", "region")
        for way, found in numbers[embedding].items()
        for name, value in found.items()
    }
    return metrics | {"falsification/change": max(numbers["change"].values())}


def embed(
    model: Any,
    params: Any,
    corpus: Any,
    table: EvalTable,
    config: Any,
    seed: int = 0,
    digests: dict[str, list[int]] | None = None,
) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """The rows of the images that have regions, and per way of asking their embeddings `global` and `region`, both
    float32 [images, D] and L2-normalised; `digests` takes those of the prompts of each way, where it is given."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.eval.regions = MANY
    ask = _compiled(ml_collections.FrozenConfigDict(model.config))
    kept, chosen = np.unique(table.image_index), choose(table, seed)
    found = {
        way: {name: np.zeros((len(kept), config.model.embed), np.float32) for name in ("global", "region")}
        for way in ASKED
    }
    for batch in eval_batches(corpus, some_regions(table, chosen), config, ("mask",)):  # a row holds all of an image
        images, filled = Images(batch["image"], batch["rectangle"]), np.flatnonzero(batch["image_row"] >= 0)
        rows = np.where(batch["region_row"] >= 0, chosen[batch["region_row"]], -1)
        for way, prompts in asked_of(batch["prompts"]["mask"], rows, table, seed).items():
            whole, regions = jax.device_get(ask(params, images, prompts))
            found[way]["global"][batch["image_row"][filled]] = whole[filled]
            found[way]["region"][batch["image_row"][filled]] = regions[filled]
            if digests is not None:
                digests[way] += prompt_record.per_region(prompt_record.of_images(prompts, filled)).tolist()
    return kept, found


def choose(table: EvalTable, seed: int) -> np.ndarray:
    """Rows of the regions that are asked, ascending: all of an image or, where it has more than `MANY`, its smallest
    and others drawn by seed."""
    chosen = [np.zeros(0, np.int64)]
    for image in np.unique(table.image_index):
        rows = np.arange(*np.searchsorted(table.image_index, (image, image + 1)))
        smallest = table.area_fraction[rows].argmin()
        others = np.random.default_rng((seed, image)).permutation(np.delete(rows, smallest))[: MANY - 1]
        chosen.append(np.sort([rows[smallest], *others]))
    return np.concatenate(chosen)


@functools.lru_cache(maxsize=4)
def _compiled(config: ml_collections.FrozenConfigDict) -> Any:
    """Global embeddings and normalised means of region embeddings, in the very pass that training makes."""
    module = MedPCLIP(config)

    @jax.jit
    def ask(params: Any, images: Images, prompts: RegionPrompts) -> tuple[jax.Array, jax.Array]:
        tokens = jnp.zeros((len(images.pixels), config.text.context), jnp.int32)
        whole, regions, _ = module.apply({"params": params}, images, prompts, tokens)
        weights = prompts.valid[..., None].astype(regions.dtype)
        mean = (regions * weights).sum(1) / jnp.maximum(weights.sum(1), 1)
        return whole, mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)

    return ask


def asked_of(masks: RegionPrompts, rows: np.ndarray, table: EvalTable, seed: int) -> dict[str, RegionPrompts]:
    """The prompts of each way of `ASKED` from the mask prompts of a batch, whose regions are `rows` int [batch,
    regions] of the table (-1 is padding): one per image, or `MANY`, repeated where there are fewer."""
    batch = len(rows)
    count = (rows >= 0).sum(1)
    area = np.where(rows >= 0, table.area_fraction[rows], np.inf)
    small, many = area.argmin(1)[:, None], np.arange(MANY) % np.maximum(count, 1)[:, None]

    def pick(places: np.ndarray) -> RegionPrompts:
        def take(x: Any) -> np.ndarray:
            x = np.asarray(x)
            return np.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), 1)

        return RegionPrompts(**{f.name: take(getattr(masks, f.name)) for f in dataclasses.fields(masks)})

    wrong = RegionPrompts.none(batch)
    for row in np.flatnonzero(count):
        wrong.boxes[row, 0] = wrong_places.emptiest(table, int(rows[row, small[row, 0]]), seed)
        wrong.box_valid[row, 0] = True
    return {"none": RegionPrompts.none(batch), "small": pick(small), "wrong": wrong, "sixteen": pick(many)}


def screen_table(numbers: dict[str, Any]) -> str:
    """Image-level metrics in % as text: a row per embedding and way of asking."""
    names = list(numbers["global"]["none"])
    lines = [f"{'answered by':<12}{'asked with':<10}" + "".join(f"{name:>26}" for name in names)]
    for embedding in ("global", "region"):
        for way in ASKED:
            cells = [numbers[embedding][way][name] for name in names]
            lines.append(f"{embedding:<12}{way:<10}" + "".join(f"{results.percent(value):>26}" for value in cells))
    most = max(numbers["change"].values())
    return "\n".join([*lines, f"the global embedding changes by at most {most:.1e} in any coordinate"])


def main(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    o = from_flags(argv)
    numbers = evaluate(
        o.model, o.params, o.processor.tokenizer, o.corpus, FLAGS.split, o.config, o.ontology, FLAGS.seed
    )
    origin = results.origin(o.run_dir, o.params)
    heading = results.header(
        o.corpus, FLAGS.split, o.config, origin, numbers["prompts"], numbers["sentences"], FLAGS.seed
    )
    results.write(o.output, heading | numbers | {"data": heading["data"] | numbers["data"]}, FILE)
    print(f"{screen_table(numbers)}\n\n{results.NOTICE}\nnumbers: {o.output / FILE}")


if __name__ == "__main__":
    define_flags()
    run_cli(main)
