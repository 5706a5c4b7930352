"""Builds a corpus, or adds sources to one: `python -m data.build --source=ADAPTER --input=PATH --output=DIR`.

Sources whose input has not changed are kept, those that have are written anew, all others in the corpus stay. Records
that cannot be used are reported one line each on stderr and left out; `--strict` stops at the first. The corpus is
written beside its place and renamed, so an error or interrupt leaves what was there before.
"""

import collections
import contextlib
import json
import pathlib
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from data import ontology as shipped_ontology
from data import writer
from data.report import Report
from data.sources import Source, folder, labels, phantoms
from data.sources.splits import check_name
from data.staging import staged
from medp_clip_jax.corpus import FORMAT, MANIFEST, ONTOLOGY, Corpus, open_corpus
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.ontology import Ontology

OpenSource = Callable[[Ontology], Source]

# What `--source=` names: `open_x(path, ontology, shipped, only, report) -> Source`. An adapter whose module has OPTIONS
# (key -> help) also takes `options`, a mapping of the `--option=key=value` given; it checks their values itself.
ADAPTERS: dict[str, Callable[..., Source]] = {
    "folder": folder.open_folder,
}
# Where `--input` may hold several data sets: a function from it to the path of each. All others open `--input` itself.
SEVERAL: dict[str, Callable[[pathlib.Path], list[pathlib.Path]]] = {
    "folder": folder.find_folders,
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


def build_corpus(output: pathlib.Path, sources: Sequence[OpenSource], shipped: Ontology, report: Report) -> Corpus:
    """Writes the sources into the corpus at `output`, new or existing, and returns it opened.

    Raises InputError if `output` cannot be written or is something else, if a source cannot be used at all, if nothing
    usable is found, if a source that would stay has a label that the ontology has since given to another node, or,
    under a strict report, at the first bad record.
    """
    with staged(output) as (work, commit):
        old = _existing(output)
        ontology = _with_nodes(shipped, old.ontology if old else shipped, _used(old.manifest) if old else ())
        entries: dict[str, Any] = {}  # None = nothing usable
        for open_source in sources:
            source = open_source(ontology)
            if source.name in entries:
                raise InputError(
                    f"two folders hold data set {source.name!r}: rename it in one (`dataset` in images.jsonl)"
                )
            for node in source.nodes:
                ontology = ontology if node.id in ontology else ontology.with_node(node)
            entries[source.name] = _kept_or_written(source, old, work, ontology, report)
            print(_line(source.name, entries[source.name], old), flush=True)
        if old is not None:
            others = [name for name in old.sources if name not in entries]
            entries |= {name: writer.keep(old, name, work) for name in others}
        manifest = {"format": FORMAT, "sources": {name: entries[name] for name in sorted(entries) if entries[name]}}
        if not manifest["sources"]:
            raise InputError(f"{output}: no usable image in the input: nothing was written")
        final = _with_nodes(shipped, ontology, _used(manifest))
        if old is not None:
            _check_labels(manifest, final, old)
        final.save(work / ONTOLOGY)
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        kept = old is not None and all(old.manifest["sources"].get(name) is entries[name] for name in entries)
        if not kept or not all(_same(work / name, output / name) for name in (MANIFEST, ONTOLOGY)):
            commit()
    return open_corpus(output)


def _kept_or_written(
    source: Source, old: Corpus | None, work: pathlib.Path, ontology: Ontology, report: Report
) -> dict[str, Any] | None:
    entry: dict[str, Any] | None
    if old is not None and writer.is_current(old, source, report.strict):
        entry = writer.keep(old, source.name, work)
    else:
        entry = writer.write(source, work, ontology, report)
    report.skipped.clear()  # the next source counts its own
    return entry


def _line(name: str, entry: dict[str, Any] | None, old: Corpus | None) -> str:
    if entry is None:
        return f"{name:<26} left out: no usable image"
    before = old.manifest["sources"].get(name) if old else None
    state = "unchanged" if entry is before else "replaced" if before else "written"
    splits = ", ".join(f"{split} {counts['images']:,}" for split, counts in entry["splits"].items())
    skipped = sum(entry["skipped"].values())
    return f"{name:<26} {_numbers([entry])} ({splits}) {state}" + (f", {skipped:,} records skipped" if skipped else "")


def _numbers(entries: Iterable[dict[str, Any]]) -> str:
    splits = [split for entry in entries for split in entry["splits"].values()]
    return " ".join(f"{sum(split[field] for split in splits):7,} {field}" for field in ("images", "regions"))


def _total(corpus: Corpus) -> str:
    entries = corpus.manifest["sources"].values()
    reasons: collections.Counter[str] = collections.Counter()
    for entry in entries:
        reasons.update(entry["skipped"])
    lines = [
        f"{f'{len(entries)} sources':<26} {_numbers(entries)}, {len(corpus.labels)} region labels in {corpus.directory}"
    ]
    if reasons:
        told = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
        lines.append(f"{'skipped records':<26} {told}")
    return "\n".join(lines)


def _existing(output: pathlib.Path) -> Corpus | None:
    if (output / MANIFEST).exists():
        return open_corpus(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: exists and is no corpus: choose an empty or a new directory as --output")
    return None


def _used(manifest: Mapping[str, Any]) -> set[str]:
    splits = [split for entry in manifest["sources"].values() for split in entry["splits"].values()]
    return {label for split in splits for field in ("labels", "image_labels") for label in split[field]}


def _with_nodes(shipped: Ontology, other: Ontology, ids) -> Ontology:
    """`shipped` plus those nodes of `other` that the labels `ids` need and it lacks, as far as they still fit."""
    for node in labels.missing_nodes((label for label in ids if label in other), other, shipped):
        with contextlib.suppress(InputError):  # `shipped` has since given its name to another node
            shipped = shipped.with_node(node)
    return shipped


def _check_labels(manifest: Mapping[str, Any], ontology: Ontology, old: Corpus) -> None:
    """Raises InputError when sources kept from `old` have labels that did not fit: their records hold the old ids."""
    used = {name: _used({"sources": {name: entry}}) for name, entry in manifest["sources"].items()}
    stale = {name: sorted(ids - set(ontology)) for name, ids in used.items() if not ids <= set(ontology)}
    if stale:
        name, (label, *_) = next(iter(stale.items()))
        now = ontology.resolve(label, old.ontology[label].name, name)
        raise InputError(
            f"{old.directory}: {', '.join(stale)}: built when {label!r} was no label of the ontology, which now names "
            f"it {now!r}: build again together with this source (--input= the folder of all), or into a new --output"
        )


def _same(path: pathlib.Path, other: pathlib.Path) -> bool:
    return other.is_file() and path.read_bytes() == other.read_bytes()


def define_flags() -> None:
    """The command line; not at import, so that other programs may define flags of the same names."""
    flags.DEFINE_enum("source", None, [*ADAPTERS, "phantoms"], "Kind of source to build.", required=True)
    flags.DEFINE_string("output", None, "Corpus directory to make or to add to.", required=True)
    flags.DEFINE_string("input", None, "What to read; for folder a data set folder, or a folder of such folders.")
    flags.DEFINE_multi_string("option", [], "key=value: an option of the adapter; repeat for more.")
    flags.DEFINE_string("split", "", "Put all images into this split (those marked unused stay out).")
    flags.DEFINE_bool("strict", False, "Stop at the first bad record or unknown label instead of reporting it.")
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
        print(_total(build_corpus(pathlib.Path(values.output), sources, shipped, report)))
    except KeyboardInterrupt:
        print("error: interrupted: the corpus is as it was before", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    define_flags()
    run_cli(main)
