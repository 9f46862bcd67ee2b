"""What pages name is there: links, pictures, files, addresses, parameters and their values, variables, metrics."""

import ast
import re
from functools import cache
from itertools import pairwise

import mlflow.environment_variables
import mlflow.server.auth
import pytest
import shown
import understood

from sslbt.config import STAGES
from sslbt.errors import UserError

PAGES = [page for page in shown.pages() if page.endswith(".md")]
FIELDS = {name for config in STAGES.values() for name in config.model_fields}
OTHERS_FLAGS = {"--env-manager": "mlflow run", "--model-control-mode": "Triton"}
OTHERS_VARIABLES = r"(PIP|UV|PYSPARK)_\w+|OMP_NUM_THREADS"
FAMILIES = "accepted audit best control labels probe saliency score small sweep test validation"


def wrong_in(page, shape, is_right):
    """Everything in backticks of this shape, whole, that isn't right."""
    matches = (re.fullmatch(shape, text) for text in dict.fromkeys(shown.quoted(page)))
    return [f"{page}: `{match[0]}`" for match in matches if match and not is_right(*match.groups())]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    wrong, here = [], (shown.ROOT / page).parent
    for token in shown.inline(page):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not target or re.match(r"(https?|mailto):", target):
            continue
        name, _, anchor = target.partition("#")
        file = (here / name).resolve() if name else shown.ROOT / page
        inside = file.is_relative_to(shown.ROOT) and file.exists()
        if not inside or (anchor and anchor not in anchors(str(file.relative_to(shown.ROOT)))):
            wrong.append(target)
        elif token.type == "image":
            assert token.content, f"{target}: what the picture shows, for those who don't see it"
            assert file.stat().st_size > 1000, target
    assert not wrong


@cache
def anchors(page):
    """Headings as GitHub makes addresses of them."""
    tokens = shown.tokens(page)
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", shown.pages())
def test_files_of_the_project_exist(page):
    text = shown.pages()[page]
    named = set(re.findall(r"(?<![\w/.~-])(?:docs|sslbt|serve|tests|benchmarks)/[\w/.-]*\w", text))
    assert not [name for name in named if not (shown.ROOT / name).exists()]


def test_every_page_can_be_found_from_the_first():
    text = shown.pages()["README.md"]
    assert not [page for page in PAGES if page != "README.md" and f"({page})" not in text]


def test_every_picture_is_shown():
    targets = {
        (shown.ROOT / page).parent / str(token.attrs.get("src") or token.attrs.get("href") or "")
        for page in PAGES
        for token in shown.inline(page)
    }
    pictures = set((shown.ROOT / "docs").glob("*.png"))
    assert not pictures - {file.resolve() for file in targets}


@pytest.mark.parametrize("page", PAGES)
def test_parameters_take_the_values_shown(page):
    def takes(name, value):
        if name not in FIELDS or not value.strip("."):
            return True
        if value in ("RUN_ID", "official:K"):
            return True
        if ".." in value or "|" in value:
            return is_searched(f"{name}={value}")
        for config in (config for config in STAGES.values() if name in config.model_fields):
            try:
                config.build(**{name: value})
                return True
            except UserError as error:
                if not str(error).startswith(f"{name}=") and "no such parameter" not in str(error):
                    return True  # something else of this step is missing
        return False

    assert not wrong_in(page, r"([a-z_]+)=([\w:.%|-]+(?: log| step \d+)?)", takes)


def is_searched(search):
    """A sweep of one of the trainings takes it."""
    for stage in ("pretrain-contrastive", "pretrain-encoder", "finetune"):
        try:
            STAGES["sweep"].build(stage=stage, search=search)
            return True
        except UserError:
            continue
    return False


@pytest.mark.parametrize("page", PAGES)
def test_flags_and_variables_are_known(page):
    flags = {name.replace("_", "-") for name in FIELDS} | {name[2:] for name in OTHERS_FLAGS}
    assert not wrong_in(page, r"--([a-z-]+)(?:[ =].*)?", lambda name: name in flags)
    assert not wrong_in(page, r"\$?([A-Z]+_[A-Z_]+)(?:[=/].*)?", is_variable)
    for block in (block for block in shown.blocks(page) if block.kind in ("environment", "shell")):
        for name in re.findall(r"\b((?:SSLBT|MLFLOW)_[A-Z_]+)\b", block.text):
            assert is_variable(name), f"{block}: {name}"


