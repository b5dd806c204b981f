"""What the documents say is what the code has: settings, instructions, codes, commands, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from llmchatlinker.cli import main
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import ALIASES, INSTRUCTION_SET
from llmchatlinker.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
#: Variables that are read elsewhere than in the settings, beside those of the tests.
OTHER_VARIABLES = {"LLMCHATLINKER_DATA_DIR"}
#: The type that docs/contributing.md adds.
MADE_UP = {"CHAT_COUNT"}


def _blocks(text: str) -> Iterator[str]:
    """The blocks between ``` and ```."""
    yield from re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _types_of_errors(kind: type[LLMChatLinkerError]) -> Iterator[type[LLMChatLinkerError]]:
    for child in kind.__subclasses__():
        if child.__module__ == LLMChatLinkerError.__module__:
            yield child
            yield from _types_of_errors(child)


# --- the instruction set ----------------------------------------------------------------------------


@each_document
def test_the_documents_name_no_instruction_type_that_is_not_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:USER|CHAT|LLM|INSTRUCTION|USAGE)_[A-Z]+[A-Z_]*[A-Z]\b", text))
    assert named - MADE_UP <= {*INSTRUCTION_SET, *ALIASES}


@each_document
def test_the_documents_name_no_setting_that_is_not_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", text))
    known = {PREFIX + item.name.upper() for item in fields(Settings)}
    others = {name for name in named - known if not name.startswith(f"{PREFIX}TEST_")}
    assert others <= OTHER_VARIABLES


# --- errors -----------------------------------------------------------------------------------------


def test_the_documents_have_every_code_and_no_other() -> None:
    documented = re.findall(r"^### `(\w+)`$", ERRORS, re.MULTILINE)
    assert sorted(documented) == sorted(kind.code for kind in _types_of_errors(LLMChatLinkerError))


# --- commands ---------------------------------------------------------------------------------------


def _commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        yield prefix + name
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")


@each_document
def test_every_command_in_the_documents_is_one(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    code = "\n".join([*_blocks(text), *re.findall(r"`([^`\n]+)`", text)])
    known = set(_commands(main))
    for words in re.findall(r"(?:^|\(|\$ )llmchatlinker ((?:[a-z][a-z-]* ?)+)", code, re.MULTILINE):
        assert any(words.strip().startswith(name) for name in known), f"llmchatlinker {words}"


@each_document
def test_every_make_target_in_the_documents_is_one(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    text = document.read_text(encoding="utf-8")
    code = "\n".join([*_blocks(text), *re.findall(r"`([^`\n]+)`", text)])
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets


@each_document
def test_every_python_block_in_the_documents_compiles(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        compile(block, str(document), "exec")


# --- links and lists --------------------------------------------------------------------------------


@each_document
def test_every_link_in_the_documents_leads_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path) if path else document
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"\]\((\d{4}-[^)]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("[0-9]*.md"))


def test_every_example_is_in_the_list_of_examples() -> None:
    folder = ROOT / "examples"
    listed = re.findall(r"\]\((\w+\.py)\)", (folder / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.py"))
