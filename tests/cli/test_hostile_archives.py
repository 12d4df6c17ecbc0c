"""An untrusted .pt2 runs no code: each archive here would leave a file, or import a module, if it were just loaded."""

import contextlib
import copy
import json
import pickle
import sys

import pytest
from archives import (
    CONSTANTS,
    MODEL,
    WEIGHT,
    WEIGHTS,
    Touch,
    behind_another,
    legacy_torch_file,
    take_apart,
    torch_file,
    with_two_directories,
    zipped,
)

from vkfuse.errors import InputError, UnsafePickleError
from vkfuse.guard import check_archive
from vkfuse.program import load

HARMLESS = pickle.dumps(1, protocol=2)
HEADER = (("archive/byteorder", b"little"), ("archive/version", b"3\n"))
UNIMPORTED = "this"  # a module of the standard library that nothing imports


class Hostile:
    """Ways to make an archive hostile; `bad` pickles run a command, `evil` expressions too."""

    def __init__(self, mark):
        self.bad = {protocol: pickle.dumps(Touch(mark), protocol=protocol) for protocol in (0, 2, 4)}
        self.evil = f"__import__('os').system('touch {mark}')"
        self.legacy = legacy_torch_file(Touch(mark))

    def weight_of_protocol_0(self, archive):
        archive.members[WEIGHT] = torch_file(self.bad[0])

    def weight_of_protocol_2(self, archive):
        archive.members[WEIGHT] = torch_file(self.bad[2])

    def weight_of_protocol_4(self, archive):
        archive.members[WEIGHT] = torch_file(self.bad[4])

    def weight_that_is_a_bare_pickle(self, archive):
        archive.members[WEIGHT] = self.bad[4]

    def weight_in_the_format_before_zip(self, archive):
        archive.members[WEIGHT] = self.legacy

    def weight_with_its_pickle_in_capitals(self, archive):
        archive.members[WEIGHT] = zipped((("archive/data.PKL", self.bad[2]), *HEADER))

    def weight_with_two_pickles(self, archive):
        archive.members[WEIGHT] = zipped(
            (("archive/data.pkl", self.bad[2]), *HEADER, ("archive/data.pkl", HARMLESS))
        )

    def weight_with_two_pickles_but_for_case(self, archive):
        archive.members[WEIGHT] = zipped(
            (("archive/DATA.PKL", self.bad[2]), ("archive/data.pkl", HARMLESS), *HEADER)
        )

    def weight_declared_as_pickle_and_as_raw(self, archive):
        padded = (torch_file(self.bad[2], {"padding": b"x" * n}) for n in range(8))
        archive.members[WEIGHT] = next(data for data in padded if len(data) % 4 == 0)
        archive.edit_json(WEIGHTS, lambda config: _declare_raw(config["config"], "weight_0"))

    def weight_named_like_a_configuration(self, archive):
        archive.members["data/weights/a_config.json"] = torch_file(self.bad[2])
        archive.edit_json(WEIGHTS, lambda config: _rename(config["config"], "a_config.json"))

    def weight_in_the_legacy_place_declared_raw(self, archive):
        archive.members["data/weights/model.pt"] = torch_file(self.bad[2])
        archive.edit_json(WEIGHTS, lambda config: _declare_raw(config["config"], "model.pt"))

    def weight_stored_twice(self, archive):
        archive.extra.append((WEIGHT, archive.members[WEIGHT]))
        archive.members[WEIGHT] = torch_file(self.bad[2])

    def weight_in_a_folder_of_other_case(self, archive):
        del archive.members[WEIGHT]
        archive.members = {"DATA/weights/weight_0": torch_file(self.bad[2]), **archive.members}

    def opaque_constant_declared_raw(self, archive):
        archive.members["data/constants/opaque_obj_0"] = self.bad[2]
        entry = json.loads(archive.members[WEIGHTS])["config"]["table.weight"]
        meta = {
            **entry["tensor_meta"],
            "dtype": 1,
            "sizes": [{"as_int": len(self.bad[2])}],
            "strides": [{"as_int": 1}],
        }
        constant = {**entry, "path_name": "opaque_obj_0", "use_pickle": False, "tensor_meta": meta}
        archive.edit_json(CONSTANTS, lambda config: config["config"].update(constant=constant))

    def example_inputs(self, archive):
        archive.members["data/sample_inputs/model.pt"] = torch_file(self.bad[2])

    def expression_as_a_size(self, archive):
        archive.edit_json(MODEL, self._spoil)

    def expression_as_a_bound(self, archive):
        archive.edit_json(
            MODEL, lambda model: model["range_constraints"].update({self.evil: {"min_val": 1, "max_val": 4}})
        )

    def expression_in_a_second_model_of_another_suffix(self, archive):
        archive.members["models/modelxxxxx"] = archive.members[MODEL]
        archive.edit_json("models/modelxxxxx", self._spoil)

    def expression_in_the_layout_of_torch_2_7(self, archive):
        archive.edit_json(MODEL, self._spoil)
        empty = torch_file(pickle.dumps({}, protocol=2))
        archive.members = {
            "x/models/model.json": b"{}",
            "version": b"8.20",
            "serialized_exported_program.json": archive.members[MODEL],
            "serialized_state_dict.pt": empty,
            "serialized_constants.pt": empty,
            "serialized_example_inputs.pt": torch_file(pickle.dumps(((), {}), protocol=2)),
        }
        archive.folder = ""

    def _spoil(self, model):
        sizes = model["graph_module"]["graph"]["tensor_values"]["tokens"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": self.evil, "hint": {"as_int": 2}}}

    def operator_that_is_a_function_of_python(self, archive):
        archive.edit_json(MODEL, lambda model: _retarget(model, "os.system"))

    def operator_that_is_an_attribute_of_one(self, archive):
        archive.edit_json(MODEL, lambda model: _retarget(model, "torch.ops.aten.__class__.__subclasses__"))

    def compiled_model_beside_the_program(self, archive):
        archive.members["data/aotinductor/model/model.so"] = b"\x7fELF"

    def structure_with_an_enum_of_any_module(self, archive):
        hook = json.dumps({"__enum__": True, "fqn": f"{UNIMPORTED}:s", "name": "s"})
        _restructure(archive, lambda spec: spec.update(context=hook))

    def structure_with_a_factory_of_any_module(self, archive):
        context = {"default_factory_module": UNIMPORTED, "default_factory_name": "s", "dict_context": []}
        _restructure(
            archive,
            lambda spec: spec["children_spec"][1].update(type="collections.defaultdict", context=context),
        )


# Ways to hide an archive in another: readers of zip files disagree on where the directory is.
TWO_FACES = {"behind another": behind_another, "by a second directory": with_two_directories}


def _declare_raw(config, path):
    """Add a float tensor of one element whose bytes are those of `path`."""
    entry = config["table.weight"]
    meta = {**entry["tensor_meta"], "sizes": [{"as_int": 1}], "strides": [{"as_int": 1}]}
    config["more"] = {**entry, "path_name": path, "use_pickle": False, "tensor_meta": meta}


def _rename(config, path):
    config["table.weight"]["path_name"] = path


def _retarget(model, target):
    model["graph_module"]["graph"]["nodes"][0]["target"] = target


def _restructure(archive, change):
    """Change how the program's inputs are nested."""

    def edit(model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                protocol, spec = json.loads(entry["signature"]["in_spec"])
                change(spec)
                entry["signature"]["in_spec"] = json.dumps([protocol, spec])

    archive.edit_json(MODEL, edit)


WAYS = [name for name in vars(Hostile) if not name.startswith("_")]


@pytest.fixture(scope="module")
def archive(program):
    """The members of a good archive; take a copy."""
    return take_apart(program)


def _written(archive, folder):
    path = folder / "model.pt2"
    path.write_bytes(archive.encoded())
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_hostile_archive_runs(way, archive, tmp_path):
    """The archive is refused, by the guard and not by chance later, and neither code nor import has happened."""
    mark = tmp_path / "ran"
    hostile = copy.deepcopy(archive)
    getattr(Hostile(mark), way)(hostile)
    path = _written(hostile, tmp_path)
    sys.modules.pop(UNIMPORTED, None)
    try:
        with path.open("rb") as stream, pytest.raises(InputError) as refused:
            check_archive(stream, "hostile.pt2", allow_pickle=False)
        assert refused.value.hint
    finally:
        with pytest.raises(InputError):
            load(path)
        assert not mark.exists()
        assert UNIMPORTED not in sys.modules


@pytest.mark.parametrize("hide", TWO_FACES.values(), ids=TWO_FACES)
@pytest.mark.parametrize("member", [MODEL, WEIGHT], ids=["expression", "weight"])
def test_what_was_checked_is_what_is_loaded(hide, member, archive, tmp_path):
    """A file that shows Python's zip reader one archive and torch's another runs nothing of the other."""
    mark = tmp_path / "ran"
    hostile, shown = copy.deepcopy(archive), copy.deepcopy(archive)
    if member == MODEL:
        Hostile(mark).expression_as_a_size(hostile)
    else:
        Hostile(mark).weight_of_protocol_2(hostile)
    size = max(len(a.members[member]) for a in (hostile, shown))
    for each in (hostile, shown):
        padding = size - len(each.members[member])
        each.members[member] += b" " * padding if member == MODEL else b""
        each.members["extra/padding"] = b"" if member == MODEL else b" " * padding
    path = tmp_path / "hostile.pt2"
    path.write_bytes(hide(shown.encoded(), hostile.encoded()))
    with contextlib.suppress(InputError):
        load(path)
    assert not mark.exists()


def test_the_refused_name_is_told(archive, tmp_path):
    """The error names what the pickle wanted to import, and the option for those who trust the file."""
    hostile = copy.deepcopy(archive)
    hostile.members[WEIGHT] = torch_file(pickle.dumps(Touch(tmp_path / "ran"), protocol=4))
    with pytest.raises(UnsafePickleError, match=r"posix\.system") as refused:
        load(_written(hostile, tmp_path))
    assert "--allow-pickle" in refused.value.hint


def test_with_allow_pickle_the_user_decides(archive, tmp_path):
    """The option lets a pickle through that the guard refuses; it is the only thing that does."""
    mark = tmp_path / "ran"
    trusted = copy.deepcopy(archive)
    trusted.members["data/sample_inputs/model.pt"] = torch_file(pickle.dumps(Touch(mark), protocol=2))
    path = _written(trusted, tmp_path)
    with pytest.raises(UnsafePickleError):
        load(path)
    assert not mark.exists()
    with pytest.raises(InputError):  # an exit code is no example input
        load(path, allow_pickle=True)
    assert mark.exists()


def test_an_archive_put_together_again_still_loads(archive, tmp_path):
    """What the tests change is what is refused: the same members unchanged load."""
    path = _written(archive, tmp_path)
    assert load(path).bytes == path.stat().st_size
