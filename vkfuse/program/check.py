"""Look through a .pt2 before anything in it is loaded: an untrusted file must run no code. Imports no torch.

Three things in an exported program can execute code when it is read: pickles (tensor-subclass weights, example inputs),
symbolic expressions, which sympy evaluates, and names of operators and variables, which torch resolves and writes into
Python source. Each is read here as data and compared with a list of what is allowed; only what was checked is handed on.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.mapping import map_file
from vkfuse.program.archive import Archive
from vkfuse.program.bounds import check_evaluated, check_excess, check_results, memory_limit
from vkfuse.program.declared import declared_bytes, declared_steps, stored_names
from vkfuse.program.pickles import HINT, check_pickle
from vkfuse.program.serialized import checked_model, checked_part
from vkfuse.pte.kinds import ARCHIVE, EXPORTED, other_kind

MODEL: Final = "models/model.json"
INPUTS: Final = "data/sample_inputs/model.pt"
_VERSION: Final = "0"  # torch/export/pt2_archive/constants.py, ARCHIVE_VERSION_VALUE
_MAX_PIPE: Final = 16 << 30  # bytes from a pipe, which are held in memory
_MAX_JSON_BYTES: Final = 256 << 20
_AGAIN: Final = "export the program again"

# What torch.export.save of torch 2.13 writes.
_MEMBER: Final = re.compile(
    r"models/model\.json|data/weights/(model_weights_config\.json|weight_\d+)"
    r"|data/constants/(model_constants_config\.json|tensor_\d+)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
    r"|extra/(?!.*(^|/)\.\.(/|$)).*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A stored tensor by its `name` in the program: the member that holds it, pickled by torch.save or as raw bytes.

    `meta` is its serialized TensorMeta (torch/_export/serde/schema.py), None where the pickle has it.
    """

    name: str
    member: str
    pickled: bool
    parameter: bool
    meta: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A .pt2 that may be loaded. `model` is None where the user trusts the file: nothing was looked at then."""

    name: str
    archive: Archive
    model: dict[str, Any] | None = None
    weights: tuple[Payload, ...] = ()
    constants: tuple[Payload, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.archive.data.nbytes

    @property
    def nodes(self) -> int | None:
        """How many nodes its graph has, None where nothing was looked at."""
        return None if self.model is None else len(self.model["graph_module"]["graph"]["nodes"])


def open_checked(path: Path, *, allow_pickle: bool = False, max_memory: int | None = None) -> Checked:
    """Open a .pt2 at `path`, or on stdin where it is `-`, and refuse what could run code or is no exported program.

    With `allow_pickle` the file is trusted: only its kind is checked. `max_memory` bounds what its constants declare.
    Raises InputError (unreadable, no zip, truncated, TorchScript, no program, beyond all bounds) and UnsafePickleError,
    with what it names.
    """
    name = "stdin" if str(path) == "-" else str(path)
    archive = Archive(map_file(path, writable=True, limit=_MAX_PIPE, begins=b"PK"), name)
    _check_kind(archive)
    if allow_pickle:
        return Checked(name=name, archive=archive)
    _check_members(archive)
    payloads = {kind: tuple(_payloads(archive, kind)) for kind in ("weights", "constants")}
    pickled = [p.member for of in payloads.values() for p in of if p.pickled]
    for member in dict.fromkeys([*pickled, *([INPUTS] if INPUTS in archive else [])]):
        inside = Archive(archive.read(member), f"{name}: {member}")
        check_pickle(bytes(inside.read(_pickle_of(inside))), f"{name}: {member}")
    checked = Checked(
        name=name,
        archive=archive,
        model=checked_model(_json(archive, MODEL), f"{name}: {MODEL}"),
        **payloads,
    )
    _check_sizes(checked, max_memory)
    return checked


def _check_sizes(checked: Checked, max_memory: int | None) -> None:
    """Raise InputError where the sizes that the file declares are beyond all bounds, or are none."""
    limit = memory_limit(checked.bytes, max_memory)
    where = f"{checked.name}: {MODEL}"
    try:
        raw = [p for p in (*checked.weights, *checked.constants) if p.meta is not None and not p.pickled]
        sizes = [(declared_bytes(p.meta), checked.archive.size(p.member)) for p in raw if p.meta]
        check_excess(sum(max(0, whole - stored) for whole, stored in sizes), limit, checked.name)
        model = checked.model or {}
        steps = declared_steps(model)
        check_results(steps, checked.bytes, max_memory, where)
        check_evaluated(steps, stored_names(model), limit, where)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: {error!r}", hint=_AGAIN) from error


def _check_kind(archive: Archive) -> None:
    if any(re.search(r"(^|/)models/[^/]+\.json$", name) for name in archive.names):
        return
    kind = other_kind(archive.data)
    if kind not in {None, EXPORTED, ARCHIVE}:
        raise InputError(f"{archive.where}: this is {kind[0]}, no exported program", hint=kind[1])
    raise InputError(
        f"{archive.where}: the archive holds no exported program (no models/model.json)",
        hint="write it with torch.export.save(program, 'model.pt2') of torch 2.8 or later",
    )


def _check_members(archive: Archive) -> None:
    """Raise UnsafePickleError for a member that torch.export.save does not write, InputError for another version."""
    for member in archive.names:
        if not _MEMBER.fullmatch(member):
            raise UnsafePickleError(
                f"{archive.where}: torch.export.save writes no member {member!r}", hint=HINT
            )
    if MODEL not in archive:
        raise UnsafePickleError(f"{archive.where}: the program is not {MODEL}", hint=HINT)
    version = bytes(archive.read("archive_version")) if "archive_version" in archive else b"none"
    if version != _VERSION.encode():
        raise InputError(f"{archive.where}: archive_version is {version[:20]!r}, not {_VERSION}", hint=_AGAIN)


def _json(archive: Archive, member: str) -> Any:
    where = f"{archive.where}: {member}"
    if archive.size(member) > _MAX_JSON_BYTES:
        raise InputError(f"{where} is larger than {_MAX_JSON_BYTES >> 20} MiB", hint=_AGAIN)
    try:
        return json.loads(bytes(archive.read(member)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}", hint=_AGAIN) from error


def _payloads(archive: Archive, kind: str) -> list[Payload]:
    """The tensors of one kind, as their configuration declares them (torch/export/pt2_archive/_package.py)."""
    config = f"data/{kind}/model_{kind}_config.json"
    where = f"{archive.where}: {config}"
    if config not in archive:
        raise InputError(f"{where} is missing", hint=_AGAIN)
    entries = checked_part(_json(archive, config), where)
    try:
        found = [_payload(kind, name, entry) for name, entry in entries["config"].items()]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{where}: {error!r}", hint=_AGAIN) from error
    for payload in found:
        if payload.member not in archive or (payload.meta is None and not payload.pickled):
            raise InputError(f"{where}: {payload.name}: no {payload.member}, or no tensor_meta", hint=_AGAIN)
    return found


def _payload(kind: str, name: str, entry: Any) -> Payload:
    return Payload(
        name=name,
        member=f"data/{kind}/{entry['path_name']}",
        pickled=entry["use_pickle"] is not False,
        parameter=entry["is_param"] is True,
        meta=entry["tensor_meta"],
    )


def _pickle_of(archive: Archive) -> str:
    """The one pickle of a torch.save file."""
    pickles = [name for name in archive.names if name.lower().endswith(".pkl")]
    if pickles != ["data.pkl"]:
        raise UnsafePickleError(f"{archive.where}: not one data.pkl, as torch.save writes it", hint=HINT)
    return pickles[0]
