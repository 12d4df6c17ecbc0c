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
import shutil
import tempfile
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


def check_archive(source: IO[bytes], name: str, *, allow_pickle: bool) -> IO[bytes]:
    """Refuse an archive that is no exported program or that could run code when loaded; give what may be loaded.

    That is a fresh archive of just what was checked: two readers of one zip file may see two archives in it. With
    `allow_pickle` the source is trusted: only its kind is checked, and it is given as it is.

    Raises InputError (no zip, truncated, TorchScript, no program) and UnsafePickleError (the name that it wanted).
    """
    with _open_archive(source, name) as archive:
        _check_kind(archive.namelist(), name)
        if allow_pickle:
            source.seek(0)
            return source
        members = _known_members(archive, name)
        _check_model(_read_json(archive, members["models/model.json"], name), f"{name}: models/model.json")
        for member in _pickled_members(archive, members, name):
            _check_globals(_globals_of_member(_read(archive, member, name), f"{name}: {member}"), name)
        return _copied(archive, members)


def _check_globals(wanted: set[str], name: str) -> None:
    for qualified in sorted(wanted):
        if not is_allowed(qualified):
            raise UnsafePickleError(
                f"{name}: a pickle inside wants to import {qualified!r}, which is not allowed",
                hint=_PICKLE_HINT,
            )


def _copied(archive: zipfile.ZipFile, members: dict[str, str]) -> IO[bytes]:
    """A temporary archive with the members as they were read here."""
    fresh = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with zipfile.ZipFile(fresh, "w") as out:
        for member in members.values():
            with archive.open(member) as old, out.open(member, "w", force_zip64=True) as new:
                shutil.copyfileobj(old, new, 1 << 20)
    fresh.seek(0)
    return fresh


def is_allowed(qualified: str) -> bool:
    """Whether a pickle may import `qualified` (module.name): tensors, torchao's tensor classes and enums, containers."""
    return qualified in _TORCH_NAMES or qualified in _TORCHAO_NAMES or bool(_TORCH_DTYPE.match(qualified))


