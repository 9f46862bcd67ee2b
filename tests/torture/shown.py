"""What the pages show: their blocks of commands, programs and files, and what they name in backticks."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
READER = MarkdownIt("commonmark").enable("table")
PROGRAMS = (
    *("sslbt", "mlflow", "python", "python3.11", "pip", "make", "torchrun", "curl", "openssl", "sudo", "docker"),
    *("tritonserver", "systemctl", "apt", "chmod", ".", "cd", "export", "for", "printf", "wait", "uv", "npm", "git"),
)
NOT_RUN: dict[str, str] = tomllib.loads(Path(__file__).with_name("not_run.toml").read_text())
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*$")
SEPARATORS = re.compile(r"[;&|()]+$")


@dataclass(frozen=True)
class Block:
    """Lines of one kind that stand together, from `line` of `page` on."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """What a shell takes at a time, and the programs with their words that it starts."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"

    @property
    def is_run(self) -> bool:
        """Whether the stranger's day runs it; the others stand in not_run.toml, each with a reason."""
        return not any(self.text.startswith(start) for start in NOT_RUN)

    @property
    def calls(self) -> list[list[str]]:
        """Each simple command in it: program and words, without assignments, redirections and the shell's grammar."""
        text = self.text.replace("\\\n", " ")
        if loop := re.match(r"for (\w+) in (\S+)", text):  # the first time round
            text = text.replace(f"${loop[1]}", loop[2])
        parser = shlex.shlex(text, posix=True, punctuation_chars=True)
        parser.whitespace_split = True
        calls: list[list[str]] = [[]]
        words = iter(parser)
        for word in words:
            if SEPARATORS.match(word):
                calls.append([])
            elif word in (">", ">>", "<"):
                next(words)
            elif calls[-1] or not (word in ("do", "done") or ASSIGNMENT.match(word)):
                calls[-1].append(word)
        return [call for call in calls if call]


def pages() -> dict[str, str]:
    """Markdown by name: pages, and as such the comments of presets and what benchmarks say of themselves."""
    found = {}
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "sslbt/released/README.md"):
        found[_name(path)] = path.read_text()
    for path in sorted((ROOT / "sslbt/presets").glob("*.toml")):
        comments = (line[1:].removeprefix(" ") for line in path.read_text().splitlines() if line.startswith("#"))
        found[_name(path)] = "\n".join(comments)
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        found[_name(path)] = ast.get_docstring(ast.parse(path.read_text())) or ""
    return found


@cache
def tokens(page: str) -> list[Token]:
    """A page as markdown-it reads it."""
    return READER.parse(pages()[page])


@cache
def blocks(page: str) -> list[Block]:
    """A page's blocks of code; in one block, paragraphs of different kinds are apart."""
    found = []
    for token in tokens(page):
        if token.type not in ("code_block", "fence"):
            continue
        line = token.map[0] + 1 + (token.type == "fence")
        paragraphs = []
        for text in token.content.rstrip().split("\n\n"):
            paragraphs.append((line, kind_of(text), text))
            line += text.count("\n") + 2
        for kind, own in groupby(paragraphs, lambda one: one[1]):
            together = list(own)
            found.append(Block(page, together[0][0], kind, "\n\n".join(text for _, _, text in together)))
    return found


def kind_of(text: str) -> str:
    """What a paragraph of code is; empty if nobody can tell."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    words = lines[0].split()
    while len(words) > 1 and ASSIGNMENT.match(words[0]):
        words = words[1:]
    if words[0].rsplit("/", 1)[-1] in PROGRAMS and (words[0] == "." or not words[0].endswith("/")):
        return "shell"
    if all(ASSIGNMENT.match(line) for line in lines):
        return "environment"
    if lines[0].startswith("["):
        return "ini"
    if words[-1] == "{":
        return "braces"
    if re.match(r"\w+: \S", lines[0]):
        return "yaml"
    if re.match(r"\w+(,\w+)+$", lines[0]):
        return "csv"
    if lines[0].endswith("/") or "   " in lines[0]:
        return "tree"
    try:
        ast.parse(text)
        return "python"
    except SyntaxError:
        return ""


def commands(block: Block) -> Iterator[Command]:
    """A block's commands, each with the lines that it goes on in."""
    assert block.kind == "shell", f"{block}: {block.kind}"
    text, first = "", block.line
    for number, line in enumerate(block.text.splitlines(), block.line):
        first = first if text else number
        text += line + "\n"
        if _whole(text):
            if shlex.split(text, comments=True):
                yield Command(block.page, first, text.strip())
            text = ""
    assert not text, f"{block}: a command without an end: {text}"


def all_commands() -> list[Command]:
    """Of every page, in the order of each page."""
    shown = [block for page in pages() for block in blocks(page) if block.kind == "shell"]
    return [command for block in shown for command in commands(block)]


def quoted(page: str) -> list[str]:
    """What stands in backticks."""
    return [token.content for token in inline(page) if token.type == "code_inline"]


def inline(page: str) -> list[Token]:
    """The words, links and pictures of all its sentences."""
    return [child for token in tokens(page) for child in token.children or []]


def _whole(text: str) -> bool:
    if text.rstrip("\n").endswith("\\"):
        return False
    try:
        words = shlex.split(text, comments=True)
        return words.count("do") == words.count("done")  # a loop goes on
    except ValueError:  # a quotation goes on in the next line
        return False


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))
