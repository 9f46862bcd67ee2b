"""The page in a real Chromium, by clicks and keys, before the released classifier. Slices are phantoms."""

import base64
import csv
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from sslbt.data.phantom import make_sample
from sslbt.tracking.models import RELEASED, onnx_file

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]
HOSTILE = "<img src=x onerror=document.title='hacked'>.png"
KEY = "a key"
expect.set_options(timeout=20_000)
SERVICE = """
import sys
from pathlib import Path
from serve.app import create_app
from serve.current import Current, Model
from serve.server import run
from serve.session import Classifier
model = Model(Classifier.load(Path(sys.argv[1])), "brain-tumor-classifier", "1")
run(create_app(Current(model), sys.argv[3]), "127.0.0.1", int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if not chromium:
        assert "SSLBT_NEVER_SKIP" not in os.environ, "chromium is missing"
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=FLAGS)


def start_with(start, key: str) -> str:
    return start(lambda port: [sys.executable, "-c", SERVICE, str(onnx_file(RELEASED)), str(port), key]).address


@pytest.fixture(scope="module")
def address(start) -> str:
    return start_with(start, "")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> list[Path]:
    """Slices whose answers differ: some the classifier is sure of, some not, some it takes for no brain MRI."""
    folder = tmp_path_factory.mktemp("phantoms")
    make_sample(folder, 6, 256)
    return sorted(folder.glob("[0-9]*.mat"), key=lambda file: int(file.stem))


@pytest.fixture(scope="module")
def told(address, phantoms) -> dict[str, dict]:
    """What the service says of each phantom."""
    rows = (asked(address, file.name, file.read_bytes()) for file in phantoms)
    return {row["file"]: row for row in rows}


@pytest.fixture(scope="module")
def one_of_each(phantoms, told) -> list[Path]:
    """A phantom that is answered, one that is not, one that is taken for no brain MRI."""
    of = {told[file.name]["status"]: file for file in reversed(phantoms)}
    return [of["answered"], of["unsure"], of["stranger"]]


@pytest.fixture
def open_page(browser, tmp_path) -> Iterator:
    """Open the page at an address. Whatever it does, nothing may leave the host or be reported on the console."""
    seen: list[str] = []
    wrong: list[str] = []
    contexts = []

    def opened(address: str, refusals: int = 0, **how: object) -> Page:
        how = {"reduced_motion": "reduce", "viewport": {"width": 1000, "height": 900}} | how
        context = browser.new_context(**how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        context.on("request", lambda request: seen.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))

        def said(message) -> None:
            refused = f"status of {refusals} " in message.text  # Chromium reports those, not the page
            if message.type in ("error", "warning") and not refused:
                wrong.append(message.text)

        page.on("console", said)
        page.goto(address)
        seen.append(f"opened {address}")
        return page

    yield opened
    for context in contexts:
        context.close()
    homes = {url.removeprefix("opened ") for url in seen if url.startswith("opened ")}
    outside = [url for url in seen if not url.startswith((*homes, "opened ", "data:", "blob:"))]
    assert homes
    assert not outside
    assert not wrong


def asked(address: str, name: str, content: bytes) -> dict:
    answer = httpx.post(f"{address}/predict", files={"files": (name, content)}, timeout=60)
    (row,) = answer.json()["predictions"]
    return row


def give(page: Page, *files: Path | tuple[str, bytes]) -> None:
    """Choose files, and wait until all are done."""
    made = [(own.name, own.read_bytes()) if isinstance(own, Path) else own for own in files]
    page.locator("#files").set_input_files(
        [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in made]
    )
    wait(page, len(made))


def wait(page: Page, count: int) -> None:
    expect(page.locator("#results > li[class]:not([class=''])")).to_have_count(count, timeout=30_000)


def card(page: Page, name: str) -> Locator:
    return page.locator("#results > li").filter(has=page.get_by_text(name, exact=True))


def number(text: str) -> tuple[float, float]:
    """A percentage as the page writes it, and how far off it may be."""
    match = re.fullmatch(r"([<>] )?(\d+(\.\d)?) %", text.replace("\xa0", " "))
    assert match, text
    return float(match[2]) / 100, 0.001 if match[1] else 0.0005 if match[3] else 0.005


def pixels(picture: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB")).astype(int)


def colour(picture: Locator) -> float:
    """How far the picture on the screen is from grey."""
    return float(np.ptp(pixels(picture), axis=2).mean())


def test_what_the_page_shows_is_what_the_service_says(open_page, address, phantoms, told):
    page = open_page(address)
    expect(page.locator("main > *").nth(1)).to_contain_text("Research software, not for diagnosis.")
    give(page, *phantoms)
    classes = httpx.get(f"{address}/version").json()["classes"]
    for name, row in told.items():
        own = card(page, name)
        expect(own).to_have_class(row["status"])
        lines = own.locator(".scores > div")
        assert lines.locator("dt").all_text_contents() == classes
        for line, probability in zip(lines.all(), (row[f"p_{own}"] for own in classes), strict=True):
            shown, apart = number(line.locator("dd").last.text_content() or "")
            assert shown == pytest.approx(probability, abs=apart)
        heading = own.locator("h2").inner_text()
        if row["status"] == "answered":
            label, confidence = heading.split("\n")[0].split(", ")
            assert label == row["label"]
            assert number(confidence)[0] == pytest.approx(row["confidence"], abs=number(confidence)[1])
        elif row["status"] == "unsure":
            assert heading.startswith("Not sure: ")
            plausible = re.findall("|".join(classes), row["reason"])
            assert re.findall("|".join(classes), heading) == plausible
            assert len(plausible) > 1
        else:
            assert heading.startswith("Not a brain MRI?")
            expect(own.locator(".scores")).to_be_hidden()  # said only to who asks for it
            expect(own.locator(".over")).to_have_count(0)
    assert {row["status"] for row in told.values()} == {"answered", "unsure", "stranger"}
    answered = sum(row["status"] == "answered" for row in told.values())
    expect(page.locator("#summary")).to_contain_text(f"{answered} of {len(told)} answered")


def test_files_that_are_none_html_and_dicom(open_page, address, dicom, png):
    page = open_page(address)
    give(page, ("broken.png", b"nothing"), (HOSTILE, png), ("IM0001", dicom), ("empty.dcm", b""))
    for name in ("broken.png", "empty.dcm"):
        expect(card(page, name)).to_have_class("unreadable")
        expect(card(page, name).locator("h2")).to_contain_text("Not readable")
        expect(card(page, name).locator(".reason")).to_contain_text(name)
    expect(card(page, HOSTILE)).to_have_count(1)
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "Brain tumour classifier"
    expect(card(page, "IM0001")).to_have_class(asked(address, "IM0001", dicom)["status"])
    expect(card(page, "IM0001").locator("img").first).to_be_visible()
    expect(page.locator("#summary")).to_contain_text("2 not readable")
    names = page.locator("#results h2 .file").all_text_contents()
    assert names == ["broken.png", HOSTILE, "IM0001", "empty.dcm"]  # in the order given


def test_where_it_looked_lies_over_the_picture_and_fades(open_page, address, phantoms, told):
    name = next(name for name, row in told.items() if row["status"] == "answered")
    with Image.open(io.BytesIO(preview(address, phantoms, name))) as whole:
        narrow = io.BytesIO()
        whole.crop((0, 0, whole.width, round(0.8 * whole.height))).save(narrow, "PNG")
    page = open_page(address)
    give(page, ("narrow.png", narrow.getvalue()))
    picture = card(page, "narrow.png").locator(".picture")
    below, above = picture.locator("img").all()
    assert below.bounding_box() == above.bounding_box()
    sizes = [own.evaluate("image => [image.naturalWidth, image.naturalHeight]") for own in (below, above)]
    assert sizes[0] == sizes[1]
    assert sizes[0][0] > sizes[0][1]

    fade = page.get_by_label("Fade")
    fade.fill("100")
    most = colour(picture)
    fade.fill("30")
    less = colour(picture)
    fade.fill("0")
    assert colour(picture) < 0.1 < less < most
    expect(page.get_by_label("Show where it looked")).not_to_be_checked()
    fade.fill("100")
    page.get_by_label("Show where it looked").uncheck()
    assert colour(picture) < 0.1
    page.get_by_label("Show where it looked").check()
    assert colour(picture) == pytest.approx(most, rel=0.01)


def preview(address: str, phantoms: list[Path], name: str) -> bytes:
    content = next(file for file in phantoms if file.name == name).read_bytes()
    answer = httpx.post(f"{address}/predict?preview=1", files={"files": (name, content)}, timeout=60)
    return base64.b64decode(answer.json()["predictions"][0]["preview"].split(",")[1])


def test_an_older_file_that_can_not_say_where_has_no_fader(start_service, open_page, png):
    page = open_page(start_service().address)
    give(page, ("a.png", png))
    expect(page.locator("#results img")).to_have_count(1)
    expect(page.get_by_label("Fade")).to_be_hidden()
    expect(page.locator("#synthetic")).to_be_visible()  # as that file's metadata say


def test_keys_are_enough(open_page, address, phantoms):
    page = open_page(address)
    with page.expect_file_chooser() as chooser:  # it begins to listen while the next lines ask the page
        page.keyboard.press("Tab")
        expect(page.locator("#files")).to_be_focused()
        assert page.locator("#drop").evaluate("own => getComputedStyle(own).outlineStyle") == "solid"
        page.keyboard.press("Space")
    chooser.value.set_files(phantoms[:3])
    wait(page, 3)
    order = []
    for _ in range(7):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
        if order[-1] == "shown":
            page.keyboard.press("Space")
            expect(page.locator(".over").first).to_have_css("opacity", "0")
            page.keyboard.press("Space")
            expect(page.locator(".over").first).to_have_css("opacity", "0.7")
        if order[-1] == "fade":
            page.keyboard.press("ArrowLeft")
            expect(page.locator(".over").first).to_have_css("opacity", "0.65")
        if order[-1].startswith("Remove"):
            break
    names = [file.name for file in phantoms[:3]]
    assert order == ["save", "clear", "shown", "fade", f"Remove {names[0]}"]
    page.keyboard.press("Enter")
    expect(card(page, names[0])).to_have_count(0)
    expect(page.get_by_label(f"Remove {names[1]}")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Enter")
    expect(page.locator("#files")).to_be_focused()
    expect(page.locator("#tools")).to_be_hidden()


def test_a_screen_reader_is_told_briefly(open_page, address, phantoms, told):
    page = open_page(address)
    name = next(name for name, row in told.items() if row["status"] == "answered")
    give(page, next(file for file in phantoms if file.name == name), ("broken.png", b"nothing"))
    said = page.get_by_role("log").locator("p").all_text_contents()
    assert len(said) == 3
    assert re.fullmatch(rf"{name}: {told[name]['label']}, [<>\d. \xa0]+%", next(own for own in said if name in own))
    assert "broken.png: Not readable" in said
    assert said[-1] == "1 of 2 answered, 1 not readable"
    expect(page.locator("#results")).to_match_aria_snapshot(
        f"""
        - list "Slices":
          - listitem:
            - img "{name}, in colour where it looked"
            - heading /{told[name]["label"]}, .*% {name}/ [level=2]
          - listitem:
            - heading "Not readable broken.png" [level=2]
        """
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page, address, one_of_each, scheme):
    page = open_page(address, color_scheme=scheme)
    empty = Axe().run(page)
    give(page, *one_of_each, ("broken.png", b"nothing"))
    page.locator("summary").click()
    page.locator("#key").evaluate("own => { own.hidden = false; }")
    for found in (empty, Axe().run(page)):
        assert not found.response["violations"], found.generate_report()
    background = page.locator("body").evaluate("own => getComputedStyle(own).backgroundColor")
    assert (min(map(int, re.findall(r"\d+", background))) > 200) == (scheme == "light")


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_cut_off_on_phones_or_zoomed_in(open_page, address, one_of_each, width):
    page = open_page(address, viewport={"width": width, "height": 256})
    give(page, *one_of_each, ("a_name_without_any_space_" * 8 + ".png", b"nothing"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("#tools")).to_have_css("position", "static")  # would hide all the rest
    rights = page.locator("main *").evaluate_all("all => all.map(own => own.getBoundingClientRect().right)")
    assert max(rights) <= width


def test_the_table_holds_what_the_service_said_and_no_formula(open_page, address, phantoms, told):
    page = open_page(address)
    give(page, phantoms[0], phantoms[1], ('=1+"1",.png', b"nothing"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "scores.csv"
    rows = list(csv.DictReader(download.value.path().read_text("utf-8-sig").splitlines()))
    assert [row["file"] for row in rows] == [phantoms[0].name, phantoms[1].name, '\'=1+"1",.png']
    for row in rows[:2]:
        expected = told[row["file"]]
        assert (row["label"], row["status"], row["reason"]) == tuple(
            expected[name] for name in ("label", "status", "reason")
        )
        for name in ("p_glioma", "p_meningioma", "p_pituitary", "confidence"):
            assert float(row[name]) == pytest.approx(expected[name], rel=1e-6)
    assert (rows[2]["label"], rows[2]["p_glioma"], rows[2]["status"]) == ("", "", "unreadable")


def test_drops_of_files_and_folders(open_page, address, phantoms, tmp_path):
    folder = tmp_path / "study"
    (folder / "deep").mkdir(parents=True)
    for place, file in zip((folder, folder / "deep"), phantoms, strict=False):
        shutil.copy(file, place)
    page = open_page(address)
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder), str(phantoms[2])], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 500, "y": 700, "data": data})
        if kind == "dragOver":
            expect(page.locator("body")).to_have_class("dropping")
    wait(page, 3)
    expect(page.locator("body")).not_to_have_class("dropping")
    names = page.locator("#results h2 .file").all_text_contents()
    assert sorted(names) == sorted(file.name for file in phantoms[:3])


def test_a_picture_is_pasted(open_page, address, png):
    page = open_page(address, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async text => {
            const bytes = Uint8Array.from(atob(text), own => own.charCodeAt(0));
            await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
        }""",
        base64.b64encode(png).decode(),
    )
    page.keyboard.press("Control+V")
    wait(page, 1)
    expect(page.locator("#results img").first).to_be_visible()


