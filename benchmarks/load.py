"""Time and peak memory of loading ViT-L/14 from disk: `medp.load` beside transformers, in one run.

    python -m benchmarks.load --peer=PYTHON_WITH_TORCH_AND_TRANSFORMERS

Writes random weights of both into a temporary folder, each in its own format, then loads each in fresh processes, by
turns. Peak memory is what the kernel counts for the whole process (`ru_maxrss`), also as a multiple of the weight
file and without what the libraries take before anything is loaded.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

from medp_clip_jax.errors import InputError, run_cli

FLAGS = flags.FLAGS

_MEASURE = """
import json, resource, time
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
{prepare}
before, start = peak(), time.perf_counter()
{load}
print(json.dumps({{"seconds": time.perf_counter() - start, "peak": peak(), "before": before}}))
"""
_OURS = _MEASURE.format(
    prepare="import jax, medp_clip_jax as medp; medp.load; jax.devices()",
    load='model, params, _ = medp.load("{folder}"); jax.block_until_ready(params)',
)
_PEER = _MEASURE.format(
    prepare="from transformers import CLIPModel",
    # A value of every page is read: a memory map that nobody has looked at is not loaded.
    load='model = CLIPModel.from_pretrained("{folder}")\n'
    "for p in model.parameters(): p.detach().flatten()[::1024].sum()",
)
_MAKE_PEER = """
from transformers import CLIPConfig, CLIPModel
text = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
vision = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
              image_size=224, projection_dim=768)
CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)).save_pretrained("{folder}")
"""


def make_ours(folder: pathlib.Path) -> None:
    """A release of a ViT-L/14 with random weights and the vocabulary of OpenAI's CLIP in size."""
    import jax
    import numpy as np

    from configs import common
    from medp_clip_jax import api, release
    from medp_clip_jax.processor import Processor
    from medp_clip_jax.tokenizer import train_tokenizer

    config = common.get_config()
    config.model = common.variant("L/14")
    config.model.text.vocab = 49408
    rng = np.random.default_rng(0)
    shapes = api.Model(config.model).parameter_shapes()
    params = jax.tree.map(lambda x: rng.normal(0, 0.02, x.shape).astype(np.float32), shapes)
    tokenizer = train_tokenizer(["liver"], config.model.text.vocab)

    def fill(part: pathlib.Path) -> None:
        release.write_release(part, config, params, Processor(224, tokenizer, 77))
        release.write_sums(part)

    release.write_whole(folder, fill)


def measure(python: str, program: str, folder: pathlib.Path) -> dict[str, float]:
    """Runs a program in a fresh process: its seconds, and its peak memory in bytes before and after."""
    done = subprocess.run([python, "-c", program.replace("{folder}", str(folder))], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{python}: {done.stderr.strip().splitlines()[-1:] or 'killed'}; see --help")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str]) -> None:
    """Writes both, loads both by turns, prints a table of the fastest loads and the highest peaks."""
    with tempfile.TemporaryDirectory() as temporary:
        made = pathlib.Path(FLAGS.folder or temporary)
        folders = {"medp.load": made / "ours", "transformers": made / "peer"}
        make = "import pathlib, sys; from benchmarks.load import make_ours; make_ours(pathlib.Path(sys.argv[1]))"
        if not folders["medp.load"].exists():
            subprocess.run([sys.executable, "-c", make, folders["medp.load"]], check=True)
        if not folders["transformers"].exists():
            subprocess.run([FLAGS.peer, "-c", _MAKE_PEER.replace("{folder}", str(folders["transformers"]))], check=True)
        commands = {"medp.load": (sys.executable, _OURS), "transformers": (FLAGS.peer, _PEER)}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(FLAGS.rounds):
            for name, (python, program) in commands.items():
                found[name].append(measure(python, program, folders[name]))
        print(f"{'':14}{'file MB':>9}{'seconds':>9}{'peak MB':>9}{'/ file':>8}{'without libraries / file':>26}")
        for name, rounds in found.items():
            size = sum(path.stat().st_size for path in folders[name].glob("*.safetensors"))
            seconds = min(round_["seconds"] for round_ in rounds)
            peak = max(round_["peak"] for round_ in rounds)
            net = max(round_["peak"] - round_["before"] for round_ in rounds)
            print(f"{name:14}{size / 1e6:9.0f}{seconds:9.2f}{peak / 1e6:9.0f}{peak / size:8.2f}{net / size:26.2f}")


if __name__ == "__main__":
    flags.DEFINE_string("peer", sys.executable, "Python that has torch and transformers.")
    flags.DEFINE_string(
        "folder", "", "Where to keep the weights, some 4 GB, for the next time; a temporary one if empty."
    )
    flags.DEFINE_integer("rounds", 3, "Loads of each.", lower_bound=1)
    run_cli(main)
