"""One structure is one node however it is spelled, a side never gets lost, and a broken ontology names the node."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.ontology
from medp_clip_jax import label_names
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Node, Ontology

SHIPPED = data.ontology.load()
SMALL = Ontology(
    [
        Node("organ", "organ"),
        Node("kidney", "kidney", ("renal organ",), ("organ",), definition="filters blood"),
        Node("kidney_left", "left kidney", ("left renal organ",), ("kidney",), laterality="left"),
        Node("kidney_right", "right kidney", ("right renal organ",), ("kidney",), laterality="right"),
        Node("liver", "liver", (), ("organ",)),
        Node("lesion", "lesion", kind="finding"),
        Node("tumor", "tumor", ("neoplasm",), ("lesion",), kind="finding"),
        Node("liver_tumor", "liver tumor", (), ("tumor",), kind="finding"),
        Node("malignant_lesion", "malignant lesion", ("malignant",), ("lesion",), kind="finding"),
    ],
    {"bus": {"malignant": "tumor"}},
)

# Every label of the development sources that is not itself an id, and names other sources use for the same structures.
SAME = {
    "vertebra_l5": [
        "l5_vertebra",
        "vertebrae_l5",
        "L5 vertebra",
        "vertebra L5",
        "vertebrae_L5",
        "L5",
        "fifth lumbar vertebra",
    ],
    "vertebra_t12": ["t12_vertebra", "vertebrae_t12", "Th12 vertebra", "T12", "vertebra T 12".replace("T 12", "T12")],
    "vertebra_s1": ["vertebrae_s1", "vertebra S1"],
    "vertebra": ["vertebrae", "Vertebrae", "vertebra"],
    "intervertebral_disc": ["intervertebral_discs", "intervertebral discs", "intervertebral disk", "IVD"],
    "left_atrium": [
        "left_atrium",
        "heart_atrium_left",
        "left heart atrium",
        "Left Atrium",
        "heart atrium left",
        "leftatrium",
    ],
    "right_ventricle": [
        "right_ventricle",
        "heart_ventricle_right",
        "right heart ventricle",
        "RV",
        "Right Ventricle (RV)",
    ],
    "myocardium": ["heart_myocardium", "heart myocardium"],
    "kidney_left": ["left kidney", "kidney left", "kidney_left", "Left-Kidney", "LeftKidney", "L kidney", "kidney_lt"],
    "lung_lower_lobe_left": ["lung_lower_lobe_left", "left lung lower lobe", "left lower lobe of the lung"],
    "rib_left_9": ["rib_left_9", "rib left 9", "left 9th rib", "left ninth rib", "rib_left_09"],
    "hip_left": ["hip_left", "left hip"],
    "iliac_vein_left": ["iliac_vena_left", "left iliac vena", "left common iliac vein"],
    "autochthon_right": ["autochthon_right", "right autochthon", "right erector spinae"],
    "costal_cartilage": ["costal_cartilages"],
    "portal_vein_and_splenic_vein": ["portal_vein_and_splenic_vein", "portal vein and splenic vein"],
    "inferior_vena_cava": ["inferior_vena_cava", "postcava", "IVC"],
    "barretts_esophagus": ["barrett_s_esophagus", "Barrett's esophagus", "barretts oesophagus"],
    "suspicious_mucosal_area": ["suspicious_area", "suspicious mucosal area"],
    "retinal_blood_vessel": ["retinal_blood_vessels", "retinal vessel"],
    "hepatic_vessel": ["hepatic_vessel", "hepatic vessels"],
    "hard_exudate": ["hard_exudate", "Hard Exudates"],
    "soft_exudate": ["soft_exudate", "soft exudates (cotton wool spots)", "cotton-wool spots"],
    "retinal_hemorrhage": ["retinal_hemorrhage", "retinal haemorrhages"],
    "cardiomegaly": ["cardiomegaly (enlarged heart)"],
    "normal_colorectal_gland": ["normal_colorectal_glands"],
    "benign_skin_lesion": ["benign skin lesion (not melanoma)"],
    "no_finding": ["no finding", "No Finding"],
    "epidural_hematoma": ["epidural_hematoma", "epidural haematoma", "extradural haemorrhage"],
    "liver_tumor": ["liver tumour", "tumors of the liver", "hepatic tumor", "liver_tumor_mask"],
    "cell_nucleus": ["nuclei", "Nucleus", "cell nuclei"],
    "white_blood_cell": ["WBC", "leucocytes", "white blood cells"],
    "lung_nodule": ["lung nodules", "pulmonary nodule"],
    "enhancing_tumor": ["enhancing tumour", "Enhancing_Tumor"],
}


@pytest.mark.short
@pytest.mark.parametrize("node_id", sorted(SAME))
def test_spellings_of_one_structure_are_one_node(node_id):
    assert {SHIPPED.resolve(name) for name in SAME[node_id]} == {node_id}
    assert {SHIPPED.resolve("???", name) for name in SAME[node_id]} == {node_id}


@pytest.mark.parametrize(
    ("source", "label", "text", "node_id"),
    [
        ("bus_bra", "malignant", "", "malignant_breast_tumor"),
        ("bus_bra", "benign", "", "benign_breast_tumor"),
        ("somewhere", "malignant", "", "malignant_lesion"),
        ("dsb2018_nuclei", "fluor", "", "fluorescence_micrograph"),
        ("isic2017_cls", "melanoma", "", "melanoma"),
        ("nih_cxr_boxes", "effusion", "pleural effusion", "pleural_effusion"),
        ("", "mass", "lung mass", "lung_mass"),  # the text names a special case of the label
        ("", "cerebral_gray_matter", "gray matter", "cerebral_gray_matter"),  # and here a general one
        ("mni152_template", "cerebral_white_matter", "white matter", "cerebral_white_matter"),
        ("", "class_7", "spleen", "spleen"),
    ],
)
def test_source_and_text_decide_where_a_label_alone_is_not_enough(source, label, text, node_id):
    assert SHIPPED.resolve(label, text, source) == node_id


@pytest.mark.parametrize(
    "name", ["", "7", "class_3", "background", "left", "liver and spleen", "kidnee", "livers tumor cell", "T2", "he"]
)
def test_unsure_is_none(name):
    assert SHIPPED.resolve(name) is None


def test_a_side_is_never_lost_or_swapped():
    for node in SHIPPED.values():
        for side in label_names.SIDES:
            for name in (f"{side} {node.name}", f"{node.name}_{side}", f"{side[0]} {node.name}"):
                found = SHIPPED.resolve(name)
                assert found is None or SHIPPED[found].laterality == side, name
    assert SHIPPED.resolve("left liver") is None and SHIPPED.resolve("left_thing", "kidney") is None
    assert SHIPPED.resolve("kidney_left", "right kidney") is None
    assert SHIPPED.resolve("left and right kidney") is None
    assert SHIPPED.resolve("kidney", "left kidney") == "kidney_left"
    assert SHIPPED.resolve("both kidneys") == "kidney"


@given(st.text(max_size=30), st.text(max_size=30))
def test_resolve_and_draft_survive_any_text(label, text):
    assert SHIPPED.resolve(label, text) in {None, *SHIPPED}
    try:
        node = SMALL.draft(label, text)
    except InputError:
        return
    assert node.id == label_names.slug(node.id) != ""


@given(st.sampled_from(sorted(SHIPPED)), st.randoms())
def test_word_order_case_and_separators_do_not_matter(node_id, random):
    words = node_id.split("_")
    random.shuffle(words)
    name = "".join(
        random.choice([word, word.upper(), word.title()]) + random.choice([" ", "_", "-", ", "]) for word in words
    )
    assert SHIPPED.resolve(name) == node_id


@pytest.mark.short
def test_shipped_nodes_are_complete():
    used_as_parent = {parent for node in SHIPPED.values() for parent in node.parents}
    for node in SHIPPED.values():
        assert node.parents or node.modalities or node.id in used_as_parent or node.definition, node.id
        assert node.definition and len(node.definition) <= 80 and not node.definition.endswith("."), node.id
    assert {"vertebra", "lumbar_vertebra"} <= SHIPPED.ancestors("vertebra_l5")
    assert {"white_blood_cell", "granulocyte"} <= SHIPPED.ancestors("neutrophil")
    assert "white_blood_cell" in SHIPPED.ancestors("lymphocyte")


def test_excluded_is_symmetric_and_off_the_diagonal():
    ids = ("white_blood_cell", "neutrophil", "lymphocyte", "granulocyte", "kidney", "kidney_left", "kidney_right")
    excluded = SHIPPED.excluded(ids)
    assert (excluded == excluded.T).all() and not excluded.diagonal().any()
    pairs = {(ids[i], ids[j]) for i, j in np.argwhere(excluded) if i < j}
    assert pairs == {
        ("white_blood_cell", "neutrophil"), ("white_blood_cell", "lymphocyte"), ("white_blood_cell", "granulocyte"),
        ("neutrophil", "granulocyte"), ("kidney", "kidney_left"), ("kidney", "kidney_right"),
    }  # fmt: skip
    with pytest.raises(InputError, match="nowhere"):
        SHIPPED.excluded(["kidney", "nowhere"])


def test_draft_gives_an_unknown_label_its_side_and_a_home():
    assert SHIPPED.draft("left_thumb_joint", "left thumb joint").parents == ("joint",)
    assert SHIPPED.draft("left_thumb_joint").laterality == "left"
    assert SHIPPED.draft("breast_stroma_left", "left stroma of the breast").laterality == "left"
    assert SHIPPED.draft("liver_left").parents == ("liver",)
    assert SHIPPED.draft("x", "fracture of the wrist").parents == ("fracture",)
    assert SHIPPED.draft("tumor_of_liver_normal", "liver tumor normal").parents == ()
    assert SHIPPED.draft("zzz_liver").parents == ()  # a slug may put its words in any order
    grown = SHIPPED.with_node(SHIPPED.draft("left_thumb_joint", "left thumb joint"))
    assert grown.resolve("thumb joint left") == "left_thumb_joint" and "left_thumb_joint" not in SHIPPED
    assert grown.ancestors("left_thumb_joint") == {"joint"}
    for label, text in (("left_x", "right x"), ("", ""), ("::", "")):
        with pytest.raises(InputError, match="label"):
            SHIPPED.draft(label, text)


def test_save_and_load_are_identical(tmp_path):
    SHIPPED.save(tmp_path / "a.json")
    loaded = Ontology.load(tmp_path / "a.json")
    loaded.save(tmp_path / "b.json")
    assert dict(loaded) == dict(SHIPPED)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert loaded.resolve("malignant", source="bus_bra") == "malignant_breast_tumor"
    ids = [
        json.loads(line.rstrip(","))["id"]
        for line in (tmp_path / "a.json").read_text().splitlines()
        if line.startswith('{"id"')
    ]
    assert ids == sorted(SHIPPED)


def grown(**changes):
    return lambda: SMALL.with_node(dataclasses.replace(Node("new", "new thing", parents=("organ",)), **changes))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (grown(parents=("nowhere",)), "'new': its parent 'nowhere'"),
        (grown(id="Not a slug"), "'Not a slug': an id"),
        (grown(id="liver"), "'liver': defined twice"),
        (grown(synonyms=("Kidneys",)), "already names"),
        (grown(kind="plant"), "'new': needs a name, a kind"),
        (grown(laterality="up"), "laterality"),
        (grown(name="left thing"), "'new': its name 'left thing' says left"),
        (grown(synonyms=("right thing",), laterality="left"), "'new': its name 'right thing' says right"),
        (grown(parents=("kidney_left",), laterality="right"), "'new': is right but its parent 'kidney_left'"),
        (grown(parents=("kidney_left",)), "'new': is without side"),
        (lambda: Ontology([Node("a", "a1", parents=("b",)), Node("b", "b1", parents=("a",))]), "node 'a': a cycle"),
        (lambda: Ontology([Node("a", "a1")], {"src": {"x": "gone"}}), "src/'x'"),
        (lambda: Ontology(SMALL.values(), {"src": {"left one": "kidney_right"}}), "of that side"),
    ],
)
def test_broken_ontologies_name_the_node(build, message):
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"nodes": [7], "aliases": {}}',
        '{"nodes": [{"id": "a"}], "aliases": {}}',
        '{"nodes": [{"id": "a", "name": 5}], "aliases": {}}',
        '{"nodes": [{"id": "a", "name": "a", "parents": "b"}], "aliases": {}}',
        '{"nodes": [{"id": "a", "name": "a", "colour": "b"}], "aliases": {}}',
    ],
)
def test_broken_files_are_named(tmp_path, content):
    path = tmp_path / "ontology.json"
    path.write_text(content)
    with pytest.raises(InputError, match="ontology.json"):
        Ontology.load(path)


def test_data_directory_errors_name_file_and_line(tmp_path):
    with pytest.raises(InputError, match="no node files"):
        data.ontology.load(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"id": "a", "name": "a"}\n\n{"id": broken\n')
    with pytest.raises(InputError, match="x.jsonl:3"):
        data.ontology.load(tmp_path)
