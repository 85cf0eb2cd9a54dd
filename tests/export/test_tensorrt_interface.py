"""Our calls on TensorRT, which cannot be loaded here, against what is published of its interface.

The stubs of TensorRT 10 say which names and arguments there are, and mypy compares our calls with them; the bindings of
TensorRT 11 hold its names; TensorRT-RTX, whose interface is the same, is here.
"""

from __future__ import annotations

import ast
import os
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
PLAN = HOUSE / "export" / "lymphcad_export" / "plan"
EDGE = HOUSE / "client" / "lymphcad_client" / "edge"
MODULES = (
    HOUSE / "lymphcad" / "tensorrt_library.py",
    PLAN / "build.py",
    PLAN / "execute.py",
    EDGE / "rtx_engine.py",
)
"""All that touch the library."""
CALLED = {"ComputeCapability", "num_compute_capabilities", "set_compute_capability"}
"""TensorRT-RTX's own, which is really called in test_plan.py."""
BEYOND_TENSORRT = CALLED | {
    "DynamicShapesKernelSpecializationStrategy", "EAGER", "dynamic_shapes_kernel_specialization_strategy",
}  # fmt: skip
"""And what needs a GPU, and so is only looked up."""
LEFT_OPEN = {"desc", *BEYOND_TENSORRT}
"""Of which the stubs say nothing: they leave the type of a parser's error out."""
OPEN_TYPES = {"ComputeCapability", "DynamicShapesKernelSpecializationStrategy"}


def published(name: str) -> list[Path]:
    """Return the files of a distribution of which pip installs only the interface."""
    try:
        return [Path(str(file.locate())) for file in distribution(name).files or []]
    except PackageNotFoundError:
        assert not os.environ.get("CI"), f"{name} is missing: see the Makefile"
        pytest.skip(f"{name} is missing: see the Makefile")


def uses(module: Path) -> list[ast.Attribute]:
    """Return where a module of ours reads or sets an attribute of what the library made."""
    tree = ast.parse(module.read_text())
    found = []
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        theirs = {
            one.arg
            for one in (*function.args.args, *function.args.kwonlyargs)
            if one.annotation is not None and re.search(r"\bLibrary\b|\btrt\.", ast.unparse(one.annotation))
        }
        for node in ast.walk(function):  # in the order of the source, but for what is nested
            if isinstance(node, ast.Assign) and is_theirs(node.value, theirs):
                targets = [name for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
                # Of a logger and what it keeps, the first.
                theirs |= {targets[0].id} if calls(node.value) == "keep_log" else {name.id for name in targets}
            if isinstance(node, ast.Attribute) and is_theirs(node.value, theirs):
                found.append(node)
    return found


def calls(node: ast.expr) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def is_theirs(node: ast.expr, theirs: set[str]) -> bool:
    """Tell whether an expression is made by the library: it begins with a name that is."""
    if isinstance(node, ast.Name):
        return node.id in theirs
    if isinstance(node, ast.Call):
        passed_on = calls(node) in {"cast", "keep_log"} and any(is_theirs(one, theirs) for one in node.args)
        return passed_on or is_theirs(node.func, theirs)
    if isinstance(node, (ast.Attribute, ast.Subscript)):
        return is_theirs(node.value, theirs)
    if isinstance(node, ast.IfExp):
        return is_theirs(node.body, theirs) or is_theirs(node.orelse, theirs)
    return isinstance(node, ast.GeneratorExp) and is_theirs(node.elt, theirs)


NAMES = sorted({node.attr for module in MODULES for node in uses(module)})


def test_the_names_are_found():
    assert len(NAMES) > 30
    assert set(NAMES) > {
        "Builder", "build_serialized_network", "add_optimization_profile", "STRONGLY_TYPED", "desc", "get_flag",
        "set_timing_cache", "serialize", "Dims4", "WARNING", "execute_async_v3", "set_input_shape", "FLOAT",
        "deserialize_cuda_engine", "create_runtime_config", *BEYOND_TENSORRT,
    }  # fmt: skip
    assert not {"split", "append", "cuda", "data_ptr", "cpu", "lower"} & set(NAMES)
    others = [path for stage in ("lymphcad", "export", "client") for path in (HOUSE / stage).rglob("*.py")]
    others = [path for path in others if path not in MODULES]
    assert not [path.name for path in others if re.search(r"import tensorrt|\bkeep_log\b", path.read_text())]


@pytest.fixture(scope="session")
def names_of_11() -> bytes:
    """Return the compiled bindings, which cannot be loaded without the libraries; the names in them end with a zero."""
    (bindings,) = (path for path in published("tensorrt-cu12-bindings") if path.name == "tensorrt.so")
    return bindings.read_bytes()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BEYOND_TENSORRT])
def test_tensorrt_11_has_the_name(names_of_11, name):
    assert name.encode() + b"\0" in names_of_11


