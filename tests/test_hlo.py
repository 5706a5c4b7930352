"""The reader of compiled programs: on lines as TPUs print them, and on programs that this machine compiles."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from launch import hlo
from launch.hlo_traffic import hbm_bytes

ROOT = pathlib.Path(__file__).parents[1]

# As v5e prints them, shortened. One gather runs beside two fusions and stands in both; the loop starts at 1.
TPU = """
HloModule jit_f, is_scheduled=true, num_partitions=4

%fused_start (param_0: bf16[1,64]) -> (bf16[1,64], bf16[1,256]) {
  %param_0 = bf16[1,64]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[1,256]{1,0:T(8,128)} all-gather(%param_0), channel_id=9, replica_groups={{0,1,2,3}}, \
dimensions={1}, backend_config={"async_collective_fusion_config":{"flag_start":"-1","flag_end":"-1"}}
  ROOT %custom-call.1 = (bf16[1,64]{1,0}, bf16[1,256]{1,0}) custom-call(%all-gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%fused_done (param_0: bf16[1,64]) -> bf16[1,256] {
  %param_0 = bf16[1,64]{1,0} parameter(0)
  %all-gather.2 = bf16[1,256]{1,0} all-gather(%param_0), channel_id=9, replica_groups={{0,1,2,3}}, dimensions={1}, \
backend_config={"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}}
  ROOT %custom-call.2 = bf16[1,256]{1,0} custom-call(%all-gather.2), custom_call_target="AsyncCollectiveDone"
}

%condition (counter: (s32[], bf16[1,64])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7)
  %counter = (s32[]{:T(128)}, bf16[1,64]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%counter), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %bound), direction=LT
}

%body (state: (s32[], bf16[1,64])) -> (s32[], bf16[1,64]) {
  %two = s32[]{:T(128)} constant(2)
  %state = (s32[]{:T(128)}, bf16[1,64]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %copy = s32[]{:T(128)S(6)} copy(%i)
  %add = s32[]{:T(128)} add(%copy, %two)
  %x = bf16[1,64]{1,0} get-tuple-element(%state), index=1
  %start = (bf16[1,64]{1,0}, bf16[1,256]{1,0}) fusion(%x), kind=kCustom, calls=%fused_start
  %done = bf16[1,256]{1,0} fusion(%x), kind=kCustom, calls=%fused_done
  %after-all = token[] after-all()
  %send = (bf16[1,64]{1,0}, u32[], token[]) send(%x, %after-all), channel_id=2, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",\
_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %tuple = (s32[]{:T(128)}, bf16[1,64]{1,0}) tuple(%add, /*index=1*/%x)
}

ENTRY %main (param: bf16[1,64]) -> bf16[1,64] {
  %param = bf16[1,64]{1,0} parameter(0)
  %one = s32[]{:T(128)} constant(1)
  %init = (s32[]{:T(128)}, bf16[1,64]{1,0}) tuple(%one, %param)
  %while = (s32[]{:T(128)}, bf16[1,64]{1,0}) while(%init), condition=%condition, body=%body
  ROOT %result = bf16[1,64]{1,0} get-tuple-element(%while), index=1
}
"""

# Compiles in a process that owns 8 fake devices; prints what the reader finds in each program.
PROGRAM = """
import json, jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P, AxisType
from launch import hlo
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
x = jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=jax.NamedSharding(mesh, P(("data", "fsdp"))))

def found(f, slices=(0,) * 8):
    mapped = jax.shard_map(f, mesh=mesh, in_specs=P(("data", "fsdp")), out_specs=P(("data", "fsdp")), check_vma=False)
    text = jax.jit(mapped).lower(x).compile().as_text()
    return [[c.kind, c.count, c.moved, c.group, c.dcn] for c in hlo.collectives(hlo.parse(text), slices)]

def scanned(x):
    def inner(x, _):
        return jnp.tanh(jax.lax.psum(x, "fsdp")), None
    def outer(x, _):
        x, _ = jax.lax.scan(inner, x, length=3)
        return jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]), None
    return jax.lax.scan(outer, x, length=5)[0]

