"""Every default, in one place: a config file states only what it changes."""

import pathlib

import ml_collections

# (patch, width, depth, heads) of the image tower, (width, depth, heads) of the text tower: the ViT and CLIP papers.
VARIANTS = {
    "Ti/16": ((16, 192, 12, 3), (192, 12, 3), 192),
    "S/16": ((16, 384, 12, 6), (384, 12, 6), 384),
    "B/32": ((32, 768, 12, 12), (512, 12, 8), 512),
    "B/16": ((16, 768, 12, 12), (512, 12, 8), 512),
    "L/14": ((14, 1024, 24, 16), (768, 12, 12), 768),
    "H/14": ((14, 1280, 32, 16), (1024, 24, 16), 1024),
}


def variant(name: str) -> ml_collections.ConfigDict:
    """Model fields of a named variant, `L/14@336` meaning L/14 at 336 px (224 px where no size is named)."""
    name, _, size = name.partition("@")
    (patch, width, depth, heads), (text_width, text_depth, text_heads), embed = VARIANTS[name]
    model = get_config().model
    model.image.update(size=int(size or 224), patch=patch, width=width, depth=depth, heads=heads)
    model.text.update(context=77, width=text_width, depth=text_depth, heads=text_heads)
    model.embed = embed
    if name == "H/14":
        model.activation = "gelu"  # as in open_clip, which published it; the others are OpenAI's
    return model


