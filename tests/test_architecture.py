"""The modules import each other as docs/architecture.md says: no circle, and no room from one above it.

Every import counts, inside functions and under TYPE_CHECKING too: a circle of types alone is still two files that
cannot be understood apart. Only the package's own ``__init__`` is excepted, which names everything, loads it when it
is used, and from which the modules take the version alone.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import cdm4mi

PACKAGE = Path(cdm4mi.__file__).parent
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"


def module_name(path, package):
    """``io/volume.py`` is "io.volume", ``io/__init__.py`` is "io", and the package's own is ""."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_imported(tree, name, is_package):
    """Absolute dotted names that a module of cdm4mi takes, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                folders = ["cdm4mi", *name.split(".")]
                folders = folders[: len(folders) - node.level + is_package]
                home = ".".join([*folders, *([node.module] if node.module else [])])
            yield from (f"{home}.{alias.name}" for alias in node.names)


def imports(package):
    """For every module of the package, the modules of the package it imports, names shortened by "cdm4mi."."""
    files = {module_name(path, package): path for path in package.rglob("*.py")}
    graph = {}
    for name, path in files.items():
        graph[name] = set()
        for found in names_imported(ast.parse(path.read_text("utf-8")), name, path.name == "__init__.py"):
            root, *parts = found.split(".")
            if name and root == "cdm4mi":
                # The last part may be a function or a class of the module before it.
                home = next(h for n in range(len(parts), -1, -1) if (h := ".".join(parts[:n])) in files)
                assert home or parts == ["__version__"], f"{name} takes {found} from the package's __init__"
                graph[name].add(home)
    return graph


def circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def rooms():
    """Packages and modules of the tables in docs/architecture.md, from top to bottom, below ``__main__``."""
    table = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", ARCHITECTURE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return ["__main__", *table]


def upward(graph, order):
    floor = {room: number for number, room in enumerate(reversed(order))}
    return [
        f"{name} imports {other}"
        for name, others in sorted(graph.items())
        for other in sorted(others)
        if other and floor[other.split(".")[0]] > floor[name.split(".")[0]]
    ]


def test_every_room_has_its_row():
    assert sorted(rooms()) == sorted({name.split(".")[0] for name in imports(PACKAGE)} - {""})


def test_no_modules_import_each_other_in_a_circle():
    assert circle(imports(PACKAGE)) is None


def test_no_room_imports_from_one_above_it():
    assert upward(imports(PACKAGE), rooms()) == []


def test_lightning_stays_in_training():
    takers = set()
    for path in PACKAGE.rglob("*.py"):
        name = module_name(path, PACKAGE)
        taken = names_imported(ast.parse(path.read_text("utf-8")), name, path.name == "__init__.py")
        if any(found.split(".")[0] in ("lightning", "pytorch_lightning") for found in taken):
            takers.add(name.split(".")[0])
    assert takers == {"training"}


def test_the_reading_sees_what_it_should(tmp_path):
    for name, text in {
        "__init__.py": "from cdm4mi.top.user import f",
        "errors.py": "",
        "low/__init__.py": "from .maths import g",
        "low/maths.py": "def g():\n    from cdm4mi.top import user",
        "top/__init__.py": "",
        "top/user.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..low import maths, g",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    graph = imports(tmp_path)
    assert graph["top.user"] == {"low.maths", "low"} and graph["low"] == {"low.maths"} and graph[""] == set()
    assert set(circle(graph)) >= {"top.user", "low.maths"}
    assert upward(graph, ["top", "low", "errors"]) == ["low.maths imports top.user"]
