"""Segment and name real regions on two CPU cores: `regions_cpu.py` with a mask decoder, on `../shared/regions`.

Two decoders to compare with train by the same file: `:unet` alone, on pixels and clicks, and `:sam,RELEASE` on the
frozen tower of a release (`python -m medp_clip_jax.export runs/regions_cpu --output=RELEASE`).
"""

from configs import regions_cpu


def get_config(decoder: str = "tokens"):
    config = regions_cpu.get_config()
    kind, _, init = decoder.partition(",")
    config.workdir = f"runs/segment_regions_{kind}"

    config.model.segmenter.update(kind=kind, width=128, heads=4, stride=4, detail=32)
    config.loss.segment = 1.0
    config.segment.update(regions=4, rounds=3, unroll=3, absent=0.0)  # convolutions in a loop are slow on CPUs
    config.input.batch_size = 16
    config.eval.kinds = ("mask", "box", "segmented", "point", "none", "crop")
    if kind != "tokens":  # the decoder alone
        config.loss.update(image_text=0.0, region_to_text=0.0, text_to_region=0.0)
        config.segment.detach = True
        config.eval.kinds = ("mask",)  # only masks tell them apart
        config.optim.frozen = ("visual", "text", "fusion")
        config.init = init

    config.train.steps = 3000
    return config
