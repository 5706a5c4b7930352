"""What a run directory holds besides its checkpoints, so that it can be used without its corpus."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from medp_clip_jax.config import save_config
from medp_clip_jax.corpus import Corpus
from medp_clip_jax.labels import LabelBank
from medp_clip_jax.tokenizer import Tokenizer


def save_run_files(
    workdir: Path, config: Any, tokenizer: Tokenizer, corpus: Corpus, labels: LabelBank, sources: Collection[str]
) -> None:
    """Writes `config.json`, `tokenizer.json`, `ontology.json` and `labels.json` (the bank, what was trained on)."""
    save_config(config, workdir / "config.json")
    tokenizer.save(workdir / "tokenizer.json")
    corpus.ontology.save(workdir / "ontology.json")
    described = {
        "labels": list(labels.ids),
        "train_regions": corpus.label_counts(config.data.train_split, sources),
        "sources": sorted(sources),
    }
    (workdir / "labels.json").write_text(json.dumps(described, indent=1) + "\n")
