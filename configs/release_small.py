"""The shipped model: Ti/16 at 160 px with MiniLM as frozen text tower, on sources whose licences permit it.

`make release-small` builds its corpus, trains, exports and evaluates it.
"""

from configs import common

# What `../shared/regions/release_allowlist.txt` names: a permissive licence is stated by the source or its mirror.
ALLOWED = (
    "bccd",
    "brisc2025_brain_mri",
    "ccaus_carotid",
    "dsb2018_nuclei",
    "hvsmr2_cardiac_mri",
    "idrid",
    "mni152_template",
    "sct_spinal_cord",
    "spider_lumbar_mri",
    "totalseg_examples",
)


def get_config(init: str = "imports/minilm"):
    config = common.get_config()
    config.workdir = "runs/medp-clip-small"

    config.data.corpus = "corpora/release"
    config.data.sources = (*ALLOWED, "phantoms")
    config.data.temperature = 0.5

    config.model = common.variant("Ti/16@160")
    config.model.unroll = 4
    config.model.prompt.context = 0.75
    common.use_sentence_encoder(config, init)

    config.input.batch_size = 32
    config.input.regions = 6
    config.input.mask_size = 64
    config.input.crop_scale = (0.5, 1.0)
    config.input.label_variants = 8
    config.input.label_context = 16
    config.input.cache_images = 2000

    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.1

    config.train.steps = 1200
    config.train.log_every = 50
    config.train.checkpoint_every = 200
    config.eval.kinds = ("mask", "box", "point", "none")
    return config
