"""What an untrusted program may name: operators, symbolic arithmetic, structures, classes in pickles. Imports no torch."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

# Classes and functions that torch.save's pickles of tensors import.
_OF_TORCH: Final = """
torch.Size torch.Tensor torch.device torch._tensor._rebuild_from_type_v2
torch._utils._rebuild_parameter torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2
torch._utils._rebuild_tensor_v3 torch._utils._rebuild_wrapper_subclass torch.nn.parameter.Parameter
torch.serialization._get_layout torch.storage.UntypedStorage torch.storage.TypedStorage
collections.OrderedDict builtins.set builtins.frozenset builtins.complex builtins.slice
"""
_OF_TORCHAO: Final = """
torchao.dtypes.affine_quantized_tensor.AffineQuantizedTensor
torchao.dtypes.uintx.plain_layout.PlainAQTTensorImpl torchao.dtypes.utils.PlainLayout
torchao.quantization.Float8Tensor torchao.quantization.Int4PlainInt32Tensor
torchao.quantization.Int4PreshuffledTensor torchao.quantization.Int4Tensor
torchao.quantization.Int4TilePackedTo4dTensor torchao.quantization.Int8Tensor
torchao.quantization.IntxOpaqueTensor torchao.quantization.IntxUnpackedToInt8Tensor
torchao.quantization.granularity.PerAxis torchao.quantization.granularity.PerBlock
torchao.quantization.granularity.PerGroup torchao.quantization.granularity.PerRow
torchao.quantization.granularity.PerTensor torchao.quantization.granularity.PerToken
torchao.quantization.linear_activation_quantized_tensor.LinearActivationQuantizedTensor
torchao.quantization.quant_primitives.MappingType
torchao.quantization.quant_primitives.ZeroPointDomain
torchao.quantization.quantize_.common.kernel_preference.KernelPreference
torchao.quantization.quantize_.workflows.int8.int8_tensor.QuantizeTensorToInt8Kwargs
torchao.quantization.quantize_.workflows.intx.intx_packing_format.IntxPackingFormat
torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor.IntxUnpackedToInt8TensorActivationQuantization
"""
_CLASSES: Final = frozenset(f"{_OF_TORCH} {_OF_TORCHAO}".split())
_TORCH_DTYPE: Final = re.compile(
    r"torch\.(u?int\d+|float\d+(_\w+)?|bfloat16|complex\d+|bool|half|double|long|short|\w+Storage)"
)

# torch/_export/serde/serialize.py, _SYM_OPS, as torch spells them in a program; `getitem` picks one of several results.
_ARITHMETIC: Final = """
add and_ eq floordiv ge getitem gt le lshift lt mod mul ne neg or_ pos pow rshift sub truediv
"""
SYMBOLIC: Final = frozenset(
    [
        *(f"_operator.{name}" for name in _ARITHMETIC.split()),
        *(f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not")),
        *("torch._sym_sqrt", "math.trunc"),
    ]
)
# Operators on graphs, which are checked as the program is.
_ON_GRAPHS: Final = """
auto_functionalized auto_functionalized_v2 cond map_impl scan while_loop wrap_with_autocast
wrap_with_set_grad_enabled
"""
HIGHER_ORDER: Final = frozenset(_ON_GRAPHS.split())
OPERATOR_ARGUMENT: Final = frozenset(
    {"auto_functionalized", "auto_functionalized_v2"}
)  # take an operator first

# Structures of inputs and outputs (torch/utils/_pytree.py) that are rebuilt without importing anything.
_NESTED: Final = """
builtins.tuple builtins.list builtins.dict collections.OrderedDict collections.deque
collections.namedtuple torch.fx.immutable_collections.immutable_list
torch.fx.immutable_collections.immutable_dict
"""
STRUCTURES: Final = frozenset(_NESTED.split())

# Namespaces that torch, torchao and ExecuTorch register operators in (torch._C._dispatch_get_all_op_names()).
_SPACES: Final = """
aten prim prims sym rngprims inductor_prims debugprims _native _dtensor c10d _c10d_functional
_c10d_functional_autograd c10d_functional fsdp symm_mem streams quantized _quantized
quantized_decomposed quantization quant_fusion sparse mkl mkldnn mkldnn_prepacked onednn onnx
onnx_symbolic preprocess profiler static_runtime inductor _test _inductor_test cplib debug_mode_ops
flex_lib higher_order torchao float8_sparse export executorch executorch_prim dim_order_ops et_copy
et_vk llama
"""
NAMESPACES: Final = frozenset(_SPACES.split())
_OPERATOR: Final = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)")
_HIGHER_ORDER: Final = re.compile(r"torch\.ops\.higher_order\.(\w+)")


def is_allowed_class(qualified: str) -> bool:
    """Whether a pickle may import `qualified` (module.name): tensors, torchao's tensor classes and enums, containers."""
    return qualified in _CLASSES or _TORCH_DTYPE.fullmatch(qualified) is not None


def is_allowed_target(target: str) -> bool:
    """Whether a node of a serialized graph may call `target` (`torch.ops.aten.add.Tensor`, `_operator.mul`)."""
    return target in SYMBOLIC or is_allowed_operator(target) or higher_order_name(target) in HIGHER_ORDER


def is_allowed_operator(target: str) -> bool:
    """Whether `target` is an operator of the list: `torch.ops.NAMESPACE.NAME.OVERLOAD`."""
    parts = _OPERATOR.fullmatch(target)
    if parts is None:
        return False
    return parts[3] in _operators().get(parts[1], {}).get(parts[2], ()) or is_imported(
        ".".join(parts.groups())
    )


def is_foreign_operator(target: str) -> bool:
    """Whether `target` is an operator of a namespace that neither torch nor ExecuTorch has."""
    parts = _OPERATOR.fullmatch(target)
    return parts is not None and parts[1] not in NAMESPACES


def admit(operators: Iterable[str]) -> None:
    """Allow programs to call `operators` (`namespace.name.overload`), for as long as the process that has them lives."""
    _IMPORTED.update(operators)


def is_imported(operator: str) -> bool:
    """Whether `operator` was admitted."""
    return operator in _IMPORTED


_IMPORTED: Final[set[str]] = set()  # as torch's own registry of operators, of the process
IMPORT_HINT: Final = "name the Python module that registers it with --import MODULE; the module's code is run"


def higher_order_name(target: str) -> str:
    """`torch.ops.higher_order.cond` -> `cond`; empty for anything else."""
    parts = _HIGHER_ORDER.fullmatch(target)
    return parts[1] if parts else ""


@cache
def _operators() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """Overloads by namespace and name; `tools/allowed_operators.py` writes the list."""
    listed = json.loads((files("vkfuse.program") / "operators.json").read_text("utf-8"))
    return MappingProxyType(
        {space: {name: frozenset(of) for name, of in names.items()} for space, names in listed.items()}
    )
