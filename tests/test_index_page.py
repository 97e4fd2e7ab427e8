"""The index's front page in a real browser: choices, keys, two languages, two widths."""

from __future__ import annotations

import functools
import http.server
import os
import shlex
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale_build.index import Request, publish

from tests import chromium
from tests.chromium import Page
from tests.payload_wheels import payload_record, payload_wheel, plain_wheel

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no chromium on this machine (Debian: chromium)"
)
EVIL = '</script><img src=x onerror="window.hurt = 1"><b>'


def make_dist(folder: Path) -> Path:
    """Backends on several devices, Pythons and machines."""
    plain_wheel(folder)
    for version in ("0.10.1", "0.9.2", "0.32.0"):
        for python in ("cp311", "cp312"):
            for machine in ("x86_64", "aarch64"):
                tag = f"{python}-{python}-manylinux_2_34_{machine}"
                for device in ("cpu", "Metax_C550"):
                    payload_wheel(folder, "vllm", version, device, tag=tag, python=">=3.10,<3.14",
                                  requires=["uniscale>=0.1.0", "torch==2.13.0"])  # fmt: skip
    payload_wheel(folder, "vllm", "0.33.0")
    early = payload_record("vllm", "0.40.0rc1", "cpu")
    early["verified"]["partly"] = ["imported: on one machine"]
    payload_wheel(folder, "vllm", "0.40.0rc1", record=early)
    payload_wheel(folder, "llama.cpp", "0.5.0.dev20261001", tasks=["infer"])
    payload_wheel(folder, "Megatron-LM", "0.19.0", "MUSA_S5000", tasks=["train"], layers=[],
                  tree="1" * 40)  # fmt: skip
    record = payload_record("sglang", "0.5.0", "MUSA_S5000")
    record["layers"][0]["why"] = record["upstream"]["title"] = EVIL
    record["upstream"]["homepage"] = "javascript:alert(1)"
    payload_wheel(folder, "sglang", "0.5.0", "MUSA_S5000", record=record)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("index")
    report = base / "vllm-cpu.html"
    report.write_text("<!doctype html><title>Drift of vllm on cpu</title>")
    request = Request(add=(make_dist(base / "dist"),), drift=(report,))
    publish(base / "my site", request)
    yank = Request(yank={"uniscale_vllm-0.33.0+cpu-py3-none-any.whl": "wrong answers"})
    publish(base / "my site", yank)
    return base / "my site"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The index's address on this machine, below a folder as on a shared server."""
    handler = functools.partial(_Quiet, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/my%20site/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium.browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def chosen(page: Page) -> dict[str, str]:
    script = (
        "Object.fromEntries([...document.querySelectorAll('#pick input:checked')]"
        ".map((one) => [one.name, one.value]))"
    )
    found: dict[str, str] = page.run(script)
    return found


def pick(page: Page, name: str, value: str) -> None:
    page.click(f'input[name="{name}"][value="{value}"]')


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    ("language", "words"),
    [("en", ("Wheels for every chip", "Layers", "MetaX C550", "What there is")),
     ("zh", ("每种芯片的 wheel", "层", "沐曦 MetaX C550", "现有组合"))],
)  # fmt: skip
def test_two_languages_on_a_desk_and_on_a_phone(
    language: str, words: tuple[str, ...], width: int, page: Page, site: Path, tmp_path: Path
) -> None:
    page.open(f"{(site / 'index.html').as_uri()}#lang={language}&device=Metax_C550", width)
    text = page.text("body")
    for word in words:
        assert word in text
    assert page.complaints == []
    # Nothing sticks out, and a finger can hit what there is to touch.
    assert page.run("document.documentElement.scrollWidth") <= width
    small = page.run(
        "[...document.querySelectorAll('button, select, .chip')].filter((one) =>"
        "one.offsetHeight && one.offsetHeight < 32).map((one) => one.outerHTML)"
    )
    assert small == []
    assert page.run("document.documentElement.lang") == {"en": "en", "zh": "zh-Hans"}[language]
    shots = Path(os.environ.get("UNISCALE_SCREENSHOTS", tmp_path))
    page.screenshot(shots / f"index-{language}-{width}.png")