def _open_archive(source: IO[bytes], name: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(source)
    except zipfile.BadZipFile as error:
        source.seek(0)
        if source.read(2) == b"PK":
            raise _truncated(name, str(error)) from error
        raise InputError(
            f"{name}: not a .pt2 file (no zip archive)",
            hint="write it with torch.export.save(program, 'model.pt2')",
        ) from error
    if archive.filelist and min(info.header_offset for info in archive.filelist) > 0:
        raise _truncated(name, "the directory found is that of a file inside it")
    return archive


def _truncated(name: str, why: str) -> InputError:
    return InputError(f"{name}: truncated archive: {why}", hint="copy or export the file again")


def _check_kind(members: list[str], name: str) -> None:
    if any(re.search(r"(^|/)models/[^/]+\.json$", m) for m in members):
        return
    if any(m.endswith("/constants.pkl") or "/code/" in m for m in members):
        raise InputError(
            f"{name}: a TorchScript file, not an exported program",
            hint="export the original module with torch.export.export and torch.export.save",
        )
    raise InputError(
        f"{name}: the archive holds no exported program (no models/model.json)",
        hint="write it with torch.export.save(program, 'model.pt2') of torch 2.8 or later",
    )


# What torch.export.save of torch 2.13 writes. A reader that finds a member by another name, in another case or twice would
# read something else than was checked here.
_MEMBER = re.compile(
    r"models/model\.json|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment|extra/.*"
)


def _known_members(archive: zipfile.ZipFile, where: str) -> dict[str, str]:
    """The members by their names inside the archive's one folder.

    Raises UnsafePickleError for a member that torch.export.save does not write.
    """
    names = archive.namelist()
    _check_stored(archive, where)
    folders = {n.split("/", 1)[0] for n in names}
    if len(folders) != 1 or len({n.casefold() for n in names}) != len(names):
        raise UnsafePickleError(f"{where}: the archive's members are ambiguous", hint=_PICKLE_HINT)
    inside = {n.split("/", 1)[-1]: n for n in names}
    for member in inside:
        if not _MEMBER.fullmatch(member):
            raise UnsafePickleError(
                f"{where}: torch.export.save writes no member {member!r}", hint=_PICKLE_HINT
            )
    if "models/model.json" not in inside:
        raise UnsafePickleError(f"{where}: the program is not models/model.json", hint=_PICKLE_HINT)
    return inside


def _check_stored(archive: zipfile.ZipFile, where: str) -> None:
    """Torch stores members as they are; a compressed one may be a thousand times as large as the file."""
    if any(
        info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size
        for info in archive.filelist
    ):
        raise InputError(
            f"{where}: the archive is compressed", hint="zip it without compression (zip -0), as torch does"
        )


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


def _pickled_members(archive: zipfile.ZipFile, members: dict[str, str], name: str) -> Iterator[str]:
    """Members that ``torch.export.load`` unpickles: what its configuration files do not declare as raw bytes."""
    for kind in ("weights", "constants"):
        config = members.get(f"data/{kind}/model_{kind}_config.json")
        pickled = _declared(_read_json(archive, config, name), f"{name}: {config}") if config else {}
        for inside, member in members.items():
            if (
                inside.startswith(f"data/{kind}/")
                and member != config
                and pickled.get(inside.rsplit("/", 1)[-1], True)
            ):
                yield member
    if "data/sample_inputs/model.pt" in members:
        yield members["data/sample_inputs/model.pt"]


def _declared(config: Any, where: str) -> dict[str, bool]:
    """Whether any entry of a configuration file has each member unpickled."""
    try:
        entries = [(e["path_name"], e["use_pickle"] is not False) for e in config["config"].values()]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: no path_name or use_pickle", hint="export the program again") from error
    return {path: any(pickled for other, pickled in entries if other == path) for path, _ in entries}


def _globals_of_member(data: bytes, where: str) -> set[str]:
    """Qualified names that a torch.save file would import."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as nested:
            names = nested.namelist()
            _check_stored(nested, where)
            pickles = [m for m in names if m.lower().endswith(".pkl")]
            if len(pickles) != 1 or len({n.casefold() for n in names}) != len(names):
                raise UnsafePickleError(f"{where}: the member's pickles are ambiguous", hint=_PICKLE_HINT)
            return pickle_globals(nested.read(pickles[0]), f"{where}/{pickles[0]}")
    except zipfile.BadZipFile as error:
        raise UnsafePickleError(
            f"{where}: no zip file as torch.save has written since 1.6", hint="export the program again"
        ) from error


def _imported(data: bytes, at: int, where: str) -> str:
    """The qualified name of the opcode at `at`: a line for the module and one for the name, as they stand.

    pickletools undoes escapes in them, which an unpickler does not.
    """
    middle = data.index(b"\n", at)
    lines = data[at + 1 : middle], data[middle + 1 : data.index(b"\n", middle + 1)]
    if not all(_QUALIFIED.fullmatch(line) for line in lines):
        raise UnsafePickleError(f"{where}: the pickle imports an odd name: {lines}", hint=_PICKLE_HINT)
    return b".".join(lines).decode()


_QUALIFIED = re.compile(rb"[A-Za-z0-9_.]+")


def pickle_globals(data: bytes, where: str) -> set[str]:
    """Qualified names that a pickle would import, read opcode by opcode without running it.

    Raises UnsafePickleError where the name cannot be told from the opcodes alone.
    """
    found: set[str] = set()
    memo: dict[int, str | None] = {}
    strings: list[str | None] = [None, None]  # the last two pushes, None where not a string
    last: str | None = None  # the string that the previous opcode left on top, if any
    try:
        for opcode, arg, at in pickletools.genops(data):
            if opcode.name in {"EXT1", "EXT2", "EXT4"}:
                raise UnsafePickleError(
                    f"{where}: the pickle uses the copyreg extension registry", hint=_PICKLE_HINT
                )
            if opcode.name in {"GLOBAL", "INST"}:
                found.add(_imported(data, int(at or 0), where))
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
            for spec in (item.get("in_spec"), item.get("out_spec")):
                _check_treespec(spec, where)
            if isinstance(item.get("target"), str) and "inputs" in item and "outputs" in item:
                _check_target(item["target"], where)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_treespec(spec: Any, where: str) -> None:
    """Contexts of a pytree import modules by name: those of enums and default dicts (torch/utils/_pytree.py)."""
    if isinstance(spec, str) and any(word in spec for word in ("__enum__", "defaultdict")):
        raise UnsafePickleError(
            f"{where}: inputs or outputs name classes to import", hint="pass and return tensors"
        )


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
