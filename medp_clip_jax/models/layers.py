"""The transformer block of CLIP; an image, a text and a region stream walk it with the same weights.

Activations name their logical axes (`constrain`), and `config.mesh.rules` says where those lie. Left to itself, XLA may
split activations over the axis that splits the weights, at many times the memory.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from medp_clip_jax.models.dense import dense, matmul

Array = jax.Array
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # OpenAI's CLIP
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),  # SigLIP's
}
REMAT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def constrain(x: Array, *axes: str | None) -> Array:
    """Lays `x` out by its logical axes, such as batch, tokens, width; without rules, outside training, does nothing."""
    return nn.with_logical_constraint(x, axes)


@flax.struct.dataclass
class KeysValues:
    """What one block's queries look at: keys and values, each [..., batch, tokens, heads, head_dim]."""

    keys: Array
    values: Array


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics, back in the input's dtype."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.eps) * scale + bias).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with CLIP's parameters: one `in_proj` for query, key and value, one `out_proj`."""

    width: int
    heads: int
    depth: int  # blocks in the tower; it scales the initial output projection
    dtype: Any

    def setup(self) -> None:
        std = self.width**-0.5
        self.in_proj_kernel = self.param("in_proj_kernel", nn.initializers.normal(std), (self.width, 3 * self.width))
        self.in_proj_bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * self.width,))
        self.out_proj = dense(
            self.width, kernel_init=nn.initializers.normal(std * (2 * self.depth) ** -0.5), dtype=self.dtype
        )

    def _project(self, x: Array, first: int, last: int) -> list[Array]:
        """Parts `first` to `last` of (query, key, value), each [batch, tokens, heads, head_dim]."""
        columns = slice(first * self.width, last * self.width)
        whole = constrain(self.in_proj_kernel.astype(self.dtype), None, None)  # gathered once for both streams
        kernel, bias = whole[:, columns], self.in_proj_bias[columns].astype(self.dtype)
        parts = jnp.split(constrain(matmul(x, kernel) + bias, "batch", "tokens", "width"), last - first, axis=-1)
        return [part.reshape(*part.shape[:-1], self.heads, -1) for part in parts]

    def __call__(self, x: Array, bias: Array | None = None, causal: bool = False) -> tuple[Array, KeysValues]:
        """Self-attention of x [batch, tokens, width] with an additive logit bias [batch, 1, 1, tokens]."""
        query, key, value = self._project(x, 0, 3)
        return self._attend(query, KeysValues(key, value), bias, causal), KeysValues(key, value)

    def lend(self, x: Array) -> KeysValues:
        """Keys and values of x [batch, tokens, width] for others to read."""
        return KeysValues(*self._project(x, 1, 3))

    def read(self, x: Array, kept: KeysValues, bias: Array | None) -> Array:
        """Attention of x [batch, regions, width] to kept keys and values, bias [batch, heads, regions, tokens]."""
        (query,) = self._project(x, 0, 1)
        return self._attend(query, kept, bias, False)

    def _attend(self, query: Array, kept: KeysValues, bias: Array | None, causal: bool) -> Array:
        mixed = jax.nn.dot_product_attention(query, kept.keys, kept.values, bias=bias, is_causal=causal)
        return self.out_proj(mixed.reshape(*mixed.shape[:-2], self.width))


class Mlp(nn.Module):
    """CLIP's two-layer perceptron."""

    hidden: int
    depth: int
    activation: str
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width = x.shape[-1]
        inner = dense(
            self.hidden, kernel_init=nn.initializers.normal((2 * width) ** -0.5), dtype=self.dtype, name="c_fc"
        )(x)
        inner = ACTIVATIONS[self.activation](constrain(inner, "batch", "tokens", "hidden"))
        init = nn.initializers.normal(width**-0.5 * (2 * self.depth) ** -0.5)
        return dense(width, kernel_init=init, dtype=self.dtype, name="c_proj")(inner)


