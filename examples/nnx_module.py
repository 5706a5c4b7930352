"""The model inside an NNX module: a head of one's own on region embeddings, trained while the towers rest.

python -m examples.nnx_module RUN_OR_RELEASE
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import medp_clip_jax as medp
from data.phantoms import phantom_examples
from medp_clip_jax.errors import run_cli
from medp_clip_jax.records import decode_image


class RegionSize(nnx.Module):
    """Says how much of the image a region covers, as a stand-in for whatever you want to predict."""

    def __init__(self, model: medp.Model, params, rngs: nnx.Rngs):
        self.model = model  # holds no state
        self.towers = nnx.data(jax.tree.map(nnx.Param, params))  # a dict of parameters becomes part of the module
        self.head = nnx.Linear(model.config.embed, 1, rngs=rngs)

    def __call__(self, images: medp.Images, prompts: medp.RegionPrompts) -> jax.Array:
        """Predictions [batch, regions]."""
        params = jax.tree.map(lambda x: x[...], self.towers, is_leaf=lambda x: isinstance(x, nnx.Variable))
        features = self.model.encode_image(params, images)
        return self.head(self.model.encode_regions(params, features, prompts))[..., 0]


@nnx.jit
def train_step(module: RegionSize, optimizer: nnx.Optimizer, images, prompts, target) -> jax.Array:
    """One update of the head; returns the loss."""
    heads = nnx.DiffState(0, nnx.All(nnx.Param, nnx.PathContains("head")))  # no gradient for the towers

    def loss(module):
        return jnp.square(module(images, prompts) - target).mean()

    value, gradients = nnx.value_and_grad(loss, argnums=heads)(module)
    optimizer.update(module, gradients)
    return value


def main(argv: list[str]) -> None:
    """Trains the head on the first region of some pictures."""
    model, params, processor = medp.load(argv[1])
    examples = list(phantom_examples("train", 16))
    boxes = np.array([[example.regions[0].box] for example in examples])
    sizes = np.array([(example.width, example.height) for example in examples])
    prompts = medp.RegionPrompts.from_boxes(boxes, sizes)
    images = processor.images([decode_image(example.image) for example in examples])
    target = np.prod(boxes[..., 2:] - boxes[..., :2], -1) / sizes.prod(-1, keepdims=True)
    module = RegionSize(model, params, nnx.Rngs(0))
    heads = nnx.All(nnx.Param, nnx.PathContains("head"))
    optimizer = nnx.Optimizer(module, optax.adam(0.03), wrt=heads)
    losses = [float(train_step(module, optimizer, images, prompts, target)) for _ in range(40)]
    print(f"squared error of the region's share of the image: {losses[0]:.4f} before, {losses[-1]:.4f} after")


if __name__ == "__main__":
    run_cli(main)
