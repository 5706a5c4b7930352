"""Segment real regions on two CPU cores: a mask decoder on the frozen towers that `regions_cpu.py` trained.

    python -m medp_clip_jax.export runs/regions_cpu --output=releases/regions_cpu
    python -m medp_clip_jax.train --config=configs/segment_regions.py:tokens,releases/regions_cpu

Region embeddings stay as they were, to the bit. Two decoders to compare with train by the same file, for the same
minutes: `:sam,RELEASE`, on the last patches of the same towers, and `:unet,RELEASE`, on pixels and clicks alone. The
latter needs no tower, and trains for the minutes of the towers, too. How good they get is in docs/results.md.
"""

from configs import regions_cpu

STEPS = {"tokens": 1800, "sam": 2700, "unet": 700}  # about 30 minutes of a CPU core; U-Net: and the towers'
RATES = {"tokens": 1.2e-3, "sam": 1.2e-3, "unet": 3e-3}  # by training losses; at 3e-3 SAM's learns nothing


def get_config(decoder: str = "tokens,releases/regions_cpu"):
    config = regions_cpu.get_config()
    kind, _, config.init = decoder.partition(",")
    config.workdir = f"runs/segment_regions_{kind}"

    config.model.segmenter.update(kind=kind, width=128, heads=4, stride=4, detail=32)
    config.model.segmenter.depth = 2 if kind == "sam" else 1  # SAM's own, and the default
    config.loss.update(segment=1.0, image_text=0.0, region_to_text=0.0, text_to_region=0.0)  # the decoder alone
    config.segment.detach = True
    config.optim.learning_rate = RATES.get(kind, 1.2e-3)
    config.optim.frozen = ("visual", "text", "fusion")
    config.segment.update(regions=4, rounds=3, unroll=3, absent=0.0)  # convolutions in a loop are slow on CPUs
    config.input.batch_size = 8
    config.eval.kinds = ("mask", "box", "segmented", "point", "none", "crop") if kind == "tokens" else ("mask",)

    config.train.steps = STEPS.get(kind, 1800)
    return config
