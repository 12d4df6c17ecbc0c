"""Look through a .pt2 before anything in it is loaded: an untrusted file must run no code.

Three things in an exported program can execute code when ``torch.export.load`` reads it: pickles (tensor-subclass
weights, example inputs, custom objects), symbolic expressions (parsed with ``sympy.sympify``, which evaluates) and
operator targets (resolved with ``getattr`` from ``torch``, called when the graph is traced). Each is read here as
data and compared with an allowlist. Imports neither torch nor torchao.
"""

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from vkfuse.errors import InputError, UnsafePickleError

_TORCH_NAMES = frozenset(
    {
        "torch.Size",
        "torch.device",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_wrapper_subclass",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.UntypedStorage",
        "torch.storage.TypedStorage",
        "collections.OrderedDict",
        "builtins.set",
        "builtins.frozenset",
        "builtins.complex",
        "builtins.slice",
    }
)
_TORCHAO_NAMES = frozenset(
    {
        "torchao.dtypes.affine_quantized_tensor.AffineQuantizedTensor",
        "torchao.dtypes.uintx.plain_layout.PlainAQTTensorImpl",
        "torchao.dtypes.utils.PlainLayout",
        "torchao.quantization.Float8Tensor",
        "torchao.quantization.Int4PlainInt32Tensor",
        "torchao.quantization.Int4PreshuffledTensor",
        "torchao.quantization.Int4Tensor",
        "torchao.quantization.Int4TilePackedTo4dTensor",
        "torchao.quantization.Int8Tensor",
        "torchao.quantization.IntxOpaqueTensor",
        "torchao.quantization.IntxUnpackedToInt8Tensor",
        "torchao.quantization.granularity.PerAxis",
        "torchao.quantization.granularity.PerBlock",
        "torchao.quantization.granularity.PerGroup",
        "torchao.quantization.granularity.PerRow",
        "torchao.quantization.granularity.PerTensor",
        "torchao.quantization.granularity.PerToken",
        "torchao.quantization.linear_activation_quantized_tensor.LinearActivationQuantizedTensor",
        "torchao.quantization.quant_primitives.MappingType",
        "torchao.quantization.quant_primitives.ZeroPointDomain",
        "torchao.quantization.quantize_.common.kernel_preference.KernelPreference",
        "torchao.quantization.quantize_.workflows.int8.int8_tensor.QuantizeTensorToInt8Kwargs",
        "torchao.quantization.quantize_.workflows.intx.intx_packing_format.IntxPackingFormat",
        "torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor.IntxUnpackedToInt8TensorActivationQuantization",
    }
)
_TORCH_DTYPE = re.compile(
    r"torch\.(u?int\d+|float\d+(_\w+)?|bfloat16|complex\d+|bool|half|double|long|short|\w+Storage)$"
)
_STRING_OPS = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"}
)
_PUT_OPS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET_OPS = frozenset({"GET", "BINGET", "LONG_BINGET"})

_TARGET = re.compile(
    r"torch\.ops\.(?!_)\w+\.(?!__)\w+(\.(?!__)\w+)?$|_?operator\.(?!__)\w+$|math\.\w+$|torch\.sym_\w+$|torch\._sym_\w+$"
)
_DUNDER_TARGET = re.compile(r"torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__\.\w+$")
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=!&|~]*$")
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z_]|__")
_SYMBOL = re.compile(r"Symbol\('(\w+)'")
_CALLABLE = re.compile(r"([A-Za-z_]\w*)\s*\(")
_SYMPY_FUNCTIONS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "CeilDiv",
        "CeilToInt",
        "CleanDiv",
        "Eq",
        "Equality",
        "FloatPow",
        "FloatTrueDiv",
        "FloorDiv",
        "FloorToInt",
        "Float",
        "Ge",
        "GreaterThan",
        "Gt",
        "Identity",
        "Integer",
        "IntTrueDiv",
        "Le",
        "LessThan",
        "LShift",
        "Lt",
        "Max",
        "Min",
        "Mod",
        "ModularIndexing",
        "Mul",
        "Ne",
        "Not",
        "Or",
        "PowByNatural",
        "Pow",
        "PythonMod",
        "Rational",
        "RoundDecimal",
        "RoundToInt",
        "RShift",
        "StrictGreaterThan",
        "StrictLessThan",
        "Symbol",
        "ToFloat",
        "TruncToFloat",
        "TruncToInt",
        "Unequality",
        "Where",
        "ceiling",
        "floor",
    ]
)
_MAX_JSON_BYTES = 1 << 30


def check_archive(source: IO[bytes], name: str, *, allow_pickle: bool) -> None:
    """Refuse an archive that is no exported program or that could run code when loaded.

    With `allow_pickle` pickles are not judged; operators and expressions still are.

    Raises InputError (no zip, truncated, TorchScript, no program) and UnsafePickleError (the name that it wanted).
    """
    with _open_archive(source, name) as archive:
        members = archive.namelist()
        _check_kind(members, name)
        pickled: set[str] = set()
        for model in _models(members):
            _check_model(_read_json(archive, model, name), f"{name}: {model}")
        if allow_pickle:
            return
        for member in _pickled_members(archive, members, name):
            pickled |= _globals_of_member(_read(archive, member, name), f"{name}: {member}")
    _judge(pickled, name)


