"""The mesh: its spelling, its refusals, where parameters lie, and that devices are chosen as promised."""

import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxvsr.devices import choose_devices
from jaxvsr.devices.accelerators import Accelerators
from jaxvsr.devices.compiled import CompiledFunction
from jaxvsr.devices.mesh_shape import MeshShape, check_mesh, parse_mesh
from jaxvsr.errors import InputError
from jaxvsr.models import layer_product, qwen_vl, vision
from jaxvsr.models.lora import LoraConfig
from jaxvsr.models.model_config import FamilyName, ModelConfig, TextConfig, VisionConfig
from jaxvsr.models.qwen_vl import bind, model_definition, parameter_shapes
from jaxvsr.models.sharding import parameter_spec, without_fsdp
from jaxvsr.models.tree import ForwardOptions, tree_logprobs
from tests.support.forks import said_by
from tests.support.trees import random_parameters, random_tree, small_config


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("8", MeshShape(fsdp=8)),
        ("1", MeshShape()),
        ("fsdp=2,tensor=2", MeshShape(fsdp=2, tensor=2)),
        ("data=2, fsdp=3", MeshShape(data=2, fsdp=3)),
    ],
)
def test_a_mesh_is_given_as_a_number_or_as_axes(spec: str, shape: MeshShape) -> None:
    assert parse_mesh(spec) == shape
    assert parse_mesh(str(shape)) == shape


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("tensr=2", "'tensor'"),
        ("fsdp=2,fsdp=2", "twice"),
        ("0", "'0'"),
        ("fsdp=two", "'two'"),
        ("", "''"),
        ("-8", "'-8'"),
    ],
)
def test_a_wrong_mesh_is_refused_in_one_line_that_names_it(spec: str, named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        parse_mesh(spec)
    assert "\n" not in str(error.value)


def test_a_mesh_must_divide_scenes_and_heads() -> None:
    check_mesh(MeshShape(fsdp=4, tensor=2), scenes=8, attention_heads=12)
    with pytest.raises(InputError, match=r"data\.scenes=6 .* 4; take data\.scenes=8"):
        check_mesh(MeshShape(fsdp=4), scenes=6)
    check_mesh(MeshShape(fsdp=4), scenes=8, accumulation=2)
    with pytest.raises(InputError, match=r"update.accumulation=4: .*take data.scenes=16 or a smaller"):
        check_mesh(MeshShape(fsdp=4), scenes=8, accumulation=4)
    with pytest.raises(InputError, match="tensor=8 does not divide the model's 12"):
        check_mesh(MeshShape(tensor=8), scenes=8, attention_heads=12)


def tiny_config(key_heads: int = 2, hidden: int = 32) -> ModelConfig:
    vision = VisionConfig(
        depth=2, embed_dim=16, num_heads=2, intermediate_size=20, out_hidden_size=hidden, hidden_act="quick_gelu"
    )
    text = TextConfig(
        vocab_size=96,
        hidden_size=hidden,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        rope_theta=1e4,
        mrope_section=(2, 1, 1),
    )
    return ModelConfig("qwen2_vl", text, vision, 90, 91, 92, 93, dtype="float32")


def test_every_split_is_even_and_every_large_parameter_is_split() -> None:
    mesh = {"data": 1, "fsdp": 2, "tensor": 2}
    config = tiny_config()
    whole = []
    for name, leaf in parameter_shapes(config).items():
        shape = leaf.shape
        spec = parameter_spec(name, shape, mesh, config)
        for size, axis in zip(shape, spec, strict=False):
            assert axis is None or size % mesh[axis] == 0
        if len(shape) >= 2 and math.prod(shape) > 1000 and not any(spec):
            whole.append(name)
    assert whole == []


def test_up_and_down_projections_are_split_over_tensor_on_their_shared_axis() -> None:
    mesh = {"data": 1, "fsdp": 4, "tensor": 2}
    assert parameter_spec("language_model.layers.mlp.up_proj.weight", (28, 8960, 1536), mesh) == PartitionSpec(
        None, "tensor", "fsdp"
    )
    down = parameter_spec("language_model.layers.mlp.down_proj.weight", (28, 1536, 8960), mesh)
    assert down == PartitionSpec(None, "fsdp", "tensor")
    assert without_fsdp(down) == PartitionSpec(None, None, "tensor")


def test_parameters_that_do_not_divide_are_replicated() -> None:
    mesh = {"data": 1, "fsdp": 8, "tensor": 1}
    assert parameter_spec("visual.blocks.mlp.gate_proj.weight", (32, 3420, 1280), mesh) == PartitionSpec()


def test_key_heads_are_never_split() -> None:
    mesh = {"data": 1, "fsdp": 1, "tensor": 4}
    config = tiny_config(key_heads=2)
    name = "language_model.layers.self_attn.{}_proj.weight"
    assert parameter_spec(name.format("q"), (3, 32, 32), mesh, config) == PartitionSpec(None, "tensor", "fsdp")
    assert parameter_spec(name.format("k"), (3, 16, 32), mesh, config) == PartitionSpec(None, None, "fsdp")


def test_a_gpu_that_jax_cannot_use_stops_the_run_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_devices, "find_accelerators", lambda: Accelerators(nvidia=8, driver=580))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(
        InputError, match=r"8 NVIDIA GPU.* sees only the CPU: pip install 'jaxvsr\[cuda13\]', or --device cpu"
    ):
        choose_devices.choose_devices("auto", MeshShape(fsdp=8))


