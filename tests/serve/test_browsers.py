"""Pages of other origins, as browsers announce them and in a real Chromium; what browsers are told to forbid."""

import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, sync_playwright

from serve.app import create_app
from sslbt.tracking.models import RELEASED, onnx_file

OURS = "http://127.0.0.1:8080"
FOREIGN = """<!doctype html><title>foreign</title><body><script>
const address = location.hash.slice(1);
const form = new FormData();
form.append("files", new Blob(["x"]), "x.png");
const tried = {
  post: () => fetch(address + "/predict", { method: "POST", body: form }).then(answer => answer.text()),
  blind: () => fetch(address + "/predict", { method: "POST", body: form, mode: "no-cors" }).then(answer => answer.type),
  read: () => fetch(address + "/version").then(answer => answer.text()),
};
(async () => {
  const told = {};
  for (const name in tried) told[name] = await tried[name]().catch(error => "failed");
  const frame = document.createElement("iframe");
  frame.src = address + "/";
  document.body.append(frame);
  document.title = JSON.stringify(told);
})();
</script>"""


@pytest.fixture
def client(current) -> TestClient:
    return TestClient(create_app(current, names=["sslbt.example.org", ""]), base_url=OURS)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, 200),  # curl, tritonclient, MLflow
        ({"Sec-Fetch-Site": "same-origin", "Origin": OURS}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://sslbt.example.org"}, 200),  # a proxy sets another Host
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": OURS}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9"}, 403),  # another port of this machine
        ({"Origin": OURS}, 200),  # an older browser, or one without TLS
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),  # a file, a sandbox
        ({"Origin": "http://["}, 403),  # no address
        ({"Origin": "http://[foo]"}, 403),
    ],
)
def test_only_our_own_page_may_ask(client, png, said, status):
    for path in ("/predict", "/invocations", "/v2/models/tiny/infer"):
        answer = client.post(path, content=png, headers=said)
        assert (answer.status_code == 403) is (status == 403)
        if status == 403:
            assert "another origin" in answer.text
    assert client.post("/predict", content=png, headers=said).status_code == status
    assert client.get("/version", headers=said).status_code == 200  # a link from anywhere; nobody else can read it


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8080", True),
        ("10.1.2.3", True),
        ("[::1]:8080", True),
        ("localhost:1", True),
        ("LOCALHOST.", True),
        ("sslbt.example.org", True),
        ("SSLBT.example.org:443", True),
        ("", True),  # old probes send none
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("x.sslbt.example.org", False),
        (":8080", False),
        ("[::1", False),
        ("127.0.0.1@evil.example", False),
    ],
)
def test_under_a_name_of_somebody_else_nothing_is_told_but_that_it_lives(client, png, host, known):
    told = {"Host": host}
    for answer in (client.get("/version", headers=told), client.post("/predict", content=png, headers=told)):
        assert answer.status_code == (200 if known else 421)
        assert known or "SSLBT_HOSTS" in answer.json()["message"]
    assert client.get("/ready", headers=told).status_code == 200  # probes of a cluster come under any name


def test_with_a_key_any_name_will_do(current, png):
    client = TestClient(create_app(current, key="k"), base_url="https://sslbt.example.org")
    assert client.post("/predict", content=png, headers={"Authorization": "Bearer k"}).status_code == 200
    assert client.post("/predict", content=png).status_code == 401


def test_every_answer_says_what_browsers_are_not_to_do(client, current):
    refused = TestClient(create_app(current, key="k"), base_url=OURS)
    asked = [client.get(path) for path in ("/", "/docs", "/version", "/nothing", "/static-offline-docs/favicon.png")]
    asked += [client.post("/predict", headers={"Origin": "null"}), refused.get("/version"), client.post("/predict")]
    for answer in asked:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "'unsafe-inline'" not in policy.split("style-src")[0]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not {name for name in answer.headers if name.startswith("access-control")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if not chromium:
        assert "SSLBT_NEVER_SKIP" not in os.environ, "chromium is missing"
        pytest.skip("needs chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--host-resolver-rules=MAP rebound.example 127.0.0.1"]
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=flags)


@pytest.fixture(scope="module")
def address(start) -> str:
    """The service as a user starts it."""
    model = str(onnx_file(RELEASED))
    return start(lambda port: [sys.executable, "-m", "sslbt", "serve", "--model", model, "--port", str(port)]).address


@pytest.fixture(scope="module")
def foreign() -> Iterator[str]:
    """A page of another origin."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(FOREIGN.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()


def scored(address: str) -> str:
    counted = httpx.get(f"{address}/metrics").text
    return re.search(r'sslbt_requests_total\{route="/predict",status="200"\} (\S+)', counted + "0").group(1)


def test_a_foreign_page_can_neither_post_nor_read_nor_frame(browser, address, foreign, png):
    assert httpx.post(f"{address}/predict", content=png).status_code == 200
    page = browser.new_page()
    page.goto(f"{foreign}#{address}")
    page.wait_for_function("document.title.startsWith('{')")
    # Without CORS a page sees nothing of an answer; that the service refused is in its own count.
    assert page.evaluate("JSON.parse(document.title)") == {"post": "failed", "blind": "failed", "read": "failed"}
    assert scored(address) == "1.0"
    page.wait_for_timeout(500)
    assert [frame.evaluate("document.getElementById('files')") for frame in page.frames] == [None, None]
    page.close()


def test_a_page_whose_name_was_pointed_here_reads_nothing(browser, address):
    port = address.rpartition(":")[2]
    page = browser.new_page()
    assert page.goto(f"http://rebound.example:{port}/").status == 200  # the page itself is no secret
    answers = page.evaluate(
        """async () => [await fetch("version"), await fetch("predict", { method: "POST", body: "x" })]
           .map(answer => answer.status)"""
    )
    assert answers == [421, 421]
    page.close()


def test_the_documentation_works_under_its_policy(browser, address):
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{address}/docs")
    page.wait_for_selector("text=/invocations")
    page.evaluate(
        "const made = document.createElement('script'); made.textContent = 'hacked = 1'; document.body.append(made)"
    )
    assert page.evaluate("typeof hacked") == "undefined"
    assert len(wrong) == 1, wrong
    assert "Content Security Policy" in wrong[0]
    page.close()


def test_our_page_works_where_no_fetch_metadata_come(browser, current, served):
    """Over plain HTTP to another machine browsers send no Sec-Fetch-Site, but Origin."""
    with served(create_app(current, names=["rebound.example"])) as port:
        assert socket.create_connection(("127.0.0.1", port)).close() is None
        page = browser.new_page()
        page.goto(f"http://rebound.example:{port}/")
        status = page.evaluate("""fetch("predict", { method: "POST", body: "x" }).then(answer => answer.status)""")
        assert status == 200
        page.close()
