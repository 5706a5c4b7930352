"""The smallest change of a configuration that makes its step fit, found by compiling it."""

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

STRONGER = {"none": ("dots", "full"), "dots": ("full",), "full": ()}
HEADROOM = 2  # how far the estimate of the microbatches may be off before a compilation is skipped wrongly


def smallest_change(config: Any, devices: int, excess: float, needs: Callable[[Any], float], limit: float) -> str:
    """A sentence that names the smallest change which fits, or says that none of those tried does.

    Remat first, which costs recomputation; then microbatches, which cost another forward pass; then the batch, which
    changes what is learned. `needs` compiles a configuration and gives its bytes per device, `excess` is how often
    what varies with the microbatch exceeds the room for it, by which the first number of microbatches is chosen.
    """
    for words, changed in changes(config, devices, excess):
        print(f"does not fit; trying {words} ...", file=sys.stderr, flush=True)
        needed = needs(changed)
        if needed <= limit:
            return f"the smallest change that fits is {words} (compiled: {needed / 2**30:.2f} GiB)"
    return "no remat, number of microbatches or smaller batch that was compiled fits; use more devices"


def changes(config: Any, devices: int, excess: float) -> Iterator[tuple[str, Any]]:
    """Changed configurations with the overrides that make them, the smallest change first."""
    remat = ""
    for policy in STRONGER[config.model.remat]:
        remat = f"--config.model.remat={policy}"
        yield remat, _changed(config, {"model.remat": policy})
    strongest = {"model.remat": "full"}
    local, parts = config.input.batch_size // devices, 2 * config.train.accumulate
    while parts <= local:
        if local % parts == 0 and parts * HEADROOM >= excess * config.train.accumulate:
            words = f"{remat} --config.train.accumulate={parts}".strip()
            yield words, _changed(config, {**strongest, "train.accumulate": parts})
        parts *= 2
    batch = config.input.batch_size // 2
    while batch >= devices and batch % devices == 0:
        if config.input.batch_size / batch * HEADROOM >= excess:
            changed = {**strongest, "input.batch_size": batch, "train.accumulate": 1}
            microbatches = "" if config.train.accumulate == 1 else "--config.train.accumulate=1 "
            yield f"{remat} {microbatches}--config.input.batch_size={batch}".strip(), _changed(config, changed)
        batch //= 2


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    changed = copy.deepcopy(config)
    with changed.unlocked():
        changed.update_from_flattened_dict(changes)
    return changed