def test_asking_for_a_gpu_where_jax_starts_on_a_tpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_devices, "find_accelerators", lambda: Accelerators(nvidia=1, tpus=4))
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="tpu")])
    with pytest.raises(InputError, match="device gpu: JAX starts on TPU"):
        choose_devices.choose_devices("gpu", None)


def test_asking_for_a_gpu_on_a_machine_without_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_devices, "find_accelerators", Accelerators)
    with pytest.raises(InputError, match=r"no GPU that can be opened \(found: no accelerator"):
        choose_devices.choose_devices("gpu", None)
    with pytest.raises(InputError, match=r"no TPU .*/dev/vfio"):
        choose_devices.choose_devices("tpu", None)


_VIRTUAL = """
import json
from jaxvsr.devices.choose_devices import choose_devices, describe_devices
from jaxvsr.devices.mesh import loader_share, make_mesh, scene_rows
from jaxvsr.devices.mesh_shape import parse_mesh
import jax, jax.numpy as jnp
shape = parse_mesh("fsdp=4,tensor=2")
chosen = choose_devices("cpu", shape)
mesh = make_mesh(shape, chosen)
placed = jax.device_put(jnp.arange(8.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp"))))
print(json.dumps({"line": describe_devices(chosen, shape), "axes": str(mesh.axis_types), "rows": scene_rows(mesh, 8),
                  "share": loader_share(mesh, 8), "sum": float(jax.jit(jnp.sum)(placed))}))
"""


@pytest.mark.slow
def test_eight_virtual_devices_on_a_machine_without_accelerators_say_so() -> None:
    seen = json.loads(said_by(_VIRTUAL))
    assert seen["line"].startswith("8 virtual CPU devices (") and seen["line"].endswith("mesh fsdp=4,tensor=2")
    assert seen["axes"].count("Auto") == 3
    assert (seen["rows"], seen["share"], seen["sum"]) == ([0, 8], [0, 1], 28.0)


def test_one_cpu_device_is_not_called_virtual() -> None:
    assert choose_devices.describe_devices(jax.devices()[:1], MeshShape()).startswith("1 CPU device (")


def test_an_out_of_memory_error_names_the_function_and_its_bucket(monkeypatch) -> None:
    function = CompiledFunction("update", lambda x: x + 1)
    for size in (2, 3):
        function(jnp.zeros(size))
    program = list(function.compiled.values())[1]

    class Full:
        memory_analysis = staticmethod(program.memory_analysis)

        def __call__(self, *leaves):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9.5GiB.")

    function.compiled[list(function.compiled)[1]] = Full()
    function(jnp.zeros(2))
    with (
        pytest.raises(
            InputError, match=r"in update, bucket 2, which needs [\d.e-]+ GiB .*9.5GiB more .*model.remat=full"
        ),
        choose_devices.explain_out_of_memory(MeshShape()),
    ):
        function(jnp.zeros(3))


