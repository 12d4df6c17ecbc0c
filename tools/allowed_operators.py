"""The operators that an untrusted program may name: a walk over every schema that torch and its libraries register.

    python tools/allowed_operators.py > vkfuse/program/operators.json

An operator is left out when its schema or its name shows that it touches something outside of the program (a file, a
device, a process, a generator, a thread), frees or retypes memory, is of training, or exists for TorchScript alone.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import executorch.backends.vulkan.custom_ops_lib
import executorch.exir
import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401 - registers llama's operators
import torch
import torchao.quantization  # noqa: F401 - registers torchao's operators

NAMESPACES = (
    "aten",
    "dim_order_ops",
    "et_vk",
    "export",
    "llama",
    "prims",
    "quantized_decomposed",
    "torchao",
)
# Tensors and plain values. Not: Storage, Stream, futures, remote references, custom classes, dictionaries, type variables.
PLAIN = re.compile(
    r"(Optional\[)?(List\[)?(Optional\[)?(Tensor|int|float|bool|number|complex|str|Device|Generator)\]*"
)
# Words that an operator's name consists of, split at underscores.
OUTSIDE = frozenset(
    [
        *(
            "cuda",
            "cudnn",
            "cufft",
            "cutlass",
            "hip",
            "miopen",
            "mkldnn",
            "mps",
            "nnpack",
            "vulkan",
            "xla",
        ),  # devices
        *("device", "file", "foobar", "load", "make", "print", "save", "sink", "test", "warn", "xnnpack"),
        *("dual", "grad", "pin", "pinned", "record", "requires", "retain", "seed", "seeds", "stream"),
        *("data", "fbgemm", "resize", "set", "storage"),  # memory under a tensor
        # indices that kernels do not check
        *(
            "bsc",
            "bsr",
            "coalesce",
            "coalesced",
            "coo",
            "csc",
            "csr",
            "cslt",
            "jagged",
            "nested",
            "nnz",
            "sparse",
        ),
        *("adagrad", "adam", "adamw", "amp", "backward", "foreach", "fused", "sgd", "unscale"),  # training
        *("inductor", "prepack"),  # a compiler's
    ]
)
# Strings that spell a choice. A file's name, a message to print and TorchScript's texts are called otherwise.
CHOICES = frozenset(
    [
        *(
            "activation",
            "approximate",
            "assert_msg",
            "attr",
            "driver",
            "equation",
            "indexing",
            "interpolation",
        ),
        *("mapping_type", "mode", "norm", "ord", "p", "pad_mode", "padding", "padding_side", "reduce"),
        *("rounding_mode", "score_func", "side", "UPLO"),
    ]
)


def schemas() -> Iterator[Any]:
    """Every registered schema of the namespaces, by name and overload."""
    for schema in torch._C._jit_get_all_schemas():  # noqa: SLF001 - torch has no public list
        if schema.name.partition("::")[0] in NAMESPACES:
            yield schema


def why_not(schema: Any) -> str:  # noqa: PLR0911 - a rule each
    """Why an operator is not allowed; empty where it is."""
    name = schema.name.partition("::")[2]
    values = [*schema.arguments, *schema.returns]
    kinds = [str(value.type) for value in values]
    texts = {a.name for a in schema.arguments if "str" in str(a.type)} - CHOICES
    outside = OUTSIDE & set(name.split("_"))
    if outside:
        return f"named {min(outside)}"
    if odd := [kind for kind in kinds if not PLAIN.fullmatch(kind)]:
        return f"takes or gives {odd[0]}"
    if texts or any("str" in str(value.type) for value in schema.returns):
        return f"takes or gives text: {', '.join(sorted(texts))}"
    if "Generator" in kinds:
        return "needs a generator"
    if any(a.is_out for a in schema.arguments):
        return "writes to an argument that is its result"
    if not any("Tensor" in kind for kind in kinds) and not name.startswith(("sym_", "_assert_scalar")):
        return "computes with no tensor"
    return ""


def allowed() -> dict[str, dict[str, list[str]]]:
    """Overloads by namespace and name, sorted; "default" is the overload without a name."""
    found: dict[str, dict[str, list[str]]] = {}
    for schema in schemas():
        namespace, _, name = schema.name.partition("::")
        if not why_not(schema):
            found.setdefault(namespace, {}).setdefault(name, []).append(schema.overload_name or "default")
    return {
        space: {name: sorted(set(names[name])) for name in sorted(names)}
        for space, names in sorted(found.items())
    }


def main() -> None:
    """Print the list as JSON, a line an operator."""
    text = json.dumps(allowed(), indent=1)
    print(re.sub(r"\[\s+([^\]]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text))


if __name__ == "__main__":
    main()