def is_variable(name):
    """Of sslbt, of MLflow, or of another program."""
    if re.fullmatch(OTHERS_VARIABLES, name) or name in source():
        return True
    others = (mlflow.environment_variables, mlflow.server.auth)
    return name.startswith("MLFLOW_") and any(name in open(module.__file__).read() for module in others)


@pytest.mark.parametrize("page", PAGES)
def test_addresses_of_the_service_exist(page):
    def answers(method, path):
        return understood.has_route(method or "GET", path) or understood.has_route("POST", path)

    assert not wrong_in(page, r"(?:(GET|POST) )?(/(?!signup|etc/|var/|\.\.\.)[a-z0-9/.]*(?<!\.))", answers)


@pytest.mark.parametrize("page", PAGES)
def test_what_runs_and_the_service_leave_is_called_so_in_the_code(page):
    assert not wrong_in(page, rf"((?:{FAMILIES.replace(' ', '|')})/[a-z_/]+\w)(?:\.\w+)?", is_called)
    assert not wrong_in(page, r"(sslbt_[a-z_]+?)(?:_total)?", lambda name: f'"{name}"' in source())
    assert not wrong_in(page, r"((?!sslbt_)[a-z_]+_[a-z_]+)", is_called)
    assert not wrong_in(page, r"(?:[a-z]+/)?(\w+\.(?:html|csv|json|png|onnx|safetensors|txt|pbtxt|ini))", is_file)


def is_called(name):
    """Each part between strokes is a string of the code, a parameter, or begins or ends as a formatted one does."""
    whole, pieces = strings()

    def known(part):
        part = re.sub(r"_(glioma|meningioma|pituitary)$", "", part)
        return part in whole or part in FIELDS or any(part.startswith(one) or part.endswith(one) for one in pieces)

    return name in whole or all(known(part) for part in name.split("/"))


def is_file(name):
    """A file of the project, or a name in its code, or a user's."""
    stem = name.split(".")[0]
    return name in source() or stem in source() or any(shown.ROOT.glob(f"**/{name}")) or name in examples()


@cache
def examples():
    """Files that the shown commands themselves make or take."""
    blocks = [block for page in PAGES for block in shown.blocks(page)]
    return {word for block in blocks for word in re.findall(r"[\w.]+", block.text)}


@cache
def source():
    """All code and its templates."""
    files = [path for folder in ("sslbt", "serve") for path in (shown.ROOT / folder).rglob("*")]
    return "\n".join(path.read_text() for path in files if path.suffix in (".py", ".jinja", ".html"))


@cache
def strings():
    """String literals of the code, with names of arguments and columns; and the fixed pieces of formatted ones."""
    whole, pieces = set(), set()
    for path in [path for folder in ("sslbt", "serve") for path in (shown.ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                fixed = (value.value for value in node.values if isinstance(value, ast.Constant))
                pieces |= {part for text in fixed for part in re.findall(r"\w{4,}", text) if "_" in part}
                whole |= {word for value in node.values if isinstance(value, ast.Constant) for word in words(value)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole |= words(node)
            elif isinstance(node, ast.keyword | ast.arg):
                whole.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                whole.add(node.target.id)
    return whole, pieces


def words(constant):
    """A text that is a name, or names with strokes between."""
    return {constant.value, *re.findall(r"\w+", constant.value)} if len(constant.value) < 60 else set()


def test_the_table_of_entry_points_is_that_of_the_code():
    rows = [row for row in rows_of("README.md") if row[0].strip("`") in STAGES and len(row) == 3]
    assert {row[0].strip("`") for row in rows} == set(STAGES)
    for name, _, parameters in rows:
        config = STAGES[name.strip("`")]
        for field, default in re.findall(r"`(\w+)`(?: \(([^`;)]+)\))?", parameters):
            if field == name.strip("`"):
                continue
            assert field in config.model_fields, f"{name} has no {field}"
            plain = re.fullmatch(r"[\w./-]+", default)
            if plain:
                fields = {other: "x" for other, about in config.model_fields.items() if about.is_required()}
                fields = {key: value for key, value in fields.items() if key in ("model", "input", "pretrained")}
                built = config.build(**fields, **({"runs": "a b"} if name == "`compare`" else {}))
                assert str(getattr(built, field)) == default, f"{name} {field}"


def rows_of(page):
    """Rows of a page's tables, cells as written."""
    rows = []
    for token in shown.tokens(page):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 2:
            rows[-1].append(token.content)
    return rows