def test_two_files_at_most_are_on_their_way(open_page, address, phantoms):
    page = open_page(address)
    under_way, most = set(), []

    def began(request) -> None:
        if urlsplit(request.url).path == "/predict":
            under_way.add(request)
            most.append(len(under_way))

    page.on("request", began)
    page.on("requestfinished", lambda request: under_way.discard(request))
    give(page, *phantoms[:12])
    assert len(most) == 12
    assert max(most) == 2


def test_a_busy_service_is_asked_again_and_says_so(open_page, address, phantoms):
    page = open_page(address, refusals=503)
    refused: list[str] = []

    def busy(route) -> None:
        if len(refused) == 2:
            return route.fallback()
        refused.append(route.request.url)
        return route.fulfill(status=503, headers={"Retry-After": "2"}, json={"error_code": "X", "message": "busy"})

    page.route("**/predict*", busy)
    page.locator("#files").set_input_files(phantoms[0])
    expect(page.locator("#results h2")).to_contain_text("The service is busy: next try in 2 s")
    expect(page.locator("#progress")).to_be_visible()
    wait(page, 1)
    assert len(refused) == 2
    expect(page.locator("#results > li.failed")).to_have_count(0)


def test_without_an_answer_one_can_try_again(open_page, address, phantoms):
    page = open_page(address, refusals=502)
    page.route("**/predict*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"), times=1)
    give(page, phantoms[0])
    expect(page.locator("#results h2")).to_contain_text("No answer")
    expect(page.locator(".reason")).to_have_text("the service answered with status 502")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#results > li.failed")).to_have_count(0)
    wait(page, 1)
    expect(page.get_by_label(f"Remove {phantoms[0].name}")).to_be_focused()