def get_config() -> ml_collections.ConfigDict:
    """The whole configuration with its defaults; field comments are the reference."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.workdir = ""  # where the run writes; given on the command line or by the config file
    config.init = ""  # folder that `medp_clip_jax.convert` or `export` wrote: parameters to start from; "" = none
    config.compile_cache = ""  # directory that keeps compiled programs for the next start; "" = none

    config.model = ml_collections.ConfigDict(
        {
            "image": {
                "size": 224,  # canvas side in pixels, a multiple of patch
                "patch": 16,
                "width": 384,
                "depth": 12,
                "heads": 6,
                "mlp_ratio": 4.0,
                "patch_drop": 0.0,  # share of the patches that training leaves out (FLIP)
                "pool": "cls",  # cls | map: SigLIP's pooling head instead of [CLS]
                "pre_norm": True,  # layer norm before the blocks; timm's and SigLIP's towers have none
                "patch_bias": False,  # of the patch embedding; timm's and SigLIP's have one
                "projection": True,  # to the joint space; SigLIP's width is the joint space
            },
            "text": {
                "tower": "clip",  # clip | bert
                "context": 77,  # tokens of a text
                "positions": 0,  # rows of the table of positions, where it has more than the context; 0 = as many
                "vocab": 8192,
                "width": 384,
                "depth": 12,
                "heads": 6,
                "mlp_ratio": 4.0,
                "pool": "end",  # clip: end (causal, CLIP) | last (both ways, SigLIP); bert: cls | mean
                "projection": "linear",  # linear (CLIP) | bias (SigLIP) | mlp (BiomedCLIP) | none
                "pad": 0,  # id of the padding
                "activation": "",  # of clip, where it is not the image tower's
            },
            "embed": 384,  # the joint space
            "activation": "quick_gelu",  # quick_gelu | gelu | gelu_tanh; BERT has its own
            "norm_eps": 1e-5,  # 1e-6 in timm's and SigLIP's towers; BERT has its own
            "fusion": "tokens",  # tokens | late | pool | alpha: the others to compare with
            "prompt": {
                "octaves": 8,  # Fourier features per coordinate
                "hidden": 128,  # width of the prompt encoder's layers
                "glimpse": 16,  # side of the resampled window; 0 = no glimpse
                "context": 0.0,  # side of a second glimpse, centred on the region, as a share of the longer image side
                "margin": 0.25,  # of the box, on each side, around the glimpse and around crops
                "click_window": 0.3125,  # side of the window around clicks, as a share of the longer image side
                "bias": True,  # coverage bias on the patch keys
                "bias_from": 0,  # first block that has it
                "tokens": 1,  # per region; their embeddings are averaged
                "glimpse_drop": 0.0,  # share of training regions that go without their glimpse
            },
            "segmenter": {  # the mask decoder
                "kind": "tokens",  # tokens | unet | sam: the latter two to compare with
                "width": 0,  # of its tokens; 0 = no mask decoder
                "depth": 1,  # layers of two-way attention
                "heads": 8,
                "stride": 4,  # of the finest features, in pixels: a power of two; masks are twice as fine
                "detail": 64,  # channels of the finest shared features; half as many per region
            },
            "mean": (0.48145466, 0.4578275, 0.40821073),  # CLIP's, of RGB in [0, 1]
            "std": (0.26862954, 0.26130258, 0.27577711),
            "dtype": "float32",  # of the computation; parameters are float32
            "remat": "none",  # none | dots | full: what the backward pass recomputes in each block
            "unroll": 1,  # blocks per scan iteration
        }
    )

    config.data = ml_collections.ConfigDict(
        {
            "corpus": "",  # a corpus directory, written by `python -m data.build`
            "build": (),  # arguments of `python -m data.build` that make the corpus when it is absent
            "train_split": "train",
            "val_split": "val",
            "sources": (),  # names of the sources to use; empty = all
            "temperature": 0.5,  # a source is drawn with weight images ** temperature
            "weights": ml_collections.ConfigDict({}, type_safe=False),  # source -> weight, instead of the temperature's
            "balanced": False,  # draw a source's images by the weights that `python -m data.curate` left in the corpus
        }
    )

    config.input = ml_collections.ConfigDict(
        {
            "batch_size": 256,  # global
            "regions": 8,  # per image
            "view": "image",  # image | crop: the crop baseline, one region per example and no prompts
            "points": 5,  # click slots per region
            "mask_size": 32,  # side of the uint8 mask map that goes to the device, at most 64
            "crop_scale": (0.6, 1.0),  # share of the image area kept by the random view
            "jitter": 0.2,  # strength of the brightness, contrast and gamma jitter
            "flips": False,  # mirror images of the sources that opt in
            "prompt_kinds": {"mask": 0.3, "box": 0.3, "point": 0.25, "box_point": 0.075, "mask_box": 0.075},
            "label_variants": 16,  # sentences kept per label for training
            "label_context": 24,  # tokens of a label sentence
            "generated_text": "",  # file of `medp_clip_jax.generated_text` with further sentences; "" = none
            "caption": "labels",  # composed captions: labels | described (what the view shows, and where in it)
            "cache_images": 0,  # decoded images kept in memory; without any, each is decoded as its view needs it
            "threads": 2,  # that prepare batches
            "workers": 0,  # processes that prepare batches, instead of threads
        }
    )

    config.loss = ml_collections.ConfigDict(
        {
            "image_text": 1.0,
            "image_text_kind": "softmax",  # softmax (CLIP) | sigmoid (SigLIP)
            "region_to_text": 1.0,
            "text_to_region": 0.5,
            "region_kind": "bank",  # bank | one_hot | multi_positive | sigmoid: what region_to_text contrasts with
            "hierarchy": True,  # a label's ancestors and descendants are no negatives of it
            "consistency": 0.0,  # a region's exact mask teaches what its box or clicks are embedded as
            "distill": 0.0,  # holds embeddings of images without prompts where the model of `init` puts them
            "segment": 0.0,  # of the mask decoder's own sum of losses, see `segment`
            "tau": 0.5,  # strength of the prior correction in training
            "chunk": 256,  # rows of a logits matrix that a device holds at a time, where there are several devices
        }
    )

    config.segment = ml_collections.ConfigDict(  # training of the mask decoder, with simulated clicks
        {
            "regions": 4,  # per image, the first of `input.regions`
            "rounds": 4,  # answers per region: to the first prompt, then to one more click each
            "unroll": 1,  # rounds per scan iteration; all of them on CPUs, which are slow at convolutions in a loop
            "first": {"point": 0.55, "box": 0.2, "noisy_box": 0.15, "mask": 0.1},  # shares of the first prompt
            "noise": 0.1,  # deviation of a noisy box's sides, in their lengths
            "several": 0.3,  # share of the clicked regions that begin with several clicks, as after a few corrections
            "absent": 0.05,  # share of regions replaced by a prompt where nothing is annotated
            "detach": True,  # no gradient from the decoder into the towers: masks cost recognition nothing
            "focal": 20.0,
            "dice": 1.0,
            "iou": 1.0,
            "present": 1.0,
            "projection": 1.0,  # of regions that have a box only
        }
    )

    config.optim = ml_collections.ConfigDict(
        {
            "learning_rate": 1e-3,
            "warmup": 0.05,  # share of the steps
            "final": 0.01,  # share of the peak rate at the end of the cosine
            "weight_decay": 0.05,
            "clip_norm": 1.0,
            "beta1": 0.9,
            "beta2": 0.98,
            "module_rates": ml_collections.ConfigDict({}, type_safe=False),  # parameter path prefix -> factor
            "frozen": (),  # parameter path prefixes that keep their values
        }
    )

    config.mesh = ml_collections.ConfigDict(
        {
            "data": -1,  # replicas, across slices or nodes; -1 = all devices that are left
            "fsdp": 1,  # devices that share one copy of the parameters and the optimiser's state
            "rules": {  # what the mesh splits: logical axis -> axes of the mesh
                "batch": ("data", "fsdp"),  # images, texts, and the label bank while it is encoded
                "tokens": (),
                "width": (),
                "hidden": (),  # of the perceptrons
                "parameters": ("fsdp",),  # the largest axis that divides, of each parameter
                "optimizer": ("fsdp",),  # likewise of the optimiser's state
            },
        }
    )

    config.train = ml_collections.ConfigDict(
        {
            "steps": 10_000,
            "accumulate": 1,  # microbatches per step; the losses still see the whole batch
            "log_every": 50,
            "eval_every": 0,  # 0 = only at the end
            "checkpoint_every": 1000,
            "keep": 3,  # newest checkpoints kept, besides the best one
            "best_metric": "region/mask/macro",
            "max_bad_steps": 20,  # non-finite steps in a row before the run gives up
        }
    )

    config.eval = ml_collections.ConfigDict(
        {
            "split": "test",  # of the evaluation after training
            "batch_size": 32,
            "regions": 16,  # per row of an evaluation batch
            "kinds": ("mask", "box", "point", "none", "crop"),
            "val_kinds": ("mask", "box", "point"),  # during training; `crop` costs a pass per region
            "gallery": 24,  # pictures in the report
            "falsification": False,  # ask the image-level questions with prompts, too (evaluators/falsification.py)
            "twins": (),  # groups of labels that only context tells apart: (("kidney_left", "kidney_right"), ...)
        }
    )
    return config


def use_sentence_encoder(config: ml_collections.ConfigDict, init: str) -> None:
    """Starts from the BERT-family encoder that `python -m medp_clip_jax.convert` wrote, in folder `init`.

    Its sentences lie where their meaning puts them, so that an image tower learns to meet them, and labels that
    training never saw have a place as well. Where there is no such folder yet the fields are those of MiniLM, so that
    the configuration can be read.
    """
    described = pathlib.Path(init) / "config.json"
    if described.exists():
        from medp_clip_jax.config import load_config

        config.model.text = load_config(described).model.text
    else:
        config.model.text.update(tower="bert", vocab=30522, width=384, depth=6, heads=12, positions=512)
        config.model.text.update(pool="mean", projection="none")
    config.init = init
    config.model.text.context = 32
    config.model.text.positions = config.model.text.positions or 512
    config.model.embed = config.model.text.width
    config.optim.frozen = ("text",)
