"""Image and regions as tokens for a language model: patches, then one token per region, through a projector.

    python -m examples.multimodal_llm RUN_OR_RELEASE

Patches are those that enter the last block (LLaVA, arXiv 2304.08485, reads the layer before the last one: the last is
shaped by the contrastive loss); regions are their embeddings. The language model itself is yours.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import medp_clip_jax as medp
from data.phantoms import phantom_examples
from medp_clip_jax.errors import run_cli
from medp_clip_jax.records import decode_image

WIDTH = 256  # of the language model's embeddings


def without_last_block(model: medp.Model, params) -> tuple[medp.Model, dict]:
    """The same model with one block less in its image tower: its `.patches` are the penultimate layer's."""
    config = ml_collections.ConfigDict(model.config)
    config.image.depth -= 1
    visual = params["visual"] | {"resblocks": jax.tree.map(lambda x: x[:-1], params["visual"]["resblocks"])}
    return medp.Model(config), params | {"visual": visual}


class Projector(nn.Module):
    """Two layers from the model's spaces into the language model's; patches and regions have one each."""

    @nn.compact
    def __call__(self, patches: jax.Array, regions: jax.Array) -> jax.Array:
        """Tokens [batch, patches + regions, WIDTH]."""
        parts = []
        for name, x in (("patches", patches), ("regions", regions)):
            hidden = nn.gelu(nn.Dense(WIDTH, name=f"{name}_1")(x))
            parts.append(nn.Dense(WIDTH, name=f"{name}_2")(hidden))
        return jnp.concatenate(parts, 1)


def main(argv: list[str]) -> None:
    """Lays out one picture and two of its regions, and says where the tokens go in a prompt."""
    model, params, processor = medp.load(argv[1])
    example = next(iter(phantom_examples("test", 1)))
    images = processor.images(decode_image(example.image))
    boxes = np.array([[region.box for region in example.regions[:2]]])
    prompts = medp.RegionPrompts.from_boxes(boxes, (example.width, example.height))

    features = model.encode_image(params, images)
    regions = model.encode_regions(params, features, prompts)  # [1, 2, dim]
    shorter, fewer = without_last_block(model, params)
    patches = shorter.encode_image(fewer, images).patches  # [1, patches, width]
    shown = np.flatnonzero(~np.asarray(features.canvas[0]))  # patches without any image would be noise
    patches = patches[:, shown]

    projector = Projector()
    weights = projector.init(jax.random.key(0), patches, regions)  # trained together with the language model
    tokens = projector.apply(weights, patches, regions)
    print(f"{tokens.shape[1]} tokens of width {tokens.shape[2]}: {len(shown)} patches, {regions.shape[1]} regions")
    print(f"prompt: <image x {len(shown)}> What is <region 1>? Is it larger than <region 2>?")


if __name__ == "__main__":
    run_cli(main)
