"""Segment and name phantoms: the model of `smoke.py` with a mask decoder, minutes on two CPU cores."""

from configs import smoke


def get_config():
    config = smoke.get_config()
    config.workdir = "runs/segment_phantoms"

    config.model.segmenter.update(width=64, heads=4, stride=2, detail=32)
    config.loss.segment = 1.0
    config.segment.update(regions=4, rounds=3, unroll=3)  # convolutions in a loop are slow on CPUs
    config.input.batch_size = 16

    config.eval.kinds = ("mask", "box", "segmented", "point", "none", "crop")
    config.train.steps = 1200
    return config
