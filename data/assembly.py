"""A corpus out of sources: what is kept, what is written, the manifest, and the ontology that all of it needs."""

import collections
import contextlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data import writer
from data.report import Report
from data.sources import Source, labels
from data.staging import staged
from medp_clip_jax.corpus import FORMAT, MANIFEST, ONTOLOGY, Corpus, open_corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology

OpenSource = Callable[[Ontology], Source]


def build_corpus(
    output: pathlib.Path,
    sources: Sequence[OpenSource],
    shipped: Ontology,
    report: Report,
    workers: int = 1,
    beam: Sequence[str] = (),
    fresh: bool = False,
    finish: Callable[[pathlib.Path], None] = lambda work: None,
) -> Corpus:
    """Writes the sources into the corpus at `output`, new or existing, and returns it opened.

    Records are made in `workers` processes, or by the Beam runner of the pipeline options `beam`: the files are the
    same. Shards that an unended build of the same sources finished are taken over, unless `fresh`. `finish` may add
    files to the directory that becomes the corpus. Raises InputError if `output` cannot be written or is something
    else, if a source cannot be used at all, if nothing usable is found, if a source that would stay has a label that
    the ontology has since given to another node, or, under a strict report, at the first bad record.
    """
    with staged(output, fresh) as (work, commit):
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
            entries[source.name] = _kept_or_written(source, old, work, ontology, report, workers, beam)
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
            finish(work)
            commit()
    return open_corpus(output)


def _kept_or_written(
    source: Source,
    old: Corpus | None,
    work: pathlib.Path,
    ontology: Ontology,
    report: Report,
    workers: int,
    beam: Sequence[str],
) -> dict[str, Any] | None:
    entry: dict[str, Any] | None
    if old is not None and writer.is_current(old, source, report.strict):
        entry = writer.keep(old, source.name, work)
    else:
        entry = writer.write(source, work, ontology, report, workers, beam)
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


def totals(corpus: Corpus) -> str:
    """What a corpus holds, in a line or two."""
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
