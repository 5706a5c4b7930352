"""What the phantoms hold and what a crop gives away: prints the tables of docs/phantoms.md.

python -m benchmarks.phantom_statistics
"""

import collections
import io
import time

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from data import phantoms

IMAGES = 3000


def main() -> None:
    start = time.process_time()
    examples = list(phantoms.phantom_examples("train", IMAGES))
    speed = IMAGES / (time.process_time() - start)
    areas, crops = collections.defaultdict(list), collections.defaultdict(list)
    for example in examples:
        picture = Image.open(io.BytesIO(example.image))
        for region in example.regions:
            areas[region.label].append(region.area)
            x0, y0, x1, y1 = region.box
            across, down = (x1 - x0) * phantoms.CROP_MARGIN, (y1 - y0) * phantoms.CROP_MARGIN
            box = np.clip((x0 - across, y0 - down, x1 + across, y1 + down), 0, example.width)
            crop = picture.resize((12, 12), Image.Resampling.BILINEAR, box=tuple(box))
            crops[region.label].append(np.asarray(crop).ravel() / 255)
    everything = np.concatenate(list(areas.values()))
    print(f"{IMAGES} images at 64 px, {speed:.0f} per second and core, {len(everything) / IMAGES:.2f} regions each;")
    print(f"{np.mean(everything < 64):.1%} smaller than one 8-px patch, median {np.median(everything):.0f} px\n")
    print("| class | regions per image | median area, px |\n|---|---|---|")
    for label in phantoms.CLASSES:
        print(f"| {label} | {len(areas[label]) / IMAGES:.2f} | {np.median(areas[label]):.0f} |")
    print("\n| twins | regions | chance | logistic regression | 15 nearest neighbours |\n|---|---|---|---|---|")
    for twins in phantoms.CONTEXT_TWINS:
        features = np.concatenate([crops[label] for label in twins])
        labels = np.repeat(range(len(twins)), [len(crops[label]) for label in twins])
        models = LogisticRegression(C=0.3, max_iter=500), KNeighborsClassifier(15)
        scores = [cross_val_score(model, features, labels, cv=5).mean() for model in models]
        chance = np.bincount(labels).max() / len(labels)
        print(f"| {', '.join(twins)} | {len(labels)} | {chance:.3f} | {scores[0]:.3f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
