"""Every TensorRT name, enum and arity that our code uses exists in NVIDIA's real modules.

The code is walked, not run. doubles/tensorrt_surface.json: read from the real 8.4.1, 8.5.3 and RTX 1.7.1; for versions
that could not be had (8.2.1, 10.3.0, 11.1) the member names derived from NVIDIA's sources (the double's members.json).
A name that some version lacks must stand behind a question for it (hasattr), listed in GUARDED.
"""

import ast
import json
import os

import pytest

CODE = (
    "jetson/engine/tensorrt_module.py",
    "jetson/engine/tensorrt_network.py",
    "jetson/engine/tensorrt.py",
    "jetson/engine/calibration.py",
    "jetson/engine/build_worker.py",
    "jetson/engine/build.py",
)
# How our code calls the objects of NVIDIA's classes. A new name for one must be added here, else its uses go unseen:
# the count at the end of the first test would show it.
OBJECTS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "layer": "ILayer",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "cache": "ITimingCache",
    "kinds": "NetworkDefinitionCreationFlag",
    "output": "ITensor",
}
ONLY_IN = {
    "cache": {"_build_plan"},
    "engine": {"_list_tensors"},
    "output": {"set_input"},
    "layer": {"set_layer_precisions"},
    "parser": {"parse", "_parser_failure"},
}
# name -> the question in the same function that must be asked first
GUARDED = {
    "BuilderFlag.FP16": "FP16",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "STRONGLY_TYPED",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "EXPLICIT_BATCH",
    "IBuilderConfig.set_memory_pool_limit": "set_memory_pool_limit",
    "MemoryPoolType.WORKSPACE": "set_memory_pool_limit",
    "IBuilderConfig.max_workspace_size": "set_memory_pool_limit",
    "IBuilderConfig.progress_monitor": "progress_monitor",
    "Builder.platform_has_fast_fp16": "platform_has_fast_fp16",
    "Builder.platform_has_fast_int8": "platform_has_fast_int8",
    "ParserError.node_name": "node_name",
}
# Asked for elsewhere: calibrators and layer precisions exist where the FP16 flag does (is_typed), named tensors where
# num_io_tensors does (self._named), compute capabilities only in RTX (target_capabilities is for it alone).
BEHIND_A_WORLD = {
    "trt.IInt8EntropyCalibrator2",
    "trt.IInt8MinMaxCalibrator",
    "IBuilderConfig.int8_calibrator",
    "ILayer.precision",
    "ILayer.set_output_type",
    "ICudaEngine.get_tensor_name",
    "ICudaEngine.get_tensor_shape",
    "ICudaEngine.get_tensor_dtype",
    "ICudaEngine.get_tensor_mode",
    "TensorIOMode.INPUT",
    "trt.TensorIOMode",
    "IExecutionContext.set_tensor_address",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.execute_async_v2",
    "ICudaEngine.num_io_tensors",
    "ICudaEngine.num_bindings",
    "ICudaEngine.get_binding_name",
    "ICudaEngine.get_binding_shape",
    "ICudaEngine.get_binding_dtype",
    "ICudaEngine.binding_is_input",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "trt.ComputeCapability",
    "trt.IProgressMonitor",
    "trt.MemoryPoolType",
}
FREE = {"trt.__version__", "trt.__name__"}
OURS = {"IInt8EntropyCalibrator2.failure", "IBuilderConfig.get"}


@pytest.fixture(scope="module")
def surfaces(root):
    """{version: {class: {member: arity or None}}}"""
    with open(os.path.join(root, "tests", "doubles", "tensorrt_surface.json")) as file:
        real = json.load(file)
    with open(os.path.join(root, "tests", "doubles", "tensorrt_double", "tensorrt", "members.json")) as file:
        derived = json.load(file)
    result = {}
    for version in ("8.4.1", "8.5.3", "rtx_1.7.1"):
        result[version] = {
            name: dict((word.split(":") + [None])[:2] for word in members.split())
            for name, members in real[version].items()
        }
    for version in ("8.2.1", "10.3.0", "11.1"):
        result[version] = {name: dict.fromkeys(members.split()) for name, members in derived[version].items()}
    return result


def dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return base and base + "." + node.attr
    return None


def uses(root):
    """(file, line, function, "Class.member" or "trt.Name", positional arguments of a call or None)."""
    found = []
    for name in CODE:
        with open(os.path.join(root, name)) as file:
            tree = ast.parse(file.read())
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
            calls = {
                id(n.func): len(n.args)
                for n in ast.walk(function)
                if isinstance(n, ast.Call) and not any(isinstance(a, ast.Starred) for a in n.args)
            }
            for node in ast.walk(function):
                text = dotted(node) if isinstance(node, ast.Attribute) else None
                if text is None:
                    continue
                text = text.replace("self._trt", "trt")
                base, _, member = text.rpartition(".")
                if base == "trt":
                    key = "trt." + member
                elif base.startswith("trt.") and base.count(".") == 1:
                    key = base[4:] + "." + member
                elif base in OBJECTS and function.name in ONLY_IN.get(base, {function.name}):
                    key = OBJECTS[base] + "." + member
                elif base == "error" and function.name == "_parser_failure":
                    key = "ParserError." + member
                else:
                    continue
                found.append((name, node.lineno, function.name, key, calls.get(id(node))))
    return found


def questions(root):
    """{(file, function): names asked for with hasattr}"""
    asked = {}
    for name in CODE:
        with open(os.path.join(root, name)) as file:
            tree = ast.parse(file.read())
        for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
            asked[name, function.name] = {
                n.args[1].value
                for n in ast.walk(function)
                if isinstance(n, ast.Call) and dotted(n.func) == "hasattr" and isinstance(n.args[1], ast.Constant)
            }
    return asked