def test_every_word_is_in_both_languages(page: Page, site: Path) -> None:
    page.open((site / "index.html").as_uri())
    keys = page.run("[Object.keys(WORDS.en), Object.keys(WORDS.zh)]")
    assert keys[0] == keys[1]
    page.click('[data-language="zh"]')
    assert page.text("#copy") == "复制"
    english = page.run(
        "[...document.querySelectorAll('[data-t]')].filter((one) =>"
        "!/[\\u4e00-\\u9fff]/.test(one.textContent)).map((one) => one.dataset.t)"
    )
    assert english == []


def test_a_choice_leads_to_the_newest_wheel_that_is_not_withdrawn(page: Page, served: str) -> None:
    page.open(served)
    pick(page, "backend", "vllm")
    assert chosen(page)["device"] == "cpu"
    # It is what uniscale would take: no release candidate, and nothing withdrawn.
    assert page.text("#chosen") == "vllm 0.32.0 · Any x86-64 or Arm processor"
    assert page.text('td button[aria-pressed="true"]') == "0.32.0"
    words = ["uniscale install vllm", "--device cpu", "--version 0.32.0+cpu", f'--index "{served}"']
    assert page.text("#command") == " \\\n  ".join(words)
    # Who has no uniscale is told how to get it; pip and uv get it in the same command.
    first = page.text("#first")
    assert f'pip install "{served}packages/uniscale-0.1.0-py3-none-any.whl#sha256=' in first
    page.click('[data-tool="pip"]')
    assert page.text("#first") == "" and page.text("#command").count(".whl#sha256=") == 2
    page.click('[data-tool="uniscale"]')
    versions = page.run("[...document.querySelectorAll('#version option')].map((o) => o.label)")
    assert list(dict.fromkeys(one.split()[0] for one in versions)) == [
        "0.32.0+cpu", "0.10.1+cpu", "0.9.2+cpu", "0.40.0rc1+cpu", "0.33.0+cpu"
    ]  # fmt: skip
    choose_version = (
        "(() => { const s = document.querySelector('#version');"
        "s.selectedIndex = s.options.length - NUMBER;"
        "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    page.run(choose_version.replace("NUMBER", "2"))
    assert "imported: on one machine" in page.text("#facts")
    page.run(choose_version.replace("NUMBER", "1"))
    assert "Withdrawn: wrong answers" in page.text("#note")
    facts = page.text("#facts")
    for word in ("0.33.0", "So that users can ask.", "run: one answer", "SHA-256", " kB"):
        assert word in facts
    assert page.run("document.querySelector('#facts a[href^=\"drift/\"]').textContent") == (
        "Drift of vllm on cpu"
    )


def test_what_does_not_go_together_gives_way_and_says_so(page: Page, served: str) -> None:
    page.open(f"{served}#backend=vllm&device=Metax_C550&python=3.12&lang=en")
    assert chosen(page) == {"backend": "vllm", "device": "Metax_C550", "task": "",
                            "python": "3.12", "platform": ""}  # fmt: skip
    assert "torch, triton" in page.text("#note")
    apart = "document.querySelector('input[value=\"MUSA_S5000\"]').parentElement.className"
    assert page.run(apart) == "chip apart"
    pick(page, "task", "train")
    assert chosen(page)["backend"] == "Megatron-LM" and chosen(page)["device"] == "MUSA_S5000"
    assert "Backend was changed" in page.text("#advice")
    assert "none: upstream as it is" in page.text("#facts")
    page.click('td button[data-backend="llama.cpp"]')
    assert page.text("#chosen").startswith("llama.cpp 0.5.0.dev20261001")
    assert "device=cpu" in page.run("location.hash")


def test_keys_alone_are_enough(page: Page, served: str) -> None:
    page.open(f"{served}#lang=en")
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite",
                                                       "clipboardSanitizedWrite"])  # fmt: skip
    page.press("Tab", "Tab", "Tab")  # over the languages to the backends
    assert page.run("document.activeElement.name") == "backend"
    before = chosen(page)["backend"]
    page.press("ArrowRight")
    assert chosen(page)["backend"] != before
    assert page.run("document.activeElement.value") == chosen(page)["backend"]
    page.press("Tab", "ArrowDown")
    assert page.run("document.activeElement.name") == "device"
    for _ in range(20):
        if page.run("document.activeElement.id") == "copy":
            break
        page.press("Tab")
    page.press("Enter")
    page.run("new Promise((done) => setTimeout(done, 200))")
    assert page.text("#copy") == "Copied"
    assert page.run("navigator.clipboard.readText()") == page.text("#command")


