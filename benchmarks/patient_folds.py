"""Three folds of all patients, for a cross-validation: each fold's corpus tests a third and trains on the others.

    python -m benchmarks.patient_folds --input=../shared/regions --output=corpora/folds
    for fold in 0 1 2; do
        python -m data.build --source=folder --input=corpora/folds/$fold --output=corpora/fold_$fold
    done

Each folder has links to the data sets of `--input` and a splits.json of its own, with train and test alone. Data sets
that `--input` never trains on are left out. Thirds are those of `benchmarks.development_split`, of every group;
`--draw=1` draws others.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from benchmarks.development_split import PARTS, held, read_splits, write_folder
from medp_clip_jax.errors import run_cli

USED = ("train", "val", "test")


def fold(folder: pathlib.Path, split: dict[str, str], number: int, draw: int = 0) -> dict[str, str]:
    """The split of a data set's images in one fold, from the one that it has."""
    used = {image for image, part in split.items() if part in USED} if "train" in split.values() else set()
    tested = held(folder, used, number, draw)
    return {image: ("test" if image in tested else "train") if image in used else "unused" for image in split}


def main(argv: Sequence[str]) -> None:
    source, output, draw = pathlib.Path(flags.FLAGS.input), pathlib.Path(flags.FLAGS.output), flags.FLAGS.draw
    for number in range(PARTS):
        splits = {name: fold(source / name, split, number, draw) for name, split in read_splits(source).items()}
        print(f"fold {number}: {write_folder(source, output / str(number), splits)}")


if __name__ == "__main__":
    flags.DEFINE_string("input", "../shared/regions", "A folder of data sets of the region schema, with a splits.json.")
    flags.DEFINE_string("output", "corpora/folds", "Folder to make.")
    flags.DEFINE_integer("draw", 0, "Which thirds: every number divides the patients in another way.", lower_bound=0)
    run_cli(main)