two = [0, 0, 0, 0, 1, 1, 1, 1]
print(json.dumps({
    "all-gather": found(lambda x: jax.lax.all_gather(x, "fsdp", tiled=True).reshape(4, 64)[:1]),
    "reduce-scatter": found(lambda x: jax.lax.psum_scatter(jnp.tile(x, (4, 1)), "fsdp", tiled=True)),
    "all-to-all": found(lambda x: jax.lax.all_to_all(x.reshape(4, 16), "fsdp", 0, 0).reshape(1, 64)),
    "scanned": found(scanned),
    "inside": found(lambda x: jax.lax.psum(x, "fsdp"), two),
    "across": found(lambda x: jax.lax.psum(x, "data"), two),
    "everything": found(lambda x: jax.lax.psum(x, ("data", "fsdp")), two),
}))
"""


@pytest.fixture(scope="module")
def compiled() -> dict[str, list]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_device_receives_is_that_of_a_ring(compiled):
    row = 64 * 4  # bytes of a device's share
    assert compiled["all-gather"] == [["all-gather", 1, 3 * row, 4, False]]
    assert compiled["reduce-scatter"] == [["reduce-scatter", 1, 3 * row, 4, False]]
    assert compiled["all-to-all"] == [["all-to-all", 1, row * 3 / 4, 4, False]]


def test_collectives_in_loops_count_as_often_as_they_run(compiled):
    by_kind = {kind: (count, moved) for kind, count, moved, _, _ in compiled["scanned"]}
    assert by_kind == {"all-reduce": (15, 2 * 256 * 3 / 4), "collective-permute": (5, 256)}


def test_a_group_that_spans_slices_goes_over_the_data_center_network(compiled):
    assert [[group, dcn] for *_, group, dcn in compiled["inside"]] == [[4, False]]
    assert [[group, dcn] for *_, group, dcn in compiled["across"]] == [[2, True]]
    assert [[group, dcn] for *_, group, dcn in compiled["everything"]] == [[8, True]]


def test_a_tpu_program_counts_each_transfer_once_and_those_between_slices_as_sends():
    found = hlo.collectives(hlo.parse(TPU), [0] * 4)
    # 3 trips: 1, 3 and 5 are below 7
    assert [(each.kind, each.count, each.moved, each.group, each.dcn) for each in found] == [
        ("all-reduce", 3, 128.0, 2, True),
        ("all-gather", 3, 3 * 128.0, 4, False),
    ]


def test_all_notations_of_groups_name_the_same_devices():
    def read(attributes: str) -> list[list[int]]:
        return hlo.groups(hlo.Instruction("x", "f32[]", "all-reduce", (), f", {attributes}", False), 8)

    assert read("replica_groups=[2,4]<=[8], use_global_device_ids=true") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    mesh = "replica_groups=mesh['axis_0'=1,'axis_1'=2,'axis_2'=4], device_ids=([4,2]T(1,0)) "
    assert read(mesh + "{'axis_1'}, dimensions={1}") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert read(mesh + "{'axis_1','axis_2'}, channel_id=3") == [[0, 2, 4, 6, 1, 3, 5, 7]]
    assert read("replica_groups=mesh['a'=2,'b'=4] {'b'}") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    across = [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert read("replica_groups=[4,2]<=[2,4]T(1,0), channel_id=1") == across
    assert read("replica_groups={{0,4},{1,5},{2,6},{3,7}}, channel_id=1") == across
    assert read(mesh + "{'axis_2'}") == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert read("replica_groups={}") == [list(range(8))]
    with pytest.raises(ValueError, match="unknown notation"):
        read("replica_groups=something, channel_id=1")


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30),
        ("(s32[], pred[7]{0}, token[])", 11),
        ("s4[6]{0:E(4)}", 3),
        ("f8e4m3fn[10]{0}", 10),
    ],
)
def test_sizes_of_printed_shapes(shape, size):
    assert hlo.size(shape) == size


def test_memory_traffic_counts_slices_not_what_they_are_cut_from_and_nothing_on_chip():
    text = """
HloModule m

%cut (param_0: f32[10,256], param_1: s32[]) -> f32[1,256] {
  %param_0 = f32[10,256]{1,0} parameter(0)
  %param_1 = s32[]{:S(6)} parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,256]{1,0} dynamic-slice(%param_0, %param_1, %zero), dynamic_slice_sizes={1,256}
}

ENTRY %main (x: f32[10,256], i: s32[]) -> f32[1,256] {
  %x = f32[10,256]{1,0} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %row = f32[1,256]{1,0:S(1)} fusion(%x, %i), kind=kLoop, calls=%cut
  ROOT %twice = f32[1,256]{1,0} add(%row, %row)
}
"""
    # the fusion reads one row into on-chip memory, the addition writes one row back
    assert hbm_bytes(hlo.parse(text)) == 2 * 256 * 4
