"""CPU kernels that read tables, by name without overload."""

from typing import Final

from vkfuse.runtime.record import Operator, Table

_SCALED: Final = ("weight", "scales", "zero_points")
_OPERATORS: Final = (
    Operator(name="aten::embedding", arguments=("weight",), table=Table(consumer="gather")),
    *(
        Operator(
            name=f"quantized_decomposed::embedding_{kind}",
            arguments=_SCALED,
            table=Table(consumer="gather", scales="scales", also=("zero_points",), bits=bits),
        )
        for kind, bits in (("byte", None), ("2bit", 2), ("4bit", 4))
    ),
)
KERNELS: Final = {record.name: record for record in _OPERATORS}