class Block(nn.Module):
    """One pre-LN block over an image or text stream, a region stream that reads it, or both.

    The region stream's queries see the block's keys and values of the other stream, never each other; those come from
    the same call (one pass) or from an earlier one (`kept`).
    """

    width: int
    heads: int
    depth: int
    mlp_ratio: float
    activation: str
    eps: float
    dtype: Any
    causal: bool = False

    def setup(self) -> None:
        self.ln_1 = LayerNorm(self.eps)
        self.attn = Attention(self.width, self.heads, self.depth, self.dtype)
        self.ln_2 = LayerNorm(self.eps)
        self.mlp = Mlp(int(self.width * self.mlp_ratio), self.depth, self.activation, self.dtype)

    def __call__(
        self,
        streams: tuple[Array | None, Array | None],
        kept: KeysValues | None,
        scale: Array | None,
        coverage: Array | None,
        bias: Array | None,
    ) -> tuple[tuple[Array | None, Array | None], KeysValues | None]:
        """Streams (x [batch, tokens, width], regions [batch, regions, width]) after the block, and x's keys and values.

        `coverage` is the log coverage per key [batch, regions, tokens], `scale` [heads] its learned factor, `bias`
        [batch, 1, 1, tokens] hides the canvas from both streams.
        """
        x, regions = streams
        if x is not None:
            mixed, kept = self.attn(self.ln_1(x), bias, self.causal)
            x = x + mixed
        if regions is not None:  # before x's perceptron: the gradient then never holds both at once
            regions = self._look(regions, kept, _logits(scale, coverage, bias, regions.dtype))
            if x is not None:  # the gradient of the regions then waits for that of x's perceptron
                x, regions = jax.lax.optimization_barrier((x, regions))
        if x is not None:
            x = constrain(x + self.mlp(self.ln_2(x)), "batch", "tokens", "width")
        return (x, regions), (kept if regions is None else None)

    def read(self, x: Array, readers: Array, scale: Array | None, coverage: Array | None, bias: Array | None) -> Array:
        """Tokens `readers` [batch, readers, width] after the block, of x [batch, tokens, width] and regions alike.

        Arguments are those of a call; x only lends its keys and values.
        """
        return self._look(readers, self.attn.lend(self.ln_1(x)), _logits(scale, coverage, bias, x.dtype))

    def _look(self, regions: Array, kept: KeysValues, logits: Array | None) -> Array:
        regions = regions + self.attn.read(self.ln_1(regions), kept, logits)
        return constrain(regions + self.mlp(self.ln_2(regions)), "batch", "tokens", "width")


class AttentionPool(nn.Module):
    """SigLIP's pooling head (MAP, arXiv 2106.04560): a learned probe attends to all features, a perceptron follows.

    A region's probe is the same one plus its prompt embedding, and reads the features through its coverage.
    """

    width: int
    heads: int
    mlp_ratio: float
    activation: str
    eps: float
    dtype: Any

    def setup(self) -> None:
        self.probe = self.param("probe", nn.initializers.normal(self.width**-0.5), (self.width,))
        self.attn = Attention(self.width, self.heads, 1, self.dtype)
        self.ln = LayerNorm(self.eps)
        self.mlp = Mlp(int(self.width * self.mlp_ratio), 1, self.activation, self.dtype)

    def lend(self, x: Array) -> KeysValues:
        """Keys and values of the features x [batch, tokens, width]."""
        return self.attn.lend(x)

    def __call__(
        self, offset: Array, kept: KeysValues, scale: Array | None, coverage: Array | None, bias: Array | None
    ) -> Array:
        """What probes plus `offset` [batch, probes, width] read: [batch, probes, width]; the rest as in `Block`."""
        probes = self.probe.astype(self.dtype) + offset
        mixed = self.attn.read(probes, kept, _logits(scale, coverage, bias, self.dtype))
        return constrain(mixed + self.mlp(self.ln(mixed)), "batch", "tokens", "width")


