"""Every shown command runs, page by page, as a stranger would give it in a fresh clone."""

import re

import pytest
import shown
from day import Day
from size import FULL
from test_shown_names import FAMILIES

pytestmark = pytest.mark.skipif(not FULL, reason="an hour; make torture")


def in_order() -> list[str]:
    """README, then pages as it names them, then what else shows commands to give."""
    first = shown.pages()["README.md"]
    rest = [page for page in shown.pages() if page != "README.md" and not page.startswith("benchmarks")]
    return ["README.md", *sorted(rest, key=lambda page: first.find(f"({page})") % 2**31)]


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    return Day.begin(tmp_path_factory.mktemp("day"))


@pytest.mark.parametrize("page", in_order())
def test_every_command_of_the_page_runs(day, page):
    wrong = []
    day.begin_page()
    try:
        for block in shown.blocks(page):
            if block.kind == "python":
                wrong.append(day.do(shown.Command(page, block.line, f"python - <<'END'\n{block.text}\nEND")))
            elif block.kind == "shell":
                wrong += [day.do(command) for command in shown.commands(block) if command.is_run]
    finally:
        day.end_page()
    assert not any(wrong), "\n".join(filter(None, wrong))


def test_runs_hold_what_pages_name(day):
    left = set()
    for run in day.client.search_runs(["0"], max_results=5000):
        left |= run.data.metrics.keys() | run.data.params.keys() | run.data.tags.keys()
        folders = [item.path for item in day.client.list_artifacts(run.info.run_id) if item.is_dir]
        left |= {item.path for folder in folders for item in day.client.list_artifacts(run.info.run_id, folder)}
    named = {name for page in shown.pages() if page.endswith(".md") for name in shown.quoted(page)}
    named = {name for name in named if re.fullmatch(rf"(?:{FAMILIES.replace(' ', '|')})/[a-z_/.0-9]*[a-z_0-9]", name)}
    assert not named - left - {"audit/pairs.png"}  # only where a picture is in two parts
