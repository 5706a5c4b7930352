"""Settings that train for the same FLOPs: who takes more for a step takes fewer steps."""

from collections.abc import Callable, Mapping
from typing import Any

from medp_clip_jax.flops import step_flops


def equal_compute(
    make_config: Callable[[], Any], ways: Mapping[str, Mapping[str, Any]], labels: int, share: float = 1.0
) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The settings of a sweep: titles and fields, with `train.steps` by the FLOPs of a step and a bank of `labels`.

    `ways` are the fields that each title changes in the configuration; the first one trains for a `share` of its steps.
    """
    flops = {}
    for title, fields in ways.items():
        config = make_config()
        config.update_from_flattened_dict(fields)
        flops[title] = step_flops(config, labels).model
    budget = share * make_config().train.steps * next(iter(flops.values()))
    return tuple((title, {**fields, "train.steps": round(budget / flops[title])}) for title, fields in ways.items())