def _logits(scale: Array | None, coverage: Array | None, bias: Array | None, dtype: Any) -> Array | None:
    """What is added to the attention logits of a region stream: [batch, heads or 1, regions or 1, tokens]."""
    if coverage is None:
        return bias
    logits = scale[:, None, None] * coverage[:, None]
    return (logits if bias is None else logits + bias).astype(dtype)


def stack(
    width: int, heads: int, depth: int, config: Any, mlp_ratio: float, causal: bool = False, activation: str = ""
) -> nn.Module:
    """`depth` blocks as one scanned module: parameters, kept keys and values and `scale` lead with a [depth] axis."""
    activation = activation or config.activation
    block = Block
    if config.remat != "none":
        block = nn.remat(Block, policy=REMAT[config.remat], prevent_cse=False)
    scanned = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, 0, nn.broadcast, nn.broadcast),
        out_axes=0,
        length=depth,
        unroll=config.unroll,
    )
    return scanned(width, heads, depth, mlp_ratio, activation, config.norm_eps, jnp.dtype(config.dtype), causal)


def all_but_last(
    blocks: nn.Module,
    config: Any,
    streams: tuple[Array, Array | None],
    scale: Array | None,
    coverage: Array | None,
    bias: Array | None,
) -> tuple[tuple[Array, Array | None], Callable[..., Array]]:
    """Streams before the last block of a `stack`, and that block as a function (x, readers, coverage, bias) -> readers.

    A tower is left by few of its tokens. What becomes of the others in the last block nobody reads, so that block
    only takes their keys and values: a twelfth of a tower of 12 blocks is saved, and nothing else changes.
    """
    if blocks.is_initializing():
        blocks(streams, None, scale, coverage, bias)  # makes the parameters
    names = ("width", "heads", "depth", "mlp_ratio", "activation", "eps", "dtype", "causal")
    block = Block(**{name: getattr(blocks, name) for name in names}, parent=None)

    def body(layer: Any, streams: Any, context: Any) -> Any:
        params, scale = layer
        return block.apply({"params": params}, streams, None, scale, *context)[0]

    if config.remat != "none":
        body = jax.checkpoint(body, policy=REMAT[config.remat], prevent_cse=False)
    layers = (blocks.variables["params"], scale)
    streams = _walk(body, config.unroll, layers, streams, (coverage, bias))
    params, scale = jax.tree.map(lambda x: x[-1], layers)

    def last(x: Array, readers: Array, coverage: Array | None, bias: Array | None) -> Array:
        return block.apply({"params": params}, x, readers, scale, coverage, bias, method="read")

    return streams, last


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _walk(body: Callable[..., Any], unroll: int, layers: Any, streams: Any, context: Any) -> Any:
    """`streams` after `body(layer, streams, context)` of all layers but the last; leaves of `layers` are [depth, ...].

    Each layer is read where it lies: `layers[:-1]` would be a copy of almost all parameters in every call. A gradient
    wants that copy, as it would otherwise be added up over all layers once per layer.
    """

    def step(streams: Any, index: Array) -> tuple[Any, None]:
        layer = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), layers)
        return body(layer, streams, context), None

    depth = len(jax.tree.leaves(layers)[0])
    return jax.lax.scan(step, streams, jnp.arange(depth - 1), unroll=unroll)[0]


def _walk_copied(body: Callable[..., Any], unroll: int, layers: Any, streams: Any, context: Any) -> Any:
    layers = jax.tree.map(lambda x: x[:-1], layers)
    return jax.lax.scan(lambda streams, layer: (body(layer, streams, context), None), streams, layers, unroll=unroll)[0]


_walk.defvjp(
    lambda body, unroll, *given: jax.vjp(functools.partial(_walk_copied, body, unroll), *given),
    lambda body, unroll, pull, gradient: pull(gradient),
)
