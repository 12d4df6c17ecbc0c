"""CPU kernels that read tables, by name without overload."""

from typing import Final

from vkfuse.runtime.record import Operator, TableArguments

_OPERATORS: Final = (
    Operator("aten::embedding", "weight indices", table=TableArguments(consumer="gather")),
    *(
        Operator(
            f"quantized_decomposed::embedding_{kind}",
            "weight scales zero_points quant_min quant_max indices",
            table=TableArguments(consumer="gather", scales="scales", also=("zero_points",), bits=bits),
        )
        for kind, bits in (("byte", None), ("2bit", 2), ("4bit", 4))
    ),
)
KERNELS: Final = {record.name: record for record in _OPERATORS}
