"""The datasheet of a corpus as HTML and Markdown: `python -m data.card CORPUS --output=DIR`.

Writes DIR/data_card.html, DIR/data_card.md and its plots as DIR/images/data_card_*.svg: counts by source, modality,
anatomy, label, area and kind of prompt; annotation protocol; quality filtering; balance; licences; biases. All of it is
counted from the corpus, its manifest and, with `--curation=FILE`, the report of `python -m data.curate`. No picture of
an image is in it: `--pictures` makes contact sheets beside it, for looking at on this machine only.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from data import card_facts, card_origin, card_pictures, card_quality, card_render, card_sections
from data import ontology as shipped_ontology
from data.curation import summary
from medp_clip_jax.corpus import Corpus, open_corpus
from medp_clip_jax.errors import InputError, run_cli

STEM = "data_card"
FORMATS = ("html", "md")


def make_sections(
    corpus: Corpus, curation: Mapping[str, Any] | None, temperature: float, most: int
) -> list[card_render.Section]:
    """All sections of the card; records beyond the first `most` of each split are counted by the manifest alone."""
    walk = card_facts.walk(corpus, most)
    sections = [
        card_sections.composition(corpus, walk),
        card_sections.label_section(corpus, shipped_ontology.load()),
        card_sections.area_section(corpus, walk),
        card_origin.annotation_section(corpus),
        card_quality.quality_section(corpus, curation),
        card_quality.leakage_section(curation),
        card_sections.balance_section(corpus, temperature, card_quality.curated_balance(curation)),
        card_origin.licence_section(corpus),
        card_origin.bias_section(corpus),
        card_origin.making_section(corpus, curation is not None),
    ]
    return [section for section in sections if section is not None]


def write_card(
    corpus: Corpus,
    output: pathlib.Path,
    sections: Sequence[card_render.Section],
    formats: Sequence[str],
    pictures: str = "",
    title: str = "",
) -> list[pathlib.Path]:
    """Writes the card into `output` and returns its files; InputError where one cannot be written."""
    title = f"Data card: {title or corpus.directory.resolve().name}"
    facts = [f"{len(corpus.sources):,} sources"]
    facts += [f"{card_facts.number(corpus, field):,} {field}" for field in ("images", "regions", "groups")]
    facts += [f"{len(corpus.labels):,} region labels", f"{len(card_facts.total(corpus, 'modalities')):,} modalities"]
    sections = [_named(section) for section in sections]
    written = {}
    if "html" in formats:
        written[output / f"{STEM}.html"] = card_render.as_html(title, facts, sections, pictures)
    if "md" in formats:
        written[output / f"{STEM}.md"] = card_render.as_markdown(title, facts, sections, "images")
        written |= {output / "images" / f"{name}.svg": svg for name, svg in card_render.files(sections).items()}
    for path, content in written.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}): name a writable --output") from error
    return list(written)


def _named(section: card_render.Section) -> card_render.Section:
    """The charts' file names with the card's stem in front, as they share a folder with other pictures."""
    blocks = [
        card_render.Chart(f"{STEM}_{block.name}", block.about, block.svg)
        if isinstance(block, card_render.Chart)
        else block
        for block in section.blocks
    ]
    return card_render.Section(section.title, blocks)


def read_curation(path: pathlib.Path | None, corpus: Corpus) -> Mapping[str, Any] | None:
    """The curation report at `path`, else the corpus's own if there is one; InputError where it is not readable."""
    found = path or corpus.directory / "curation.json"
    if path is None and not found.is_file():
        return None
    try:
        content = json.loads(found.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{found}: no readable curation report ({error}): run `python -m data.curate`") from error
    if not isinstance(content, dict) or content.get("format") != summary.FORMAT:
        raise InputError(f"{found}: no curation report of format {summary.FORMAT}: run `python -m data.curate` again")
    return content


def main(argv: Sequence[str]) -> None:
    """Writes the card that the flags describe and prints its files."""
    values = flags.FLAGS
    if len(argv) != 2 or not values.output:
        raise InputError("expected a corpus and a folder: python -m data.card CORPUS --output=DIR")
    if unknown := sorted(set(values.formats) - set(FORMATS)):
        raise InputError(f"--formats: expected some of {', '.join(FORMATS)}, got {unknown[0]!r}")
    corpus, output = open_corpus(pathlib.Path(argv[1])), pathlib.Path(values.output)
    curation = read_curation(pathlib.Path(values.curation) if values.curation else None, corpus)
    pictures = ""
    if values.pictures:
        pictures = card_pictures.contact_sheets(corpus, output / "contact_sheets", values.pictures, values.seed)
    sections = make_sections(corpus, curation, values.temperature, values.most)
    for path in write_card(corpus, output, sections, values.formats, pictures, values.title):
        print(path)


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "Folder for the card.")
    flags.DEFINE_string("title", "", "Name in the heading; that of the corpus directory if not given.")
    flags.DEFINE_string("curation", None, "Report of data.curate; CORPUS/curation.json if there is one.")
    flags.DEFINE_list("formats", list(FORMATS), "html, md or both.")
    flags.DEFINE_integer("pictures", 0, "Images per source on local contact sheets; 0 = none.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the choice of pictures.", lower_bound=0)
    flags.DEFINE_integer("most", 20000, "Records looked at in each split of each source.", lower_bound=1)
    flags.DEFINE_float("temperature", 0.5, "Of the mixture whose balance is shown, as in config.data.temperature.")
    run_cli(main)
