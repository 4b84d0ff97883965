"""Each sentence of docs/semantics.md is the docstring of a test that shows it, and the other way round."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shown() -> dict[str, str]:
    """Docstrings of the tests through a real mount that state semantics, with the test's name."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "tests/mount").glob("test_semantics_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                text = ast.get_docstring(node)
                assert text, f"{path.name}:{node.name} says nothing"
                found[" ".join(text.split())] = f"{path.name}::{node.name}"
    return found


def stated() -> list[str]:
    """The bullets of the page's stated behaviour."""
    page = (ROOT / "docs/semantics.md").read_text()
    body = page.split("## Exceptions", 1)[0]
    return [" ".join(match.split()) for match in re.findall(r"^- (.*(?:\n  .*)*)", body, re.MULTILINE)]


def test_each_sentence_is_shown() -> None:
    missing = [sentence for sentence in stated() if sentence not in shown()]
    assert not missing, f"no test shows: {missing}"


def test_each_test_is_stated() -> None:
    said = set(stated())
    missing = [f"{where}: {text}" for text, where in shown().items() if text not in said]
    assert not missing, "docs/semantics.md does not say:\n" + "\n".join(missing)


def test_nothing_is_said_twice() -> None:
    assert len(stated()) == len(set(stated()))
