"""The card's sections on where a corpus comes from: annotation protocol, licences and known biases."""

import hashlib

import medp_clip_jax
from data import card_facts, card_licences, card_render
from data.card_render import Section, Table, Text
from medp_clip_jax.corpus import Corpus


def annotation_section(corpus: Corpus) -> Section:
    """Who annotated what, and how: for each source what it states itself."""
    rows, by_kind = [], dict.fromkeys(card_licences.KINDS, 0)
    for name in corpus.sources:
        provenance = corpus.manifest["sources"][name]["provenance"]
        kind, stated = card_licences.annotation(provenance)
        by_kind[kind] += card_facts.number(corpus, "regions", name)
        title = provenance.get("title") or name
        rows.append(
            [name, title, kind + ("" if stated or kind == "unknown" else "*"), card_licences.protocol(provenance)]
        )
    shares = [(kind, count) for kind, count in by_kind.items() if count]
    return Section(
        "Annotation protocol and provenance",
        [
            Text(
                "Who drew the annotations: people, a model, both, or unknown. A star marks what was read out of the "
                "source's own words, which stand beside it; a source that says nothing is unknown, not human. No "
                "annotation was made, corrected or generated for this corpus: labels became nodes of the ontology by "
                "the tables in `data/ontology/sources` and exact rules of spelling, never by similarity."
            ),
            card_render.bar_chart("regions_by_annotation", "Regions by who annotated them", shares),
            Table(["source", "title", "annotated by", "protocol, in the source's words"], rows),
        ],
    )


def licence_section(corpus: Corpus) -> Section:
    """Licences as stated, what their family permits, and what is not certain."""
    rows, by_family, unsure = [], {}, 0
    for name in corpus.sources:
        provenance = corpus.manifest["sources"][name]["provenance"]
        text, doubt = card_licences.text_of(provenance), card_licences.doubts(provenance)
        licence = card_licences.family(text)
        images = card_facts.number(corpus, "images", name)
        by_family[licence.name] = by_family.get(licence.name, 0) + images
        unsure += bool(doubt)
        origin = provenance.get("origin") or provenance.get("origin_repo") or "unknown"
        rows.append(
            [name, text or "not stated", licence.share, licence.commercial, licence.duties, doubt or "–", origin,
             provenance.get("citation") or "unknown"]
        )  # fmt: skip
    head = [
        "source",
        "licence as stated",
        "pass on",
        "commercial use",
        "duties",
        "not certain because",
        "origin",
        "citation",
    ]
    return Section(
        "Licences and what they permit",
        [
            Text(
                "The licence is the source's own statement; the columns after it say what its family permits, which "
                f"is no legal advice. {unsure:,} of {len(rows):,} sources state theirs with a doubt, quoted here, to "
                "be settled before a corpus or a checkpoint made from it is passed on. Weights inherit the licences "
                "of what they were trained on."
            ),
            card_render.bar_chart("images_by_licence", "Images by family of licence", card_facts.ranked(by_family)),
            Table(head, rows),
        ],
    )  # fmt: skip


def bias_section(corpus: Corpus) -> Section:
    """Shortcuts that the counts reveal, and what the sources warn of."""
    found = card_facts.bias(corpus)
    first = " and ".join(f"{name} ({100 * share:.0f} %)" for name, share in found.largest)
    points = [
        f"**Sources**: {first} hold most regions.",
        f"**Labels and sources**: {found.one_source:,} of {found.labels:,} region labels live in one source only, and "
        f"{found.one_source_modalities:,} of {found.modalities:,} modalities; a model can name these from the look of "
        "the source. Judge by within-image accuracy.",
        f"**Few patients**: {found.few_groups:,} labels come from fewer than 5 groups in all; evaluation lists and "
        "does not average them.",
        f"**Unknown patients**: in {len(found.ungrouped):,} sources each image is its own group, so that images of "
        f"one patient may lie in two splits: {', '.join(found.ungrouped) or 'none'}.",
        f"**Sides**: the test split has {found.sided_test['left']:,} regions of left and "
        f"{found.sided_test['right']:,} of right structures; what is said of sides rests on these.",
        "**People**: age, sex, origin and scanner are unknown unless a source says so; nothing here is balanced over "
        "them.",
    ]
    warned = [
        [name, corpus.manifest["sources"][name]["provenance"]["caveats"]]
        for name in corpus.sources
        if corpus.manifest["sources"][name]["provenance"].get("caveats")
    ]
    return Section("Known biases", [*(Text(point) for point in points), Table(["source", "its own caveats"], warned)])


def making_section(corpus: Corpus, curated: bool) -> Section:
    """The commands behind the card, and which records it is about."""
    digest = hashlib.sha256()
    for name in corpus.sources:
        digest.update(f"{name} {corpus.manifest['sources'][name]['checksum']}\n".encode())
    adapters = sorted({corpus.manifest["sources"][name]["adapter"] for name in corpus.sources})
    build = "; ".join(f"`python -m data.build --source={name} --input=DIR --output=CORPUS`" for name in adapters)
    audit = "`python -m data.curate --corpus=CORPUS --report=curation.json`" if curated else "no audit"
    card = "`python -m data.card CORPUS --output=DIR" + (" --curation=curation.json`" if curated else "`")
    return Section(
        "How this card was made",
        [
            Text(
                f"{build}, then {audit}, then {card}; version {medp_clip_jax.__version__}, records "
                f"`{digest.hexdigest()[:16]}`. The audit reports; what it would drop is still in this corpus, and "
                "`--output` of `data.curate` makes one without it."
                if curated
                else f"{build}, then {card}; version {medp_clip_jax.__version__}, records `{digest.hexdigest()[:16]}`."
            )
        ],
    )