def _open_archive(source: IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        source.seek(0)
        if source.read(2) == b"PK":
            raise InputError(
                f"{name}: truncated archive: {error}", hint="copy or export the file again"
            ) from error
        raise InputError(
            f"{name}: not a .pt2 file (no zip archive)",
            hint="write it with torch.export.save(program, 'model.pt2')",
        ) from error


def _check_kind(members: list[str], name: str) -> None:
    if _models(members):
        return
    if any(m.endswith("/constants.pkl") or "/code/" in m for m in members):
        raise InputError(
            f"{name}: a TorchScript file, not an exported program",
            hint="export the original module with torch.export.export and torch.export.save",
        )
    raise InputError(
        f"{name}: the archive holds no exported program (no models/*.json)",
        hint="write it with torch.export.save(program, 'model.pt2') of torch 2.8 or later",
    )


def _models(members: list[str]) -> list[str]:
    return [m for m in members if re.search(r"(^|/)models/[^/]+\.json$", m)]


def _read(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name}: {member} cannot be read: {error}", hint="copy or export the file again"
        ) from error


def _read_json(archive: zipfile.ZipFile, member: str, name: str) -> Any:
    if archive.getinfo(member).file_size > _MAX_JSON_BYTES:
        raise InputError(f"{name}: {member} is larger than 1 GiB", hint="export the program again")
    try:
        return json.loads(_read(archive, member, name))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: {member} is not JSON: {error}", hint="export the program again") from error


def _pickled_members(archive: zipfile.ZipFile, members: list[str], name: str) -> Iterator[str]:
    """Members that ``torch.export.load`` unpickles: what its configuration files do not declare as raw bytes."""
    raw = set()
    for config in (m for m in members if re.search(r"/data/(weights|constants)/\w+_config\.json$", m)):
        folder = config.rsplit("/", 1)[0]
        entries = _read_json(archive, config, name).get("config", {})
        raw |= {f"{folder}/{e.get('path_name')}" for e in entries.values() if e.get("use_pickle") is False}
    for member in members:
        in_data = re.search(r"/data/(weights|constants|sample_inputs)/", member)
        if (in_data and member not in raw and not member.endswith("_config.json")) or member.endswith(
            (".pt", ".pkl", ".pth")
        ):
            yield member


def _globals_of_member(data: bytes, where: str) -> set[str]:
    """Qualified names that a torch.save file or a bare pickle would import."""
    if data[:4] != b"PK\x03\x04":
        return pickle_globals(data, where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as nested:
            pickles = [m for m in nested.namelist() if m.endswith(".pkl")]
            return {g for m in pickles for g in pickle_globals(nested.read(m), f"{where}/{m}")}
    except zipfile.BadZipFile as error:
        raise InputError(f"{where}: damaged: {error}", hint="copy or export the file again") from error


def pickle_globals(data: bytes, where: str) -> set[str]:
    """Qualified names that a pickle would import, read opcode by opcode without running it.

    Raises UnsafePickleError where the name cannot be told from the opcodes alone.
    """
    found: set[str] = set()
    memo: dict[int, str | None] = {}
    strings: list[str | None] = [None, None]  # the last two pushes, None where not a string
    last: str | None = None  # the string that the previous opcode left on top, if any
    try:
        for opcode, arg, _ in pickletools.genops(data):
            if opcode.name in {"EXT1", "EXT2", "EXT4"}:
                raise UnsafePickleError(
                    f"{where}: the pickle uses the copyreg extension registry", hint=_PICKLE_HINT
                )
            if opcode.name in {"GLOBAL", "INST"}:
                found.add(str(arg).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                if None in strings:
                    raise UnsafePickleError(
                        f"{where}: the pickle computes the name that it imports", hint=_PICKLE_HINT
                    )
                found.add(".".join(str(s) for s in strings))
            if opcode.name in _PUT_OPS:
                memo[int(str(arg))] = last
                continue
            if opcode.name == "MEMOIZE":
                memo[len(memo)] = last
                continue
            last = (
                str(arg)
                if opcode.name in _STRING_OPS
                else memo.get(int(str(arg)))
                if opcode.name in _GET_OPS
                else None
            )
            strings = [strings[1], last]
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"{where}: not a readable pickle: {error}", hint="export the program again"
        ) from error
    return found


_PICKLE_HINT = "load it with --allow-pickle only if you trust who made the file"


def _judge(names: set[str], where: str) -> None:
    for name in sorted(names):
        if name not in _TORCH_NAMES and name not in _TORCHAO_NAMES and not _TORCH_DTYPE.match(name):
            raise UnsafePickleError(
                f"{where}: a pickle inside wants to import {name!r}, which is not allowed", hint=_PICKLE_HINT
            )


def _check_model(model: Any, where: str) -> None:
    """Check every operator target and symbolic expression of a serialized graph."""
    stack: list[Any] = [model]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if isinstance(item.get("expr_str"), str):
                _check_expression(item["expr_str"], where)
            for symbol in item.get("range_constraints") or ():
                _check_expression(symbol, where)
            if isinstance(item.get("target"), str) and "inputs" in item and "outputs" in item:
                _check_target(item["target"], where)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_target(target: str, where: str) -> None:
    if not _TARGET.match(target) and not _DUNDER_TARGET.match(target):
        raise UnsafePickleError(
            f"{where}: {target!r} is no operator", hint="export the program again from its source"
        )


def _check_expression(expression: str, where: str) -> None:
    without_numbers = re.sub(r"\d+\.\d*", "0", _SYMBOL.sub(r"Symbol(\1", expression))
    calls = set(_CALLABLE.findall(without_numbers))
    if (
        not _EXPRESSION.match(without_numbers)
        or _ATTRIBUTE.search(without_numbers)
        or not calls <= _SYMPY_FUNCTIONS
    ):
        raise UnsafePickleError(
            f"{where}: {expression[:80]!r} is no plain symbolic expression",
            hint="export the program again from its source",
        )
