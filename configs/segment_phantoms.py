"""Segment phantoms: a mask decoder on the frozen towers that `smoke.py` trained, on two CPU cores.

    python -m medp_clip_jax.export runs/smoke --output=releases/smoke
    python -m medp_clip_jax.train --config=configs/segment_phantoms.py:releases/smoke

Another folder is named after the colon. Region embeddings stay as they were, to the bit. How good it gets:
docs/segmentation.md.
"""

from configs import smoke


def get_config(init: str = "releases/smoke"):
    config = smoke.get_config()
    config.workdir = "runs/segment_phantoms"
    config.init = init

    config.model.segmenter.update(width=64, depth=1, heads=4, stride=2, detail=32)
    config.loss.update(segment=1.0, image_text=0.0, region_to_text=0.0, text_to_region=0.0)  # the decoder alone
    config.segment.detach = True
    config.segment.projection = 0.0  # every region has a mask
    config.optim.learning_rate = 3e-3  # a decoder alone learns faster than towers do
    config.optim.frozen = ("visual", "text", "fusion")
    config.segment.update(regions=4, rounds=3, unroll=3)  # convolutions in a loop are slow on CPUs
    config.segment.first.update(point=0.7, box=0.1, noisy_box=0.1)  # clicks say least, and need most practice
    config.input.batch_size = 8

    config.eval.kinds = ("mask", "box", "segmented")  # of the others, smoke.py has told
    config.train.steps = 1700
    return config
