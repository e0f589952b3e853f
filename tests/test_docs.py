"""What the README and the docs say is true of the code."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from specrag_native.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))

pytestmark = pytest.mark.skipif(not README.is_file(), reason="the source tree is not here")


def console_lines() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.S)
    return [
        line[2:].split("#")[0].strip()
        for block in blocks
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_every_command_of_the_readme_parses() -> None:
    parser = build_parser()
    commands = [shlex.split(c) for c in console_lines() if c.startswith("specrag ")]
    assert len(commands) >= 3
    for command in commands:
        parser.parse_args(command[1:])


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [c.split()[1] for c in console_lines() if c.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M)


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text()
    for name in COMMANDS:
        assert name.replace("_", "-") in text


def test_the_python_example_is_the_public_interface() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    tree = ast.parse(code)
    assert len(code.strip().splitlines()) <= 12
    import specrag_native
    from specrag_native.types import Answer, Citation

    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "specrag_native"
            assert all(hasattr(specrag_native, alias.name) for alias in node.names)
    for attribute in re.findall(r"\banswer\.(\w+)", code):
        assert attribute in Answer.__dataclass_fields__
    for attribute in re.findall(r"\bcitation\.(\w+)", code):
        assert attribute in Citation.__dataclass_fields__


def test_links_between_documents_lead_somewhere() -> None:
    for document in (README, *DOCS):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_file_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in re.findall(r"`((?:csrc|specrag_native|tests)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
    bound = (ROOT / "csrc" / "bindings.cpp").read_text()
    for name in re.findall(r"^\| `(\w+)` \|", text, re.M):
        if not re.search(rf'\.def\(\s*"{name}"', bound):
            assert list((ROOT / "csrc").glob(f"{name}.*")), name


def test_the_table_of_the_readme_is_that_of_the_stored_results() -> None:
    import subprocess
    import sys

    if not list((ROOT / "benchmarks" / "results").glob("engine-*.json")):
        pytest.skip("no stored results")
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"])
    assert done.returncode == 0, "run python benchmarks/table.py"