def test_an_out_of_memory_error_says_what_to_change_first() -> None:
    with (
        pytest.raises(InputError, match=r"1\.5GiB more .* first --set model\.remat=full"),
        choose_devices.explain_out_of_memory(MeshShape()),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.5GiB.")
    kernel = "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:\nRan out of memory in memory space vmem while"
    for other in ("INTERNAL: something else", kernel):
        with pytest.raises(jax.errors.JaxRuntimeError), choose_devices.explain_out_of_memory(MeshShape()):
            raise jax.errors.JaxRuntimeError(other)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_layers_gather_their_weights_by_the_names_that_the_table_splits(
    family: FamilyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set()

    def noted(weight: jax.Array, name: str) -> jax.Array:
        asked.add(name)
        return weight

    for module in (layer_product, vision, qwen_vl):
        monkeypatch.setattr(module, "gathered", noted)
    config, lora = small_config(family, tied=False), LoraConfig(2, 2.0)
    case = random_tree(1, 1, 1)
    model = bind(model_definition(config, lora), random_parameters(config, lora, jnp.float32))
    jax.eval_shape(lambda: tree_logprobs(model, *case.on_device, 1.0, ForwardOptions()))
    split = {
        name
        for name, leaf in parameter_shapes(config, lora).items()
        if "fsdp" in parameter_spec(name, leaf.shape, {"data": 1, "fsdp": 2, "tensor": 2}, config)
    }
    looked_up = {name for name in split if "embed" in name and "patch_embed" not in name}
    assert len(split) > 20
    assert sorted(split - looked_up - asked) == []


_KEPT = """
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 8)
from jax.sharding import NamedSharding, PartitionSpec
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
from jaxvsr.models.layer_product import matmul_transposed
from jaxvsr.models.layers import rematerialised
from jaxvsr.models.sharding import gathered

mesh = make_mesh(parse_mesh("8"), jax.devices())

def layer(x, weight):
    return jnp.sin(matmul_transposed(x, gathered(weight, "language_model.layers.mlp.up_proj.weight"))), None

def loss(x, weights):
    return jnp.sum(jax.lax.scan(rematerialised(layer, "none", in_scan=True), x, weights)[0])

def on(shape, *spec):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

with jax.set_mesh(mesh):
    program = jax.jit(jax.grad(loss)).lower(on((8, 8, 512), "fsdp"), on((16, 512, 512), None, None, "fsdp")).compile()
print(program.memory_analysis().temp_size_in_bytes)
"""


def test_no_layer_keeps_its_gathered_weight_for_the_backward_pass() -> None:
    """Sixteen layers of 1 MiB: two at a time, where all sixteen were kept."""
    assert int(said_by(_KEPT)) < 3 * 2**20


_GRADIENTS = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
from jaxvsr.devices.mesh import make_mesh
from jaxvsr.devices.mesh_shape import parse_mesh
from jaxvsr.models.qwen_vl import bind, model_definition
from jaxvsr.models.sharding import parameter_shardings
from jaxvsr.models.tree import ForwardOptions, tree_logprobs
from tests.support.trees import random_parameters, random_tree, small_config

config = small_config(sys.argv[1], key_heads=2)
case, definition = random_tree(4, 2, 2), model_definition(config)
parameters = random_parameters(config, None, jnp.float32)
weights = np.random.default_rng(7).normal(size=case.mask.shape) * case.mask

def gradients(mesh, remat):
    def loss(parameters):
        options = ForwardOptions(unroll=False, remat=remat)
        return jnp.sum(tree_logprobs(bind(definition, parameters), *case.on_device, 0.7, options)[0] * weights)

    lie = parameter_shardings(parameters, mesh, config)
    with jax.set_mesh(mesh):
        run = jax.jit(jax.grad(loss), in_shardings=(lie,), out_shardings=lie)
        return jax.device_get(run(jax.device_put(parameters, lie)))

one = gradients(make_mesh(parse_mesh("1"), jax.devices()[:1]), "none")
norm, far = np.linalg.norm, {}
for spec in sys.argv[2:]:
    shape = parse_mesh(spec)
    many = gradients(make_mesh(shape, jax.devices()[:shape.devices]), "full" if shape.data > 1 else "none")
    far[spec] = {name: float(norm(many[name] - leaf) / norm(leaf)) for name, leaf in one.items() if norm(leaf) > 1e-6}
print(json.dumps(far))
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_gradients_of_all_weights_are_those_of_one_device(family: FamilyName) -> None:
    """Over fsdp, over all three axes, where tensor splits key heads and where it does not, and where scenes do not
    divide over devices."""
    meshes = ["fsdp=4", "data=2,fsdp=2,tensor=2", "fsdp=2,tensor=4", "fsdp=8"]
    far = json.loads(said_by(_GRADIENTS, family, *meshes))
    assert list(far) == meshes
    for mesh, gradients in far.items():
        assert len(gradients) > 20
        assert max(gradients.values()) <= 1e-5, (mesh, max(gradients, key=lambda name: gradients[name]))
