"""The label bank: every label's sentences as tokens, encoded once per step and shared by the whole batch."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class LabelBank:
    """`ids` of the labels, `tokens` int32 [labels, variants, length], `excluded` bool [labels, labels]."""

    ids: tuple[str, ...]
    tokens: np.ndarray
    excluded: np.ndarray

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Row of each label id."""
        return {node_id: row for row, node_id in enumerate(self.ids)}


def make_bank(ontology: Ontology, ids: Sequence[str], tokenizer: Tokenizer, variants: int, length: int) -> LabelBank:
    """Tokenises the first `variants` sentences of each label, repeated in turn where a label has fewer.

    Raises InputError when an id is unknown or given twice, there is no id, or variants < 1.
    """
    if not ids or len(set(ids)) != len(ids) or variants < 1:
        raise InputError(f"label bank: expected distinct ids, variants >= 1; got {len(ids)} ids, {variants} variants")
    excluded = ontology.excluded(ids)
    texts = []
    for node_id in ids:
        lines = ontology.sentences(node_id)
        texts += [lines[i % len(lines)] for i in range(variants)]
    tokens = tokenizer(texts, length).reshape(len(ids), variants, length)
    return LabelBank(tuple(ids), tokens, excluded)
