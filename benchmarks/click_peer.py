"""The PyTorch side of `benchmarks.click_latency`: the prompt encoder and the mask decoder of SAM-Med2D.

Runs in the peer's Python, which needs torch and nothing of this repository, on a checkout of the authors' code.
Arguments are one JSON object; the answer is one: milliseconds of a click by the number of regions.
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SIZE, CLICKS = 256, 8  # the canvas that it was trained on; clicks of a user who has corrected seven times


def main() -> None:
    case = json.loads(sys.argv[1])
    sys.path.insert(0, case["checkout"])
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    torch.set_num_threads(case["threads"])
    settings = argparse.Namespace(image_size=SIZE, sam_checkpoint=None, encoder_adapter=True)
    model = sam_model_registry["vit_b"](settings).eval()
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        times = {"image": median_ms(lambda: model.image_encoder(image), case["repeats"])}
        features = model.image_encoder(image)
        for regions in case["regions"]:
            points = (torch.rand(regions, CLICKS, 2) * SIZE, torch.ones(regions, CLICKS))
            previous = torch.zeros(regions, 1, SIZE // 4, SIZE // 4)
            times[regions] = median_ms(lambda: click(model, features, points, previous), case["repeats"])  # noqa: B023
    print(json.dumps({"versions": f"torch {torch.__version__}", "ms": times}))


def click(model, features, points, previous):
    """The best of three masks per region, at the size of the canvas, as the authors' test script makes them."""
    sparse, dense = model.prompt_encoder(points=points, boxes=None, masks=previous)
    masks, scores = model.mask_decoder(
        image_embeddings=features.expand(len(previous), -1, -1, -1),
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    best = masks[torch.arange(len(masks)), scores.argmax(1)][:, None]
    return F.interpolate(best, (SIZE, SIZE), mode="bilinear", align_corners=False)


def median_ms(run, repeats: int) -> float:
    """Median time of a call in milliseconds, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
