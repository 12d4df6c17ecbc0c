"""How inputs and results are nested, said in what a file can name: a .pte's values are flat."""

from dataclasses import replace
from typing import Any, Final

from torch.export import ExportedProgram
from torch.utils._pytree import TreeSpec, treespec_dumps

from vkfuse.program.parts import with_parts

_NAMED: Final = (tuple, list, dict, type(None))


def nested_in_tuples(exported: ExportedProgram) -> ExportedProgram:
    """The program with tuples for the classes that torch has no name for in a file: named tuples, results of ``topk``.

    ExecuTorch writes the nesting into the file (exir/emit/_emitter.py, create_container_str); no runtime reads it.
    """
    whole, *parts = exported.module_call_graph
    if whole.signature is None or (
        _has_names(whole.signature.in_spec) and _has_names(whole.signature.out_spec)
    ):
        return exported
    signature = replace(
        whole.signature,
        in_spec=_in_tuples(whole.signature.in_spec),
        out_spec=_in_tuples(whole.signature.out_spec),
    )
    return with_parts(exported, module_call_graph=[replace(whole, signature=signature), *parts])


def _has_names(spec: TreeSpec) -> bool:
    try:
        treespec_dumps(spec)
    except NotImplementedError:
        return False
    return True


def _in_tuples(spec: TreeSpec) -> TreeSpec:
    if spec.is_leaf():
        return spec
    children: list[Any] = [_in_tuples(child) for child in spec.children()]
    if spec.type in _NAMED:
        return TreeSpec(spec.type, spec._context, children)  # noqa: SLF001 - its constructor's argument
    return TreeSpec(tuple, None, children)
