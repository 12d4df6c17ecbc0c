"""What a method of a .pte can be called with, and can compute with."""

import re
from collections.abc import Iterator, Mapping

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    InputKind,
    OutputKind,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
)

from vkfuse.errors import LoweringError

_NUMBERS = (SymIntArgument, SymFloatArgument, SymBoolArgument)


def check_types(methods: Mapping[str, ExportedProgram]) -> None:
    """Raise LoweringError for complex numbers, which neither a .pte's schema nor any kernel of ExecuTorch has."""
    for method, exported in methods.items():
        for node in exported.graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and value.is_complex():
                raise LoweringError(
                    f"{node.name} of {method} ({node.target}) computes complex numbers, which ExecuTorch has not",
                    hint="compute with the real and imaginary parts: a Fourier transform is a product with its matrix",
                )


def check_kernels(methods: Mapping[str, ExportedProgram]) -> None:
    """Raise LoweringError for what its kernel refuses when it runs: a convolution of volumes.

    kernels/portable/cpu/util/kernel_ops_util.cpp, check_convolution_args: of sequences and images.
    """
    for method, exported in methods.items():
        for node in exported.graph.nodes:
            if node.target in _CONVOLUTIONS and node.args[0].meta["val"].ndim > _IMAGES:
                raise LoweringError(
                    f"{node.name} of {method} is a convolution of volumes, which no kernel of ExecuTorch computes",
                    hint="those with constant weights are rewritten; transposed with strides, those of static images",
                )


_CONVOLUTIONS = (
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv3d.padding,
    torch.ops.aten.conv_transpose3d.input,
    torch.ops.aten.convolution.default,
)
_IMAGES = 4


def check_has_kernels(methods: Mapping[str, ExportedProgram], said: str) -> None:
    """Raise LoweringError where ExecuTorch `said` that operators have no kernels: which, where, and what to do.

    exir/passes/__init__.py, ToOutVarPass: ``Missing out variants: {'aten::geqrf'}``.
    """
    if not said.startswith(_NO_KERNELS):
        return
    names = sorted(_NAME.findall(said))
    nodes = [
        f"{node.name} of {method}"
        for method, exported in methods.items()
        for node in exported.graph.nodes
        if getattr(node.target, "_schema", None) is not None and node.target._schema.name in names  # noqa: SLF001
    ]
    where = f" ({', '.join(nodes[:_SHOWN])}{', ...' if len(nodes) > _SHOWN else ''})" if nodes else ""
    raise LoweringError(
        f"ExecuTorch has no kernel of {' and '.join(names)}{where}",
        hint=next((_TRAINING for name in names if name in _DRAWN), _OTHERWISE),
    )


_NO_KERNELS = "Missing out variants: "
_NAME = re.compile(r"'([\w:.]+)'")
_SHOWN = 4  # nodes in a message
_DRAWN = frozenset({"aten::rrelu_with_noise", "aten::rrelu_with_noise_functional"})
_TRAINING = "it draws random slopes in training: export the model after model.eval()"
_OTHERWISE = "write it in other operators of torch, or choose a variant of the model that does without"


def check_callable(methods: Mapping[str, ExportedProgram]) -> None:
    """Raise LoweringError for an input that is a number and may change, or that is written to.

    ExecuTorch types a number None (exir/emit/_emitter.py, placeholder), and Method::set_input takes none for that. What is
    written to an input is in the method's own copy of it, and comes out in front of the program's results.
    """
    for method, exported in methods.items():
        for result in exported.graph_signature.output_specs:
            if result.kind is OutputKind.USER_INPUT_MUTATION:
                raise LoweringError(
                    f"input {result.target} of {method} is written to, which a caller of ExecuTorch would not see",
                    hint="return the new value as an output, or keep it in a buffer of the model",
                )
        for spec in exported.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, _NUMBERS):
                raise LoweringError(
                    f"input {spec.arg.name} of {method} is a number; no ExecuTorch runtime takes one that changes",
                    hint="export it as a tensor, or without dynamic_shapes for it as a constant",
                )


def dynamic_inputs(exported: ExportedProgram) -> Iterator[str]:
    """Inputs whose sizes may change, with the dimensions that do: ``ids (dimensions 0, 1)``."""
    inputs = {*exported.graph_signature.user_inputs}
    for node in exported.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if node.name in inputs and isinstance(value, torch.Tensor):
            changing = [str(at) for at, size in enumerate(value.shape) if not isinstance(size, int)]
            if changing:
                yield f"{node.name} (dimension{'s' * (len(changing) > 1)} {', '.join(changing)})"