def missing_in(surfaces, key):
    """Versions that lack `key`. Classes of the module are those the version describes."""
    owner, _, member = key.partition(".")
    if owner == "trt":
        return [
            version
            for version, classes in surfaces.items()
            if member not in classes and not (member == "LayerType" or member == "ComputeCapability")
        ]
    return [
        version
        for version, classes in surfaces.items()
        if not (owner in ("ComputeCapability", "LayerType") or member in classes.get(owner, {}))
    ]


def test_every_name_exists_where_it_is_used(root, surfaces):
    found = uses(root)
    asked = questions(root)
    wrong = []
    for file, line, function, key, _ in found:
        if key in FREE or key in OURS or key.endswith(".__init__"):
            continue
        lacking = missing_in(surfaces, key)
        if len(lacking) == len(surfaces):
            wrong.append(f"{file}:{line}: {key} exists in no TensorRT")
        elif lacking and key in GUARDED:
            if GUARDED[key] not in asked[file, function]:
                wrong.append(f"{file}:{line}: {key} is not asked for first ({', '.join(lacking)} lack it)")
        elif lacking and key not in BEHIND_A_WORLD:
            wrong.append(f"{file}:{line}: {key} is missing in {', '.join(lacking)}")
    assert not wrong, "\n".join(wrong)
    assert len({key for _, _, _, key, _ in found}) >= 60, "the walk sees too little: has a variable been renamed?"


def test_every_call_has_an_arity_that_the_real_modules_take(root, surfaces):
    checked, wrong = 0, []
    for file, line, _, key, count in uses(root):
        owner, _, member = key.partition(".")
        if owner == "trt":
            owner, member = member, "__init__"
        if count is None or key.endswith(".__init__"):  # of a base class, called with self
            continue
        for version in ("8.4.1", "8.5.3", "rtx_1.7.1"):
            arity = surfaces[version].get(owner, {}).get(member)
            if arity is None or arity in ("*", "other"):
                continue
            checked += 1
            low, _, high = arity.partition("-")
            if arity == "property" or not int(low) <= count <= int(high or low):
                wrong.append(f"{file}:{line}: {key} takes {arity} in {version}, not {count}")
    assert not wrong, "\n".join(wrong)
    assert checked >= 60


def test_flags_and_types_that_are_named_as_text_exist(root, surfaces):
    with open(os.path.join(root, "jetson/engine/tensorrt_network.py")) as file:
        tree = ast.parse(file.read())
    flags = {n.args[0].value for n in ast.walk(tree) if isinstance(n, ast.Call) and dotted(n.func) == "flags.append"}
    precision = {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}
    assert flags == precision | {"SPARSE_WEIGHTS"}
    assert all("SPARSE_WEIGHTS" in surface["BuilderFlag"] for surface in surfaces.values())
    for version in ("8.2.1", "8.4.1", "8.5.3", "10.3.0"):
        assert flags <= set(surfaces[version]["BuilderFlag"])
    for version in ("11.1", "rtx_1.7.1"):
        assert not precision & set(surfaces[version]["BuilderFlag"]), "there the typed world is taken"
    from jetson.engine.tensorrt import DTYPES

    real = set().union(*(surfaces[version]["DataType"] for version in surfaces))
    assert set(DTYPES) <= real
    assert set(DTYPES) >= {"FLOAT", "HALF", "INT8", "INT32", "BOOL"} == set(surfaces["8.2.1"]["DataType"])


def test_our_callbacks_have_the_signatures_that_the_bindings_call(root, surfaces):
    """Subclasses of NVIDIA's: each method we define is one of theirs, and takes what they give."""
    bases = {
        "Log": "ILogger",
        "Monitor": "IProgressMonitor",
        "Profiler": "IProfiler",
        "Calibrator": "IInt8EntropyCalibrator2",
    }
    seen = set()
    for name in CODE:
        with open(os.path.join(root, name)) as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name in bases:
                base = bases[node.name]
                for method in [n for n in node.body if isinstance(n, ast.FunctionDef)]:
                    for version in ("8.4.1", "8.5.3", "rtx_1.7.1"):
                        arity = surfaces[version].get(base, {}).get(method.name)
                        if method.name == "__init__" or arity in (None, "other"):
                            continue
                        seen.add(node.name + "." + method.name)
                        takes = len(method.args.args) - 1
                        assert takes == int(arity) or (takes < int(arity) and method.args.vararg), (name, method.name)
    assert seen == {
        "Log.log",
        "Monitor.phase_start",
        "Monitor.step_complete",
        "Monitor.phase_finish",
        "Profiler.report_layer_time",
        "Calibrator.get_batch_size",
        "Calibrator.get_batch",
        "Calibrator.read_calibration_cache",
        "Calibrator.write_calibration_cache",
    }


@pytest.mark.parametrize("derived, real", [("8.5.3", "8.5.3")])
def test_the_derived_members_agree_with_the_real_module(root, surfaces, derived, real):
    """members.json is what the double is made from; 8.5.3 is the version that both sources have."""
    with open(os.path.join(root, "tests", "doubles", "tensorrt_double", "tensorrt", "members.json")) as file:
        names = json.load(file)[derived]
    for owner, members in surfaces[real].items():
        if owner in names:
            there = {member for member in members if not member.startswith("__")}
            told = {member for member in names[owner].split() if not member.startswith("__")}
            told -= {"get_nv_onnx_parser_version"}  # a function of the module, listed with the class before it
            if owner == "ILogger":
                there = {"log"}
            enum_extra = {"name", "value"}
            assert told == there - enum_extra or told - there == set() or there - told == set(), (
                owner,
                sorted(told ^ there),
            )
