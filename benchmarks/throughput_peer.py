"""The PyTorch side of `benchmarks.train_throughput`: open_clip, and Alpha-CLIP's method on its image tower.

Runs in the peer's Python, which needs torch and open_clip_torch and nothing of this repository. Arguments are one JSON
object; then each line on stdin asks for a round, and each line on stdout answers with its seconds.
"""

import contextlib
import json
import logging
import sys
import time
import warnings

import open_clip
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    case = json.loads(sys.argv[1])
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = "cuda" if case["device"] == "gpu" else "cpu"
    if device == "cpu":
        torch.set_num_threads(case["threads"])
    model = open_clip.create_model(f"{case['model'].replace('/', '-').replace('ViT', 'ViT-')}-quickgelu").to(device)
    run, compiled = fastest({"pairs": pairs, "train": alpha_train, "infer": alpha_infer}[case["work"]], model, case)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    versions = f"torch {torch.__version__}, open_clip {open_clip.__version__}, {'compiled' if compiled else 'eager'}"
    print(json.dumps({"device": name, "versions": versions}), flush=True)
    for _ in sys.stdin:
        run()  # not timed, as on the other side
        print(json.dumps(timed(run, case["steps"], device)), flush=True)


def fastest(make, model: torch.nn.Module, case: dict):
    """The step as it is and compiled, whichever is faster here: (step, whether compiled)."""
    candidates = {}
    for compiled in (False, True) if case["device"] == "cpu" else (True,):
        run = make(model, case, torch.compile if compiled else lambda module: module)
        run()
        candidates[compiled] = (timed(run, 1, "cuda" if case["device"] == "gpu" else "cpu"), run)
    best = min(candidates, key=lambda compiled: candidates[compiled][0])
    return candidates[best][1], best


def timed(run, steps: int, device: str) -> float:
    """Seconds of `steps` steps."""
    start = time.perf_counter()
    for _ in range(steps):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def precision(case: dict):
    """float32 on a CPU, bf16 autocast on a GPU: what open_clip calls amp_bf16."""
    return torch.autocast("cuda", torch.bfloat16) if case["device"] == "gpu" else contextlib.nullcontext()


def adamw(parameters) -> torch.optim.Optimizer:
    """open_clip's groups: weight decay on matrices only."""
    parameters = list(parameters)
    groups = [[p for p in parameters if p.ndim < 2], [p for p in parameters if p.ndim >= 2]]
    return torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.0}, {"params": groups[1]}],
        lr=1e-4,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        fused=True,
    )


def pairs(model, case: dict, compile_):
    """A training step on image-text pairs, as in open_clip's trainer."""
    batch, length, device = case["batch"], case["text_length"], next(model.parameters()).device
    model.train().context_length = length
    model.positional_embedding = torch.nn.Parameter(model.positional_embedding.detach()[:length].contiguous())
    model.attn_mask = model.attn_mask[:length, :length].contiguous()
    images = torch.randn(batch, 3, model.visual.image_size[0], model.visual.image_size[0], device=device)
    texts = torch.randint(1, 49406, (batch, length), device=device)
    texts[:, -1] = 49407
    optimizer, loss, forward = adamw(model.parameters()), ClipLoss(), compile_(model)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision(case):
            value = loss(*forward(images, texts)[:3])
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)

    return step


def alpha_tower(model):
    """Alpha-CLIP's image tower (arXiv 2312.03818): the region's map is a fourth input channel, one pass per region."""
    tower, old = model.visual, model.visual.conv1
    tower.conv1 = torch.nn.Conv2d(4, old.out_channels, old.kernel_size, old.stride, bias=False).to(old.weight.device)
    return tower


def alpha_inputs(tower, case: dict) -> torch.Tensor:
    """The regions of some images, each an image of its own with its map."""
    size = tower.image_size[0]
    return torch.randn(case["peer_images"] * case["regions"], 4, size, size, device=tower.conv1.weight.device)


def alpha_train(model, case: dict, compile_):
    """Forward and backward of every region's pass, then AdamW."""
    tower = alpha_tower(model).train() if model.visual.conv1.in_channels == 3 else model.visual
    optimizer, regions, forward = adamw(tower.parameters()), alpha_inputs(tower, case), compile_(tower)
    target = torch.randn(len(regions), tower.output_dim, device=regions.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision(case):
            value = -(F.normalize(forward(regions).float(), dim=-1) * target).sum()
        value.backward()
        optimizer.step()

    return step


def alpha_infer(model, case: dict, compile_):
    """One pass per region, without gradients."""
    tower = alpha_tower(model).eval() if model.visual.conv1.in_channels == 3 else model.visual
    regions, forward = alpha_inputs(tower, case), compile_(tower)

    def step() -> None:
        with torch.inference_mode(), precision(case):
            F.normalize(forward(regions).float(), dim=-1)

    return step


if __name__ == "__main__":
    main()