@pytest.mark.parametrize("way", ["served", "folder"])
def test_nothing_is_asked_of_anybody_else(way: str, page: Page, site: Path, served: str) -> None:
    base = served if way == "served" else site.as_uri() + "/"
    page.open(f"{base}index.html")
    page.click('[data-language="zh"]')
    page.click('[data-tool="pip"]')
    inner = [address for address in page.requests if not address.startswith("data:")]
    assert len(inner) >= 5 and all(address.startswith(base) for address in inner)
    assert page.complaints == []


def test_words_of_a_wheel_stay_words(page: Page, site: Path) -> None:
    page.open(f"{(site / 'index.html').as_uri()}#backend=sglang&lang=en")
    assert EVIL in page.text("#facts")
    assert page.run("window.hurt") is None and page.run("document.images.length") == 0
    links = page.run("[...document.links].map((one) => one.protocol)")
    assert "javascript:" not in links


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_the_command_that_is_shown_installs(
    tool: str, page: Page, served: str, tmp_path: Path
) -> None:
    page.open(f"{served}#backend=llama.cpp&with={tool}&lang=en")
    words = [word for word in shlex.split(page.text("#command")) if word.strip()]
    head = {"pip": ["pip", "install"], "uv": ["uv", "pip", "install"]}[tool]
    assert words[: len(head)] == head
    venv.create(tmp_path / "env", with_pip=False)
    python = str(tmp_path / "env" / "bin" / "python")
    own = {
        "pip": [sys.executable, "-m", "pip", "--python", python, "install", "--no-index"],
        "uv": [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "install",
            "--python",
            python,
            "--no-index",
            "--no-cache",
        ],
    }[tool]
    subprocess.run([*own, *words[len(head):]], check=True, capture_output=True)  # fmt: skip
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    assert (site / "uniscale_payloads" / "uniscale-llama-cpp-cpu" / "payload.json").is_file()
    assert (site / "uniscale" / "__init__.py").is_file()


@pytest.mark.parametrize("text", ["", "window.UNISCALE_CATALOG = {half"])
def test_a_catalog_that_cannot_be_read_is_a_sentence(text: str, page: Page, tmp_path: Path) -> None:
    publish(tmp_path / "site", Request(add=(payload_wheel(tmp_path / "dist").path,)))
    (tmp_path / "site" / "catalog.js").write_text(text)
    page.open(f"{(tmp_path / 'site' / 'index.html').as_uri()}#lang=en")
    assert "cannot be read" in page.text("#lead")


def test_an_index_without_payloads_says_so(page: Page, tmp_path: Path) -> None:
    publish(tmp_path / "site", Request(add=(plain_wheel(tmp_path / "dist").path,)))
    page.open(f"{(tmp_path / 'site' / 'index.html').as_uri()}#lang=en")
    assert "no wheel with a backend yet" in page.text("#lead") and page.complaints == []
