"""Finds images of a folder by words, or by an image that looks alike.

python -m examples.retrieval RUN_OR_RELEASE FOLDER "liver with a lesion"
python -m examples.retrieval RUN_OR_RELEASE FOLDER query.png
"""

import pathlib

import numpy as np

import medp_clip_jax as medp
from medp_clip_jax.errors import InputError, run_cli

BATCH = 16
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".nii", ".gz", ".npy")


def index(model: medp.Model, params, processor: medp.Processor, paths: list[pathlib.Path]) -> np.ndarray:
    """Global embeddings [images, dim] of image files."""
    found = []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        padded = some + some[-1:] * (BATCH - len(some))  # one batch size, one compilation
        found.append(np.asarray(model.encode_image(params, processor.images(padded)).embedding)[: len(some)])
    return np.concatenate(found)


def main(argv: list[str]) -> None:
    """Prints the five best images with their cosines."""
    if len(argv) != 4:
        raise InputError(f"expected RUN_OR_RELEASE FOLDER QUERY, got {' '.join(argv[1:])}")
    model, params, processor = medp.load(argv[1])
    paths = sorted(path for path in pathlib.Path(argv[2]).rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{argv[2]}: no images ({', '.join(SUFFIXES)}) in this folder")
    images = index(model, params, processor, paths)
    if pathlib.Path(argv[3]).is_file():
        query = index(model, params, processor, [pathlib.Path(argv[3])])[0]
    else:
        query = np.asarray(model.encode_text(params, processor.tokens(argv[3])))[0]
    cosines = images @ query
    for best in np.argsort(-cosines)[:5]:
        print(f"{cosines[best]:.3f}  {paths[best]}")


if __name__ == "__main__":
    run_cli(main)
