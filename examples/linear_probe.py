"""Learns labels from region embeddings: a linear probe on all regions, and prototypes from a few.

python -m examples.linear_probe RUN_OR_RELEASE
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.phantom_regions import embedded
from medp_clip_jax.errors import run_cli

SHOTS = (1, 4)


def probe(x: np.ndarray, y: np.ndarray, classes: int, steps: int = 300) -> dict[str, jax.Array]:
    """Weights and biases of multinomial logistic regression, with a little weight decay."""
    params = {"w": jnp.zeros((x.shape[1], classes)), "b": jnp.zeros(classes)}
    optimizer = optax.adamw(0.05, weight_decay=1e-4)

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(x @ params["w"] + params["b"], y).mean()

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def few_shot(x: np.ndarray, y: np.ndarray, classes: int, shots: int) -> np.ndarray:
    """Mean embedding [classes, dim] of the first `shots` regions of each class."""
    means = np.stack([x[y == label][:shots].mean(0) for label in range(classes)])
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def main(argv: list[str]) -> None:
    """Prints the accuracy of both on regions of other pictures."""
    x, names, _ = embedded(argv[1], "train", 60)
    x_test, names_test, _ = embedded(argv[1], "test", 20)
    classes = sorted(set(names))
    known = np.array([name in classes for name in names_test])
    y, y_test = (np.array([classes.index(name) for name in some if name in classes]) for some in (names, names_test))
    x_test = x_test[known]
    params = probe(x, y, len(classes))
    print(f"linear probe on {len(y)} regions: {np.mean((x_test @ params['w'] + params['b']).argmax(-1) == y_test):.1%}")
    for shots in SHOTS:
        found = (x_test @ few_shot(x, y, len(classes), shots).T).argmax(-1)
        print(f"prototypes of {shots} regions per label: {np.mean(found == y_test):.1%}")


if __name__ == "__main__":
    run_cli(main)
