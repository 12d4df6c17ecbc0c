"""Sizes that torch compares or makes up while it works out shapes, and which must leave the program as it is."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import sympy  # type: ignore[import-untyped]
import torch
from torch._export.utils import _get_shape_env_from_gm
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbolic
from torch.utils._sympy.functions import FloorDiv


@contextmanager
def without_pending_sizes(programs: Iterable[ExportedProgram]) -> Iterator[None]:
    """Afterwards no size that only a run knows waits for the result that has it: torch would trace the programs no more.

    ExecuTorch's passes make such sizes anew with each trace, in the environment of the program that is lowered.
    """
    try:
        yield
    finally:
        for environment in (_get_shape_env_from_gm(program.graph_module) for program in programs):
            if environment is not None:
                environment.pending_fresh_unbacked_symbols.clear()


@contextmanager
def sizes_left_open() -> Iterator[None]:
    """Within, torch narrows no symbolic size because of the example's: its answers hold for every length.

    Tracing asks of each size whether it is 1; of n - 1 and an example of 2 it would make n known. And the fake kernel of a
    convolution asks which library would compute it, for the order of the result's dimensions; oneDNN is chosen by the
    batch, below 16 and above. Nor does torch learn then that a size left over, `n * n // n`, is whole: that follows here.
    """
    convolutions = mock.patch.object(torch._C, "_select_conv_backend", _without_guards)  # noqa: SLF001 - no public name
    quotients = mock.patch.object(FloorDiv, "eval", _quotient_or_whole)
    with symbolic.patch(backed_size_oblivious=True), convolutions, quotients:  # type: ignore[attr-defined]
        yield


def whole_quotient(size: sympy.Expr, by: sympy.Expr) -> sympy.Expr | None:
    """A quotient of sizes, none of which is zero, where it leaves nothing: n of `n * n // n`."""
    if not (isinstance(size, sympy.Basic) and size.free_symbols & by.free_symbols):
        return None
    exact = sympy.cancel(size / by)
    return exact if sympy.denom(sympy.together(exact)) == 1 else None


_quotient = FloorDiv.eval


def _quotient_or_whole(size: sympy.Expr, by: sympy.Expr) -> sympy.Expr | None:
    exact = whole_quotient(size, by)
    return _quotient(size, by) if exact is None else exact


_select_conv_backend = torch._C._select_conv_backend  # noqa: SLF001


def _without_guards(source: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    sizes: tuple[Any, ...] = source.shape
    symbols = [s.node for s in sizes if isinstance(s, torch.SymInt)]
    environments = {id(s.shape_env): s.shape_env for s in symbols}
    with ExitStack() as stack:
        for environment in environments.values():
            stack.enter_context(environment.suppress_guards())
        return _select_conv_backend(source, *args, **kwargs)
