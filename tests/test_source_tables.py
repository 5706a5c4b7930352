"""Every table of a source names nodes that exist and have its labels' sides; a contradiction names file and label."""

import json
import pathlib

import pytest

import data.ontology
from medp_clip_jax import label_names
from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Node, Ontology
from medp_clip_jax.ontology_nodes import SYSTEMS

SHIPPED = data.ontology.load()
TABLES = data.ontology.tables()
FILES = sorted((pathlib.Path(data.ontology.__file__).parent / "sources").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_label_resolves_to_its_node_and_keeps_its_side(path):
    table = data.ontology.read_table(path)
    assert table.title and table.documentation and table.labels
    for source in table.sources:
        for label, node_id in table.labels.items():
            assert SHIPPED.resolve(label, "", source) == node_id, (source, label)
            assert SHIPPED.left_out(label, source) == (node_id is None)
            side = label_names.parse(label).side
            assert side == "" or node_id is None or SHIPPED[node_id].laterality == side, label


@pytest.mark.short
def test_the_public_lists_are_whole():
    numbers = {name: len(TABLES[name].numbers) for name in ("totalsegmentator", "totalsegmentator_mr", "amos", "btcv")}
    assert numbers == {"totalsegmentator": 117, "totalsegmentator_mr": 50, "amos": 16, "btcv": 14}
    assert TABLES["btcv"].numbers[0] == "background" and TABLES["btcv"].numbers[13] == "left adrenal gland"
    assert TABLES["totalsegmentator"].numbers[117] == "costal_cartilages"
    tasks = {name: table for name, table in TABLES.items() if name.startswith("task")}
    assert len(tasks) == 10 and {table.numbers[0] for table in tasks.values()} == {"background"}
    assert len(TABLES["nih_cxr"].labels) == 16 and len(TABLES["chexpert"].labels) == 14
    assert len(TABLES["imed361m"].labels) >= 230 and len(TABLES["pannuke"].labels) == 6 + 19
    for source in ("mrnet", "isles", "isic", "edd2020", "idrid", "samed2d"):
        assert source in TABLES


def test_tables_hold_for_data_sets_whose_names_begin_with_theirs():
    assert SHIPPED.resolve("cancer", source="msd_lung_tumor_ct") == "lung_cancer"
    assert SHIPPED.resolve("cancer", source="Task07_Pancreas") == "pancreatic_tumor"
    assert SHIPPED.resolve("cancer", source="edd2020_endoscopy") == "gastrointestinal_cancer"
    assert SHIPPED.resolve("arota", source="AMOS22") == "aorta" and SHIPPED.resolve("arota") is None
    assert SHIPPED.resolve("abnormal", source="mrnet") == "knee_abnormality"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ('{"left kidney": "kidney"}', "left kidney"),
        ('{"left kidney": "kidney_right"}', "left kidney"),
        ('{"thing": "nowhere"}', "nowhere"),
        ('{"kidney": "kidney", "kidney": "liver"}', "stands twice"),
        ('{"kidneys": "kidney", "Kidney": "liver"}', "stands for"),
        ('{"kidney": 7}', "id of a node or null"),
        ('{" ": "kidney"}', "id of a node or null"),
        ("[]", "labels: expected"),
    ],
)
def test_contradictions_are_errors(tmp_path, labels, message):
    (tmp_path / "sources").mkdir()
    nodes = [
        {"id": "kidney", "name": "kidney"},
        {"id": "kidney_right", "name": "right kidney", "laterality": "right", "parents": ["kidney"]},
        {"id": "liver", "name": "liver"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(node) + "\n" for node in nodes))
    head = '{"sources": ["x"], "title": "x", "documentation": "x", "labels": '
    (tmp_path / "sources/x.json").write_text(head + labels + "}")
    with pytest.raises(InputError, match=message):
        data.ontology.load(tmp_path)


def test_one_table_per_source_and_no_unknown_field(tmp_path):
    (tmp_path / "sources").mkdir()
    record = {"sources": ["x"], "title": "x", "documentation": "x", "labels": {"liver": "liver"}}
    for name in ("a", "b"):
        (tmp_path / f"sources/{name}.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"b\.json.*another file"):
        data.ontology.tables(tmp_path)
    (tmp_path / "sources/b.json").write_text(json.dumps({**record, "sources": ["y"], "lables": {}}))
    with pytest.raises(InputError, match="lables"):
        data.ontology.tables(tmp_path)
    for content in ("[]", '{"sources": ["x"]}', "{"):
        (tmp_path / "sources/b.json").write_text(content)
        with pytest.raises(InputError, match=r"b\.json"):
            data.ontology.tables(tmp_path)


@pytest.mark.short
def test_identifiers_are_well_formed_and_each_names_one_node():
    owner = {}
    for node in SHIPPED.values():
        for xref in node.xrefs:
            assert owner.setdefault(xref, node.id) == node.id
            system, _, code = xref.partition(":")
            assert node.code(system) == code and system in SYSTEMS
    # Published pairs: the mapping file of TotalSegmentator, and the terms of Uberon.
    published = {
        "liver": ("10200004", "0002107", "7197"), "spleen": ("78961009", "0002106", "7196"),
        "aorta": ("15825003", "0000947", "3734"), "trachea": ("44567001", "0003126", "7394"),
        "rib_9": ("22565002", "0004608", "8337"), "vertebra_l5": ("49668003", "0004621", "13076"),
    }  # fmt: skip
    for node_id, codes in published.items():
        assert tuple(SHIPPED[node_id].code(system) for system in ("SCT", "UBERON", "FMA")) == codes
    # SNOMED CT states a side by a modifier, so a sided node has only codes that themselves name the side.
    assert SHIPPED["kidney"].code("SCT") == "64033007" and SHIPPED["kidney_left"].code("SCT") == ""
    assert SHIPPED["kidney_left"].code("FMA") == "7205" and SHIPPED["kidney_right"].code("FMA") == "7204"


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("a", "a", xrefs=("SCT:12",)), "SCT:12"),
        (Node("a", "a", xrefs=("XYZ:1234567",)), "XYZ"),
        (Node("a", "a", xrefs=("FMA:1", "FMA:2")), "two concepts of FMA"),
        (Node("a", "a", body_part="tail"), "body_part 'tail'"),
    ],
)
def test_bad_identifiers_and_body_parts_name_the_node(node, message):
    with pytest.raises(InputError, match=message):
        Ontology([node])
    with pytest.raises(InputError, match="already identifies 'a'"):
        Ontology([Node("a", "a", xrefs=("FMA:1",)), Node("b", "b", xrefs=("FMA:1",))])


def test_a_data_set_without_a_table_has_that_of_its_collection():
    assert SHIPPED.with_table("BTCV", "imed361m") == "BTCV" and SHIPPED.with_table("MMWHS", "imed361m") == "imed361m"
    assert SHIPPED.with_table("mine", "coco") == "mine"
    assert SHIPPED.resolve("heart_ascending_aorta", source=SHIPPED.with_table("MMWHS", "imed361m")) == "ascending_aorta"
