"""Archives that would run a command, import a module or fill the memory, if they were just loaded.

    python tests/hostile/techniques.py MODEL.pt2 FOLDER    writes one of each technique, made of a good program

Each leaves a file, and nothing else, where it succeeds; those of `Bombs` are small and would become large.
"""

import copy
import json
import pickle
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

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

HARMLESS = pickle.dumps(1, protocol=2)
INPUTS = "data/sample_inputs/model.pt"
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

    def weight_that_is_an_attribute_of_a_class(self, archive):
        """Sets an attribute of torch's class of modules."""
        path = "__class__.__base__.__base__.dump_patches"
        archive.edit_json(WEIGHTS, lambda config: _named(config["config"], path))
        archive.edit_json(MODEL, lambda model: _as_buffer(model, path))

    def state_of_a_function(self, archive):
        """Sets the defaults of what rebuilds every tensor in the process."""
        function = b"ctorch._utils\n_rebuild_tensor_v2\n"
        state = b"N}X\x0c\0\0\0__defaults__Ns\x86"
        archive.members[INPUTS] = torch_file(b"\x80\2" + function + state + b"b0)}\x86.")

    def state_of_a_class(self, archive):
        a_class = b"ctorchao.quantization.granularity\nPerGroup\n"
        state = b"N}X\x06\0\0\0evil__K\1s\x86"
        archive.members[INPUTS] = torch_file(b"\x80\2" + a_class + state + b"b0)}\x86.")

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

    def structure_with_an_enum_spelled_with_escapes(self, archive):
        hook = f'{{"\\u005f\\u005fenum__": true, "fqn": "{UNIMPORTED}", "name": "s"}}'
        _restructure(archive, lambda spec: spec["children_spec"][1].update(context=hook))

    def structure_with_an_enum_in_a_field_of_texts(self, archive):
        hook = f'{{"as_string": {{"\\u005f_enum__": true, "fqn": "{UNIMPORTED}:s", "name": "s"}}}}'
        _restructure(archive, lambda spec: spec["children_spec"][1].update(context=hook))

    def structure_with_a_factory_of_any_module(self, archive):
        context = {"default_factory_module": UNIMPORTED, "default_factory_name": "s", "dict_context": []}
        _restructure(
            archive,
            lambda spec: spec["children_spec"][1].update(type="collections.defaultdict", context=context),
        )

    def class_whose_field_is_source(self, archive):
        as_class(archive, [f"x={self.evil}"])

    def class_whose_field_is_an_attribute(self, archive):
        as_class(archive, ["x.__class__"])

    def class_with_a_field_twice(self, archive):
        as_class(archive, ["x", "x"])

    def class_with_more_fields_than_values(self, archive):
        as_class(archive, ["x", "y"], values=1)

    def class_whose_fields_are_numbers(self, archive):
        as_class(archive, [1])

    def class_whose_fields_are_a_mapping(self, archive):
        as_class(archive, {"x": 1})

    def class_that_is_no_name(self, archive):
        as_class(archive, ["x"], kind={"x": 1})

    def class_within_itself_without_an_end(self, archive):
        def edit(entry):
            start, end = '{"type": "a.B", "context": "[\\"x\\"]", "children_spec": [', "]}"
            entry["out_spec"] = f"[1, {start * 50_000}{end * 50_000}]"

        _edit_signatures(archive, edit)


# Ways to hide an archive in another: readers of zip files disagree on where the directory is.
TWO_FACES = {"behind another": behind_another, "by a second directory": with_two_directories}


def _declare_raw(config, path):
    """Add a float tensor of one element whose bytes are those of `path`."""
    entry = config["table.weight"]
    meta = {**entry["tensor_meta"], "sizes": [{"as_int": 1}], "strides": [{"as_int": 1}]}
    config["more"] = {**entry, "path_name": path, "use_pickle": False, "tensor_meta": meta}


def _named(config, path):
    config[path] = config.pop("table.weight")


def _as_buffer(model, path):
    spec = {"buffer": {"arg": {"name": "p_table_weight"}, "buffer_name": path, "persistent": True}}
    model["graph_module"]["signature"]["input_specs"][0] = spec


def _rename(config, path):
    config["table.weight"]["path_name"] = path


def _retarget(model, target):
    model["graph_module"]["graph"]["nodes"][0]["target"] = target


