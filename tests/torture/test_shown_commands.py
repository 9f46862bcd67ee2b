"""Every command, program and file that a page shows is one that exists: read by what it is for, without running it."""

import ast
import configparser
import csv
import importlib
import subprocess

import pytest
import shown
import understood
import yaml


@pytest.mark.parametrize("page", shown.pages())
def test_commands_are_understood(page):
    wrong = []
    for block in shown.blocks(page):
        if block.kind != "shell":
            continue
        checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        wrong += [f"{block}: {checked.stderr}"] * bool(checked.returncode)
        for command in shown.commands(block):
            wrong += misunderstood(command)
    assert not wrong, "\n".join(wrong)


def misunderstood(command, lacking=()):
    for call in command.calls:
        try:
            known = understood.check(call)
        except lacking:
            continue
        except Exception as error:
            yield f"{command}\n    {type(error).__name__}: {error}"
        else:
            if not known and command.is_run:
                yield f"{command}\n    nobody here can tell whether {call[0]} understands it; not_run.toml may say why"


def test_what_is_not_run_is_still_shown():
    texts = [command.text for command in shown.all_commands()]
    gone = [start for start in shown.NOT_RUN if not any(text.startswith(start) for text in texts)]
    assert not gone


@pytest.mark.parametrize("page", shown.pages())
def test_commands_in_a_sentence_are_understood(page):
    wrong = []
    for text in shown.quoted(page):
        if len(words := text.split()) > 1 and words[0] in understood.PARSERS:
            wrong += misunderstood(shown.Command(page, 0, " ".join(words)), understood.Lacking)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "block", [block for page in shown.pages() for block in shown.blocks(page) if block.kind != "shell"], ids=str
)
def test_what_else_is_shown_can_be_read(block):
    assert block.kind in READERS, f"what is this? {block.text}"
    READERS[block.kind](block.text)


def program(text):
    """It compiles, and what it imports is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                assert hasattr(importlib.import_module(node.module), name.name), name.name


def sections(text):
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(text)
    for line in (value for section in parser.sections() for value in parser[section].values()):
        if "sslbt serve" in line:
            understood.check(line.split())


def braces(text):
    """nginx's and Caddy's: each brace has its other."""
    depth = 0
    for letter in text:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0


def resource(text):
    """Kubernetes': whose container starts as the command line would."""
    (container,) = yaml.safe_load(text)["spec"]["predictor"]["containers"]
    understood.check(["sslbt", *container["args"]])


def table(text):
    rows = list(csv.reader(text.splitlines()))
    assert {len(row) for row in rows} == {len(rows[0])}


def tree(text):
    """The names at the beginning of a line, up to two spaces, are files; or what `sslbt layout` makes."""
    if text.startswith("model-repository/"):
        return
    for line in text.splitlines():
        first, *others = line.split("   ")[0].split() or [""]
        for name in (first, *others):
            beside = (shown.ROOT / first).parent / name
            assert beside.exists() or (shown.ROOT / name).exists(), name


def environment(text):
    assert all("=" in line for line in text.splitlines())


READERS = {
    "python": program,
    "ini": sections,
    "braces": braces,
    "yaml": resource,
    "csv": table,
    "tree": tree,
    "environment": environment,
}