def test_what_is_removed_stays_away(open_page, address, phantoms):
    page = open_page(address)
    page.route("**/predict*", lambda route: None)  # never answered
    page.locator("#files").set_input_files(phantoms[:5])
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#results > li")).to_have_count(0)
    page.unroute("**/predict*")
    give(page, phantoms[5])
    expect(page.locator("#results > li")).to_have_count(1)
    said = page.get_by_role("log").locator("p").all_text_contents()
    assert [own.split(":")[0] for own in said] == ["Cleared", phantoms[5].name]


def test_the_key_is_asked_for_and_sent(start, open_page, phantoms):
    page = open_page(start_with(start, KEY), refusals=401)
    field = page.get_by_label("Key of this service")
    expect(field).to_be_visible()
    assert field.get_attribute("type") == "password"
    page.locator("#files").set_input_files(phantoms[:3])
    expect(page.locator("#results > li")).to_have_count(3)
    field.fill("another")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("alert")).to_contain_text("Not this key")
    field.fill(KEY)
    field.press("Enter")
    wait(page, 3)  # what waited goes on
    expect(field).to_be_hidden()
    page.reload()
    expect(page.locator("#model")).to_contain_text("brain-tumor-classifier")
    expect(field).to_be_hidden()


def test_it_prints_in_black_on_white_without_what_is_to_click(open_page, address, phantoms):
    page = open_page(address, color_scheme="dark")
    give(page, *phantoms[:2])
    page.emulate_media(media="print")
    for hidden in ("#drop", "#look", "#save", ".remove >> nth=0"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.locator("body")).to_have_css("background-color", "rgb(251, 250, 248)")
    expect(page.locator("#results .over").first).to_be_visible()
    expect(page.locator(".warning")).to_be_visible()