def _restructure(archive, change, part="in_spec"):
    """Change how the program's inputs, or outputs, are nested."""

    def edit(signature):
        protocol, spec = json.loads(signature[part])
        change(spec)
        signature[part] = json.dumps([protocol, spec])

    _edit_signatures(archive, edit)


def _edit_signatures(archive, edit):
    def edit_all(model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                edit(entry["signature"])

    archive.edit_json(MODEL, edit_all)


def as_class(archive, fields, *, kind="some.Output", values=None, part="out_spec"):
    """Let outputs, or keyword inputs, be of a class that names its fields."""
    leaf = {"type": None, "context": None, "children_spec": []}
    context, children = json.dumps(fields), [leaf] * (len(fields) if values is None else values)

    def change(spec):
        of = spec if part == "out_spec" else spec["children_spec"][1]
        of.update(type=kind, context=context, children_spec=children)

    _restructure(archive, change, part)


def _graph(model):
    return model["graph_module"]["graph"]


def _argument(name, value, kind=1):
    return {"name": name, "arg": value, "kind": kind}


def _call(model, target, *arguments, name="made", first=True):
    """Put a call in front of the graph, or at its end, with the metadata of the program's own result."""
    graph = _graph(model)
    node = {
        "target": target,
        "inputs": [_argument("", value) for value in arguments],
        "outputs": [{"as_tensor": {"name": name}}],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": name,
    }
    graph["nodes"].insert(0 if first else len(graph["nodes"]), node)
    graph["tensor_values"][name] = copy.deepcopy(graph["tensor_values"]["embedding"])
    return node


def _returned(model, name):
    """Let the program give `name` in place of its result."""
    result = {"as_tensor": {"name": name}}
    _graph(model)["outputs"] = [result]
    model["graph_module"]["signature"]["output_specs"] = [{"user_output": {"arg": result}}]


def _read(model, name):
    """Let something that depends on the input read `name`."""
    node = _call(model, "torch.ops.aten.add.Tensor", name=f"read_{name}", first=False)
    node["inputs"] = [
        _argument(key, {"as_tensor": {"name": of}}) for key, of in (("self", "tokens"), ("other", name))
    ]


class Calls:
    """Ways to have Python, or something outside of the program, called from a graph."""

    def __init__(self, mark):
        self.command = f"touch {mark}"
        self.source = f"__import__('os').system('touch {mark}')"
        self.mark = mark

    def chain_of_getters(self, model):
        """The reported one: from the input's class over a module's globals to os.system, which is called while tracing."""
        path = [
            ("attrgetter", "__torch_dispatch__.__globals__"),
            ("itemgetter", "torch"),
            ("attrgetter", "os.system"),
        ]
        steps, value = [], "tokens"
        for number, (getter, of) in enumerate(path):
            steps.append((f"_operator.{getter}", [{"as_string": of}], f"getter_{number}"))
            read = [{"as_tensor": {"name": name}} for name in (f"getter_{number}", value)]
            value = f"found_{number}"
            steps.append(("_operator.call", read, value))
        steps.append(
            ("_operator.call", [{"as_tensor": {"name": value}}, {"as_string": self.command}], "called")
        )
        for target, arguments, name in reversed(steps):
            _call(model, target, *arguments, name=name)

    def attribute_getter(self, model):
        _call(model, "_operator.attrgetter", {"as_string": "system"})

    def item_getter(self, model):
        _call(model, "_operator.itemgetter", {"as_string": "os"})

    def method_caller(self, model):
        _call(model, "_operator.methodcaller", {"as_string": "system"}, {"as_string": self.command})

    def call_of_anything(self, model):
        _call(model, "_operator.call", {"as_operator": "torch.os.system"}, {"as_string": self.command})

    def module_reached_through_torch(self, model):
        _call(model, "torch.os.system", {"as_string": self.command})

    def module_reached_through_operators(self, model):
        _call(model, "torch.ops.aten.add.Tensor.__class__", {"as_string": self.command})

    def library_loader(self, model):
        _call(model, "torch.ops.load_library", {"as_string": str(self.mark)})

    def file_reader(self, model):
        node = _call(model, "torch.ops.aten.from_file.default")
        node["inputs"] = [
            _argument("filename", {"as_string": str(self.mark)}),
            _argument("shared", {"as_bool": True}),
            _argument("size", {"as_int": 1}),
        ]

    def file_writer(self, model):
        _call(model, "torch.ops.aten.save.default", {"as_string": str(self.mark)})

    def debugger_that_loads_a_file(self, model):
        _call(model, "torch.ops.debugprims.load_tensor.default", {"as_string": str(self.mark)})

    def tensor_on_a_device(self, model):
        node = _call(model, "torch.ops.aten.full.default")
        node["inputs"] = [
            _argument("size", {"as_ints": [2]}),
            _argument("fill_value", {"as_float": 1.0}),
            _argument("device", {"as_device": {"type": "cuda", "index": 0}}, kind=2),
        ]

    def printer(self, model):
        _call(model, "torch.ops.aten._print.default", {"as_string": "printed"})

    def generator_of_the_process(self, model):
        _call(model, "torch.ops.aten.manual_seed.default", {"as_int": 1})

    def storage_under_a_tensor(self, model):
        _call(model, "torch.ops.aten.set_.source_Tensor", {"as_tensor": {"name": "tokens"}})

    def collective(self, model):
        _call(model, "torch.ops._c10d_functional.all_reduce.default", {"as_tensor": {"name": "tokens"}})

    def overload_that_is_text(self, model):
        _call(model, "torch.ops.aten.add.str", {"as_string": "a"}, {"as_string": "b"})

    def operator_without_overload(self, model):
        _call(model, "torch.ops.aten.add", {"as_tensor": {"name": "tokens"}})

    def extension(self, model):
        _call(model, "#aoti:os.system", {"as_string": self.command})

    def higher_order_with_a_script_object(self, model):
        _call(
            model, "torch.ops.higher_order.call_torchbind", {"as_custom_obj": {"name": "x", "class_fqn": "y"}}
        )

    def higher_order_that_calls_its_argument(self, model):
        _call(model, "torch.ops.higher_order.run_with_rng_state", {"as_operator": "torch.os.system"})

    def functionalized_python(self, model):
        _call(model, "torch.ops.higher_order.auto_functionalized", {"as_operator": "_operator.call"})

    def functionalized_file_reader(self, model):
        _call(
            model,
            "torch.ops.higher_order.auto_functionalized_v2",
            {"as_operator": "torch.ops.aten.from_file.default"},
        )

    def second_operator_beside_the_functionalized_one(self, model):
        good = {"as_operator": "torch.ops.llama.update_cache.default"}
        _call(
            model, "torch.ops.higher_order.auto_functionalized_v2", good, {"as_operator": "torch.os.system"}
        )

    def operator_as_an_argument(self, model):
        _call(model, "torch.ops.aten.add.Tensor", {"as_operator": "torch.os.system"}, {"as_int": 1})

    def operator_within_a_dictionary(self, model):
        _call(
            model,
            "torch.ops.higher_order.cond",
            {"as_string_to_argument": {"a": {"as_operator": "torch.os.system"}}},
        )

    def custom_object(self, model):
        _call(model, "torch.ops.aten.add.Tensor", {"as_custom_obj": {"name": "x", "class_fqn": "y"}})

    def variable_that_is_source(self, model):
        _call(
            model,
            "torch.ops.aten.relu.default",
            {"as_tensor": {"name": "tokens"}},
            name=f"x = {self.source}; y",
        )

    def variable_that_is_an_attribute(self, model):
        _call(model, "torch.ops.aten.relu.default", {"as_tensor": {"name": "tokens"}}, name="self.forward")

    def variable_over_two_lines(self, model):
        _call(
            model,
            "torch.ops.aten.relu.default",
            {"as_tensor": {"name": "tokens"}},
            name=f"x\n    {self.source}\n    y",
        )

    def parameter_of_forward_that_is_source(self, model):
        text = json.dumps(model).replace('"tokens"', json.dumps(f"tokens={self.source}"))
        model.clear()
        model.update(json.loads(text))

    def forward_argument_names(self, model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                entry["signature"]["forward_arg_names"] = [f"tokens={self.source}"]

    def key_of_an_input_dictionary(self, model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                protocol, spec = json.loads(entry["signature"]["in_spec"])
                spec["children_spec"][1]["context"] = json.dumps([f"x={self.source}"])
                spec["children_spec"][1]["children_spec"] = [
                    {"type": None, "context": None, "children_spec": []}
                ]
                entry["signature"]["in_spec"] = json.dumps([protocol, spec])

    def keyword_that_is_source(self, model):
        node = _call(model, "torch.ops.higher_order.cond")
        node["inputs"] = [_argument(f"x={self.source}, y", {"as_bool": True}, kind=2)]

    def graph_whose_name_ends_a_string(self, model):
        graph = {**copy.deepcopy(_graph(model)), "nodes": []}
        _call(
            model,
            "torch.ops.higher_order.cond",
            {"as_graph": {"name": f'a" + {self.source} + "', "graph": graph}},
        )

    def call_within_a_branch(self, model):
        inner = copy.deepcopy(model)
        _call(inner, "_operator.call", {"as_operator": "torch.os.system"}, {"as_string": self.command})
        _call(model, "torch.ops.higher_order.cond", {"as_graph": {"name": "branch", "graph": _graph(inner)}})

    def parameter_whose_name_ends_a_string(self, model):
        spec = model["graph_module"]["signature"]["input_specs"][0]
        next(iter(spec.values()))["parameter_name"] = f'a" + {self.source} + "'

    def module_whose_name_ends_a_string(self, model):
        model["graph_module"]["module_call_graph"].append(
            {"fqn": f'a" + {self.source} + "', "signature": None}
        )

    def structure_of_a_registered_class(self, model):
        for entry in model["graph_module"]["module_call_graph"]:
            if entry["signature"]:
                protocol, spec = json.loads(entry["signature"]["out_spec"])
                spec.update(type="torch.nn.Module", context="null")
                entry["signature"]["out_spec"] = json.dumps([protocol, spec])

    def bound_of_a_symbol_that_is_source(self, model):
        model["range_constraints"][f"Symbol({self.source})"] = {"min_val": 1, "max_val": 4}

    def expression_with_an_attribute(self, model):
        _size(model, "Symbol('s0').__class__")

    def expression_with_a_formatted_string(self, model):
        _size(model, f"Symbol(f'{{{self.source}}}')")

    def expression_with_a_lambda(self, model):
        _size(model, f"(lambda: {self.source})()")

    def expression_that_calls_a_name_of_sympy(self, model):
        _size(model, "sympify('1')")


def _size(model, expression):
    """Let the input's first size be an expression."""
    sizes = _graph(model)["tensor_values"]["tokens"]["sizes"]
    sizes[0] = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}


class Silent:
    """What would be Python source in a field that lowering needs nothing of: left out or made harmless, not refused."""

    def __init__(self, mark):
        self.source = f"__import__('os').system('touch {mark}')"

    def guards(self, model):
        model["guards_code"] = [self.source]

    def metadata_of_a_node(self, model):
        _graph(model)["nodes"][-1]["metadata"].update(
            source_fn_stack="x,torch.os.system",
            custom=json.dumps({"a": self.source}),
            stack_trace=f'File "a.py", line 1, in f\r{self.source}\x0c{self.source}\u2028{self.source}',
            torch_fn=f"{self.source};b",
        )

    def metadata_of_the_program(self, model):
        model["graph_module"]["metadata"] = {"custom": json.dumps({"a": self.source})}


GIB = 1 << 30


class Bombs:
    """Small files that would take all time or memory."""

    def tower_of_powers(self, archive):
        archive.edit_json(MODEL, lambda model: _size(model, "9**9**9**9"))

    def tower_of_sympy_powers(self, archive):
        tower = "Pow(Integer(9), Pow(Integer(9), Pow(Integer(9), Integer(9))))"
        archive.edit_json(MODEL, lambda model: _size(model, tower))

    def power_of_a_symbol(self, archive):
        archive.edit_json(
            MODEL, lambda model: _size(model, "Pow(Symbol('s0', integer=True), Integer(99999999))")
        )

    def power_of_a_sum(self, archive):
        tower = f"Pow({' + '.join(f's{n}' for n in range(6))}, Integer(64))"
        archive.edit_json(MODEL, lambda model: _size(model, tower))

    def product_of_sums(self, archive):
        product = "*".join(f"(s{2 * n} + s{2 * n + 1})" for n in range(24))
        archive.edit_json(MODEL, lambda model: _size(model, product))

    def largest_of_many(self, archive):
        largest = f"Max({', '.join(f's{n} * s{n + 1}' for n in range(120))})"
        archive.edit_json(MODEL, lambda model: _size(model, largest))

    def number_of_many_places(self, archive):
        archive.edit_json(MODEL, lambda model: _size(model, "Float('0.1', precision=9999999999)"))

    def shift(self, archive):
        archive.edit_json(MODEL, lambda model: _size(model, "LShift(Integer(1), Integer(99999999999))"))

    def nested_expression(self, archive):
        archive.edit_json(MODEL, lambda model: _size(model, "(" * 4000 + "1" + ")" * 4000))

    def symbol_that_torch_counts_to(self, archive):
        bound = {"u99999999999": {"min_val": 1, "max_val": 4}}
        archive.edit_json(MODEL, lambda model: model["range_constraints"].update(bound))

    def number_of_many_digits(self, archive):
        archive.edit_json(
            MODEL, lambda model: _graph(model)["nodes"][0].update(is_hop_single_tensor_return=10**4000)
        )

    def json_nested_deeply(self, archive):
        archive.members[MODEL] = b"[" * 100_000 + b"]" * 100_000

    def full_of_2_gib(self, archive):
        archive.edit_json(MODEL, lambda model: _full(model, declared=GIB // 2))

    def full_of_2_gib_that_declares_little(self, archive):
        archive.edit_json(MODEL, lambda model: _full(model, declared=4))

    def many_constants(self, archive):
        def change(model):
            for number in range(40):
                _full(model, declared=1 << 24, size=1 << 24, name=f"made_{number}", returned=False)
                _read(model, f"made_{number}")

        archive.edit_json(MODEL, change)

    def constant_of_many_steps(self, archive):
        def change(model):
            _full(model, declared=1 << 24, size=1 << 24, name="made_0", returned=False)
            for number in range(1, 40):
                previous = {"as_tensor": {"name": f"made_{number - 1}"}}
                node = _call(model, "torch.ops.aten.add.Tensor", name=f"made_{number}")
                node["inputs"] = [_argument("self", previous), _argument("other", previous)]
                _graph(model)["nodes"].insert(number, _graph(model)["nodes"].pop(0))
                _declare(model, f"made_{number}", 1 << 24)
            _returned(model, "made_39")

        archive.edit_json(MODEL, change)

    def result_of_2_gib(self, archive):
        """Of the input, so that it is no constant: verify would compute it."""

        def change(model):
            node = _call(model, "torch.ops.aten.expand.default", name="large")
            node["inputs"] = [
                _argument("self", {"as_tensor": {"name": "tokens"}}),
                _argument("size", {"as_ints": [1 << 24, 2, 7]}),
            ]
            meta = _graph(model)["tensor_values"]["large"]
            meta.update(
                sizes=[{"as_int": n} for n in (1 << 24, 2, 7)], strides=[{"as_int": n} for n in (0, 7, 1)]
            )

        archive.edit_json(MODEL, change)

    def weight_expanded_to_2_gib(self, archive):
        archive.edit_json(WEIGHTS, lambda config: _expand(config["config"]))

    def size_that_is_a_text(self, archive):
        sizes = [{"as_int": "a"}, {"as_int": 1 << 33}]
        archive.edit_json(WEIGHTS, lambda config: _declare_sizes(config["config"], sizes))

    def sizes_without_an_end(self, archive):
        sizes = [{"as_int": 1e308}, {"as_int": 1e308}]
        archive.edit_json(WEIGHTS, lambda config: _declare_sizes(config["config"], sizes))

    def sizes_whose_product_has_many_digits(self, archive):
        sizes = [{"as_int": 1 << 62}] * 1000
        archive.edit_json(WEIGHTS, lambda config: _declare_sizes(config["config"], sizes))

    def configuration_nested_deeply(self, archive):
        archive.members[WEIGHTS] = b'{"config": {}, "more": ' + b"[" * 700 + b"]" * 700 + b"}"

    def weight_of_no_bytes(self, archive):
        archive.members[WEIGHT] = b""
        archive.edit_json(WEIGHTS, lambda config: _expand(config["config"], stride=1))

    def pickled_weight_expanded_to_2_gib(self, archive):
        archive.members[WEIGHT] = _expanded_torch_file()

    def example_input_expanded_to_2_gib(self, archive):
        archive.members["data/sample_inputs/model.pt"] = _expanded_torch_file(example=True)

    def storage_made_by_a_pickle(self, archive):
        calls = b"ctorch.storage\nUntypedStorage\n(L68719476736L\ntR."
        archive.members["data/sample_inputs/model.pt"] = torch_file(calls)

    def storage_that_grows(self, archive):
        archive.members[INPUTS] = _pickled_input(_stored_tensor(1 << 29))

    def tuples_that_share_tuples(self, archive):
        archive.members[INPUTS] = _pickled_input(b"K\1" + _shared(b"\x86"))

    def tuples_that_share_tuples_as_a_key(self, archive):
        archive.members[INPUTS] = torch_file(b"\x80\2K\1" + _shared(b"\x86") + b"q\xf0}h\xf0K\1s\x86.")

    def lists_that_share_lists(self, archive):
        shared = b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(60))
        archive.members[INPUTS] = _pickled_input(b"](K\1e" + shared)

    def list_within_itself(self, archive):
        archive.members[INPUTS] = _pickled_input(b"]q\0h\0a")

    def members_that_overlap(self, archive):
        archive.extra.append(("data/weights/weight_10", b"x" * 1000))
        archive.repeated = 89

    def path_that_leaves_the_folder(self, archive):
        archive.members["extra/../../../etc/passwd"] = b"x"


def _declare_sizes(config, sizes):
    """Declare the weight as raw values of `sizes`."""
    config["table.weight"]["tensor_meta"]["sizes"] = sizes
    config["table.weight"]["use_pickle"] = False


def _pickled_input(value):
    """A torch.save file of example inputs: one, given by its opcodes, and none by name."""
    return torch_file(b"\x80\2" + value + b"\x85}\x86.", {"data/0": bytes(16)})


def _shared(pair):
    """Opcodes that make a pair of what stands on the stack, 40 times: 2**40 values."""
    return b"".join(b"q%ch%c" % (n, n) + pair for n in range(40))


def _stored_tensor(elements):
    """Opcodes of a float tensor of `elements` over the storage `0`."""
    size = b"J" + elements.to_bytes(4, "little") + b"\x85"
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size + b"K\1\x85\x89" + hooks + b"tR"


def _declare(model, name, elements):
    meta = _graph(model)["tensor_values"][name]
    meta.update(sizes=[{"as_int": elements}], strides=[{"as_int": 1}])


def _full(model, *, declared, size=GIB // 2, name="made", returned=True):
    """A tensor of `size` floats that the file says has `declared`."""
    node = _call(model, "torch.ops.aten.full.default", name=name)
    node["inputs"] = [
        _argument("size", {"as_ints": [size]}),
        _argument("fill_value", {"as_float": 0.5}),
        _argument("pin_memory", {"as_bool": False}, kind=2),
    ]
    _declare(model, name, declared)
    if returned:
        _returned(model, name)


def _expand(config, stride=0):
    """Declare the weight as raw floats, one of them repeated."""
    meta = config["table.weight"]["tensor_meta"]
    meta.update(sizes=[{"as_int": GIB // 2}], strides=[{"as_int": stride}])
    config["table.weight"]["use_pickle"] = False


def _expanded_torch_file(*, example=False):
    import io  # noqa: PLC0415 - beside its use

    import torch  # noqa: PLC0415 - seconds

    large, stream = torch.zeros(1).expand(GIB // 2), io.BytesIO()
    torch.save(((large,), {}) if example else large, stream)
    return stream.getvalue()


def ways(kind):
    """The names of a class's techniques."""
    return [name for name in vars(kind) if not name.startswith("_")]


def techniques(mark):
    """Every technique as (name, change of an Archive); those that succeed leave the file `mark`."""
    hostile, calls, bombs = Hostile(mark), Calls(mark), Bombs()
    for name in ways(Hostile):
        yield name, getattr(hostile, name)
    for name in ways(Calls):
        yield name, partial(_edit, getattr(calls, name))
    for name in ways(Bombs):
        yield name, getattr(bombs, name)


def _edit(change, archive):
    archive.edit_json(MODEL, change)


def write(program, folder, mark):
    """Write every technique to `folder`; give the paths by name."""
    good, written = take_apart(program), {}
    for name, change in techniques(mark):
        archive = copy.deepcopy(good)
        change(archive)
        written[name] = folder / f"{name}.pt2"
        written[name].write_bytes(archive.encoded())
    return written


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[2]) / "RAN")