@pytest.mark.parametrize("name", ["FP16", "int8_calibrator", "platform_has_fast_fp16", *sorted(BEYOND_TENSORRT)])
def test_what_tensorrt_11_has_not_is_not_found(names_of_11, name):
    """Of TensorRT 10, or of TensorRT-RTX."""
    assert name.encode() + b"\0" not in names_of_11


@pytest.mark.parametrize("name", NAMES)
def test_tensorrt_rtx_has_the_name(name):
    library = pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX: pip install 'lymphcad[rtx]'")
    assert any(hasattr(one, name) for one in (library, *vars(library).values()))


@pytest.fixture(scope="session")
def check_types(tmp_path_factory):
    """Return a function that has mypy check files against the stubs, and gives what it says, by line."""
    api = pytest.importorskip("mypy.api")
    stubs = tmp_path_factory.mktemp("stubs")
    for path in (path for path in published("tensorrt-stubs") if path.suffix == ".pyi"):
        (stubs / path.parent.name).mkdir(exist_ok=True)
        (stubs / path.parent.name / path.name).write_text(mended(path.read_text()))
    settings = stubs / "mypy.ini"
    # torch and numpy are not looked into: the rest of the repository is checked with them by `make lint`.
    settings.write_text(
        "[mypy]\nstrict = True\nwarn_unused_ignores = False\nfollow_imports = skip\nignore_missing_imports = True\n"
        "[mypy-tensorrt.*,tensorrt_bindings.*]\nfollow_imports = silent\nignore_errors = True\n"
        "[mypy-lymphcad.tensorrt_library,lymphcad_export.plan.*,lymphcad_client.edge.cuda]\nfollow_imports = silent\n"
    )

    def check(*paths: Path) -> list[str]:
        before = os.environ.get("MYPYPATH")
        os.environ["MYPYPATH"] = os.pathsep.join(map(str, [stubs, HOUSE / "export", HOUSE / "client", HOUSE]))
        try:
            said, broken, _ = api.run(
                ["--config-file", str(settings), "--cache-dir", str(stubs / "cache"), "--no-error-summary",
                 "--explicit-package-bases", *map(str, paths)]
            )  # fmt: skip
        finally:
            os.environ.pop("MYPYPATH")
            os.environ |= {} if before is None else {"MYPYPATH": before}
        assert not broken
        return [line for line in said.splitlines() if ": error: " in line]

    return check


def mended(stubs: str) -> str:
    """Return published stubs as Python that means what it says.

    In a few places they are none, for arguments are named `in` and the like: those are left open. And the library's own
    `bool` hides Python's, so that mypy takes what a call gives for always true.
    """
    lines = re.sub(
        r"(->|:) bool\b",
        r"\1 builtins.bool",
        stubs.replace("import typing", "import builtins, typing, typing_extensions", 1),
    ).split("\n")
    for _ in range(20):
        broken = first_error("\n".join(lines))
        if broken is None:
            return "\n".join(lines)
        name = re.match(r" *def \w+", lines[broken - 1])
        assert name is not None
        lines[broken - 1] = f"{name[0]}(self, *args: typing.Any) -> typing.Any:"
    raise AssertionError("the stubs are not Python in more than twenty places")


def first_error(text: str) -> int | None:
    try:
        ast.parse(text)
    except SyntaxError as error:
        return error.lineno
    return None


def test_the_calls_are_those_of_tensorrt_10(check_types):
    assert check_types(*MODULES) == []


def test_every_name_is_checked(check_types, tmp_path):
    """Each is misspelt in a copy of its own, and mypy says so."""
    copies = {}
    for module in MODULES:
        lines = module.read_text().splitlines()
        for node in uses(module):
            if node.attr not in LEFT_OPEN and not OPEN_TYPES & set(ast.unparse(node).split(".")):
                line, end = node.end_lineno - 1, node.end_col_offset
                changed = [*lines[:line], lines[line][:end] + "_misspelt" + lines[line][end:], *lines[line + 1 :]]
                copy = tmp_path / f"copy{len(copies)}.py"
                copy.write_text("\n".join(changed) + "\n")
                copies[copy.name] = node.attr
    said = check_types(*(tmp_path / name for name in copies))
    missed = {attr for name, attr in copies.items() if not any(f"{name}:" in line and attr in line for line in said)}
    assert missed == set()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("library.Dims4(*shape)", "shape"),
        ("parser.parse(onnx)", "parser.parse(onnx.hex())"),
        ("ignore_mismatch=False", "mismatch=False"),
        ("OnnxParser(network, logger)", "OnnxParser(logger, network)"),
        ("build_serialized_network(network, config)", "build_serialized_network(network)"),
        ("config.get_flag(flags[name])", "config.get_flag(name)"),
    ],
)
def test_wrong_arguments_are_found(check_types, tmp_path, right, wrong):
    text = (PLAN / "build.py").read_text()
    assert right in text
    (tmp_path / "wrong.py").write_text(text.replace(right, wrong))
    assert check_types(tmp_path / "wrong.py")
