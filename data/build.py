"""Builds a corpus, or adds sources to one: `python -m data.build --source=ADAPTER --input=PATH --output=DIR`.

Sources whose input has not changed are kept, those that have are written anew, all others in the corpus stay. Records
that cannot be used are reported one line each on stderr and left out; `--strict` stops at the first. The corpus is
written beside its place and renamed, so an error or interrupt leaves what was there before. Shards that were finished
by then wait beside it: the same command goes on from them.
"""

import pathlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from data import ontology as shipped_ontology
from data import parallel
from data.assembly import OpenSource, build_corpus, totals
from data.report import Report
from data.sources import (
    Source,
    amos,
    arrays,
    captions,
    class_folders,
    coco,
    csv_boxes,
    decathlon,
    dicom,
    folder,
    image_table,
    imed361m,
    isles,
    mask_png,
    mrnet,
    nifti,
    phantoms,
    samed2d,
    totalsegmentator,
)
from data.sources.splits import check_name
from data.staging import finished_shards
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.ontology import Ontology

# What `--source=` names: `open_x(path, ontology, shipped, only, report) -> Source`. An adapter whose module has OPTIONS
# (key -> help) also takes `options`, a mapping of the `--option=key=value` given; it checks their values itself.
ADAPTERS: dict[str, Callable[..., Source]] = {
    "folder": folder.open_folder,
    "nifti": nifti.open_nifti_pairs,
    "decathlon": decathlon.open_decathlon,
    "totalsegmentator": totalsegmentator.open_totalsegmentator,
    "isles": isles.open_isles,
    "amos": amos.open_amos,
    "btcv": amos.open_btcv,
    "dicom": dicom.open_dicom,
    "mrnet": mrnet.open_mrnet,
    "coco": coco.open_coco,
    "samed2d": samed2d.open_samed2d,
    "imed361m": imed361m.open_imed361m,
    "mask_png": mask_png.open_mask_png,
    "csv_boxes": csv_boxes.open_csv_boxes,
    "class_folders": class_folders.open_class_folders,
    "image_table": image_table.open_image_table,
    "arrays": arrays.open_arrays,
    "captions": captions.open_captions,
}
# Where `--input` may hold several data sets: a function from it to the path of each. All others open `--input` itself.
SEVERAL: dict[str, Callable[[pathlib.Path], list[pathlib.Path]]] = {
    "folder": folder.find_folders,
    "decathlon": decathlon.find_tasks,
    "imed361m": imed361m.find_imed361m,
}


def adapter_sources(
    adapter: str, path: pathlib.Path, shipped: Ontology, only: str, report: Report, stated: Sequence[str] = ()
) -> list[OpenSource]:
    """Ways to open each data set that adapter finds at `path`; `only` puts all images into one split, `stated` are
    options as "key=value". Raises InputError for an option that the adapter does not have, or no data set."""
    open_adapter = ADAPTERS[adapter]
    known: Mapping[str, str] = getattr(sys.modules[open_adapter.__module__], "OPTIONS", {})
    options = _options(adapter, known, stated)
    extra = {"options": options} if known else {}

    def opener(one: pathlib.Path) -> OpenSource:
        return lambda ontology: open_adapter(one, ontology, shipped, only, report, **extra)

    return [opener(one) for one in SEVERAL.get(adapter, lambda one: [one])(path)]


def _options(adapter: str, known: Mapping[str, str], stated: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals or key not in known:
            has = "; ".join(f"{name}: {told}" for name, told in known.items()) or "none"
            raise InputError(f"--option={text}: expected key=value with an option of {adapter}, which are {has}")
        if key in options:
            raise InputError(f"--option={text}: {key} is given twice: give each option once")
        options[key] = value
    return options


def folder_sources(directory: pathlib.Path, shipped: Ontology, only: str, report: Report) -> list[OpenSource]:
    """Ways to open each data set folder at or below `directory`; `only` puts all images into one split."""

    return adapter_sources("folder", directory, shipped, only, report)


def define_flags() -> None:
    """The command line; not at import, so that other programs may define flags of the same names."""
    flags.DEFINE_enum("source", None, [*ADAPTERS, "phantoms"], "Kind of source to build.", required=True)
    flags.DEFINE_string("output", None, "Corpus directory to make or to add to.", required=True)
    flags.DEFINE_string("input", None, "What to read; for folder a data set folder, or a folder of such folders.")
    flags.DEFINE_multi_string("option", [], "key=value: an option of the adapter; repeat for more.")
    flags.DEFINE_string("split", "", "Put all images into this split (those marked unused stay out).")
    flags.DEFINE_bool("strict", False, "Stop at the first bad record or unknown label instead of reporting it.")
    flags.DEFINE_integer("workers", 0, "Processes that make records; 0: one for each core.", lower_bound=0)
    flags.DEFINE_string("runner", "", "Apache Beam runner that makes the records instead, such as FlinkRunner.")
    flags.DEFINE_multi_string("beam_option", [], "key=value: an option of the Beam pipeline; repeat for more.")
    flags.DEFINE_bool("fresh", False, "Throw away what an earlier build of this corpus finished before it was ended.")
    for split, count in (("train", 4000), ("val", 400), ("test", 800)):
        flags.DEFINE_integer(split, count, f"phantoms: images in {split}.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "phantoms: another number gives other images.", lower_bound=0)
    flags.DEFINE_integer("size", 64, "phantoms: side of the images in pixels.")


def main(argv: Sequence[str]) -> None:
    """Builds the corpus that the flags describe and prints what is in it; raises InputError for anything wrong in
    them."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: name directories by --input= and --output=")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, so that nothing is left behind
    try:
        report, shipped = Report(values.strict), shipped_ontology.load()
        if values.source in ADAPTERS:
            if not values.input:
                raise InputError(f"--source={values.source} needs --input=DIR: the folder with the images")
            only = check_name(values.split) if values.split else ""
            path = pathlib.Path(values.input)
            sources = adapter_sources(values.source, path, shipped, only, report, values.option)
        else:
            _options(values.source, {}, values.option)
            counts = {split: values[split].value or 0 for split in ("train", "val", "test")}
            source = phantoms.phantom_source(counts, values.seed, values.size)
            sources = [lambda ontology: source]
        output = pathlib.Path(values.output)
        corpus = build_corpus(
            output, sources, shipped, report, values.workers or parallel.cores(), _beam_options(), values.fresh
        )
        print(totals(corpus))
    except KeyboardInterrupt:
        waiting = finished_shards(pathlib.Path(values.output))
        more = f"; {waiting:,} finished shards wait for the same command" if waiting else ""
        print(f"error: interrupted: the corpus is as it was before{more}", file=sys.stderr)
        sys.exit(130)


def _beam_options() -> list[str]:
    values = flags.FLAGS
    if values.beam_option and not values.runner:
        raise InputError("--beam_option needs --runner: name the Beam runner, such as DirectRunner or FlinkRunner")
    stated = [f"--{option.lstrip('-')}" for option in values.beam_option]
    return [f"--runner={values.runner}", *stated] if values.runner else []


if __name__ == "__main__":
    define_flags()
    run_cli(main)
