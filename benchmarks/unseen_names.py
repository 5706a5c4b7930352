"""Does a run recognise its regions by names that training never showed it?

    python -m benchmarks.unseen_names --run=runs/smoke --run=runs/smoke_text

Every label of the generated phantoms that has one gets another name (a synonym or a kind of it, `NAMES`), and regions
of the test split, prompted by their masks, are told apart by these names alone. Prints micro and macro accuracy beside
those with the names of the ontology, among the same labels.
"""

import json
import pathlib

import numpy as np
from absl import flags

import medp_clip_jax as medp
from medp_clip_jax.config import load_config
from medp_clip_jax.corpus import ensure_corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.evaluators.encode import encode_corpus, encode_labels
from medp_clip_jax.ontology import Ontology

FLAGS = flags.FLAGS
NAMES = {
    "abscess": "purulent collection",
    "calcification": "chalky deposit",
    "catheter": "drainage tube",
    "cyst": "fluid-filled sac",
    "heart": "cardiac pump",
    "hepatic_vessel": "portal venous branch",
    "kidney_left": "left-sided renal tissue",
    "kidney_lesion": "hypernephroma of the renal cortex",
    "kidney_right": "right-sided renal tissue",
    "liver": "hepatic gland",
    "liver_lesion": "hepatoma",
    "lung_left": "left pulmonary lobe",
    "lung_lesion": "bronchial carcinoma",
    "lung_right": "right pulmonary lobe",
    "lymph_node": "lymphatic gland",
    "spleen": "splenic organ",
    "stomach": "gastric organ",
}


def measure(run: str) -> dict[str, float]:
    """Accuracies of a run by both kinds of names."""
    directory = pathlib.Path(run)
    config = load_config(directory / "config.json")
    model, params, processor = medp.load(directory)
    ontology = Ontology.load(directory / "ontology.json")
    corpus = ensure_corpus(config.data.corpus, config.data.build)
    trained = json.loads((directory / "labels.json").read_text())["labels"]
    labels = [label for label in trained if label in NAMES]
    shown = {text.lower() for node in ontology for text in ontology.sentences(node)}
    for label in labels:
        if any(NAMES[label] in text for text in shown):
            raise InputError(f"{label}: {NAMES[label]!r} stands in a sentence of the run; choose a name that does not")
    encoded = encode_corpus(model, params, corpus, config.eval.split, config, ("mask",))
    rows = {label: row for row, label in enumerate(labels)}
    among = np.array([label in rows for label in encoded.table.label])
    target = np.array([rows[label] for label, here in zip(encoded.table.label, among, strict=True) if here])
    known = encode_labels(model, params, processor.tokenizer, ontology, labels, config.input.label_context)
    tokens = processor.tokenizer([NAMES[label] for label in labels], config.input.label_context)
    unseen = np.asarray(model.encode_text(params, tokens))
    figures = {"labels": len(labels), "regions": len(target)}
    for name, text in (("known", known), ("unseen", unseen)):
        hits = (encoded.regions["mask"][among] @ np.asarray(text).T).argmax(-1) == target
        figures[f"{name} micro"] = float(hits.mean())
        figures[f"{name} macro"] = float(np.mean([hits[target == row].mean() for row in np.unique(target)]))
    return figures


def main(argv: list[str]) -> None:
    """Prints a line per run."""
    if len(argv) > 1 or not FLAGS.run:
        raise InputError("expected --run=DIRECTORY, once or more often")
    for run in FLAGS.run:
        print(run, ", ".join(f"{name} {value:.3f}" for name, value in measure(run).items()), flush=True)


if __name__ == "__main__":
    flags.DEFINE_multi_string("run", [], "Directory of a run on the generated phantoms.")
    run_cli(main)
