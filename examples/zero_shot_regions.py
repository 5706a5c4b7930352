"""Names regions with labels that nobody trained a classifier for.

python -m examples.zero_shot_regions RUN_OR_RELEASE
"""

import collections

import jax.numpy as jnp

import medp_clip_jax as medp
from examples.phantom_regions import embedded
from medp_clip_jax.errors import run_cli


def main(argv: list[str]) -> None:
    """Embeds regions and labels, and takes the label with the highest probability."""
    regions, truth, (model, params, processor) = embedded(argv[1], "test", 20)
    labels = sorted(set(truth))
    text = model.encode_text(params, processor.tokens([label.replace("_", " ") for label in labels]))
    scores = medp.classify(jnp.asarray(regions), text, params)  # [regions, labels]
    named = [labels[best] for best in scores.argmax(-1)]
    right = sum(name == label for name, label in zip(named, truth, strict=True))
    print(f"{right} of {len(truth)} regions named right among {len(labels)} labels")
    wrong = collections.Counter((label, name) for label, name in zip(truth, named, strict=True) if label != name)
    for (label, name), count in wrong.most_common(3):
        print(f"  {count} x {label} taken for {name}")


if __name__ == "__main__":
    run_cli(main)
