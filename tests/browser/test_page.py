"""The page of `imgkit serve`, in a real Chromium."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from imgkit.testing.wire_server import Line, WireServer, reply
from tests.browser.conftest import Serve, Visit
from tests.browser.page_probes import CONTRASTS, OVERFLOW, WATCH_IMAGES
from tests.support.event_streams import completed, partial, streamed, then

NARROW: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
MARKUP = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"""
KEY = "sk-0123456789abcdef"


class HeldApi:
    """An API that sends a partial image, and the complete image once `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.server = WireServer(self._answer)

    def _answer(self, line: Line) -> None:
        then(partial(0), lambda _: self.go.wait(20), completed())(line)


@pytest.fixture
def api() -> Iterator[HeldApi]:
    """An API on loopback, whose images cost money."""
    api = HeldApi()
    yield api
    api.go.set()
    api.server.close()


def serve_live(serve: Serve, server: WireServer, *options: str) -> str:
    """Start a server in front of an API; return its origin."""
    options = ("--backend", "aiohttp", "--base-url", server.base_url, "--model", "gpt-image-2", *options)
    return serve(*options, OPENAI_API_KEY=KEY)


def fill_prompt(page: Page, prompt: str, size: str = "256x256") -> None:
    """Type a prompt, and choose a size; small images, which the page does not offer, are quick."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.locator("#size").evaluate("(select, size) => select.add(new Option(size))", size)
    page.get_by_label("Size").select_option(size)


def create(page: Page) -> None:
    """Press the button."""
    page.get_by_role("button", name="Create image").click()


def expect_complete(page: Page, count: int = 1) -> None:
    """Wait until `count` images are complete."""
    expect(page.locator("#stage figure.complete")).to_have_count(count)


def find_faint_texts(page: Page) -> list[str]:
    """Return the texts with a contrast below 4.5, in light or in dark, which must differ."""
    faint, papers = [], set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        texts = page.evaluate(CONTRASTS)
        assert len(texts) > 30
        faint += [f"{scheme}: {ratio:.1f} {text}" for ratio, text in texts if ratio < 4.5]
    assert len(papers) == 2
    return faint


def test_partial_images_come_before_complete_ones(offline: str, visit: Visit) -> None:
    """Shows two images in rough and then in full, moves nothing, and offers the files."""
    page = visit(offline)
    page.evaluate(WATCH_IMAGES)
    fill_prompt(page, "Two foxes, in the snow", "1024x1024")
    page.get_by_label("Images").select_option("2")
    create(page)
    expect_complete(page, 2)
    states = page.evaluate("seen")
    assert states[:3] == ["", "waiting waiting", "partial waiting"]
    assert states[-2:] == ["complete partial", "complete complete"]
    assert page.evaluate("measure()") == 1
    sizes = page.locator("#stage img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sizes == [1024, 1024]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").last.click()
    assert download.value.suggested_filename == "two-foxes-in-the-snow.png"
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    row = page.locator("#requests tr").first
    expect(row).to_contain_text("Two foxes, in the snow")
    expect(row).to_contain_text("done")


def test_an_offline_server_says_that_it_is_free(offline: str, visit: Visit) -> None:
    """Names mode, address and price; its snippets hold the address."""
    page = visit(offline)
    expect(page.locator("#mode")).to_have_text("Offline")
    expect(page.locator("#address")).to_have_text(f"{offline}/v1")
    expect(page.locator("#spent")).to_have_text("$0.00")
    for language in ("Python", "JavaScript", "curl"):
        page.get_by_text(language, exact=True).first.click()
        snippet = page.locator("#use pre:visible")
        expect(snippet).to_have_count(1)
        expect(snippet).to_contain_text(f"{offline}/v1")
    fill_prompt(page, "a fox")
    expect(page.locator("#price")).to_contain_text("Free")


def test_markup_stays_text(offline: str, visit: Visit) -> None:
    """Shows a prompt of HTML as text, in the list of requests and beside the image."""
    page = visit(offline)
    fill_prompt(page, MARKUP)
    create(page)
    expect_complete(page)
    expect(page.locator("#requests .prompt").first).to_have_text(MARKUP)
    assert page.locator("#stage img").get_attribute("alt") == MARKUP
    assert page.locator("[onerror], [src=x]").count() == 0
    assert page.title() == "imgkit serve"


def test_headers_forbid_other_scripts(offline: str, visit: Visit) -> None:
    """Sends a policy under which the browser runs no injected script and no handler."""
    page = visit(offline)
    headers = page.request.get(f"{offline}/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "'unsafe-" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    html = page.request.get(f"{offline}/").text()
    assert not re.search(r"<[a-z]+[^>]* (style|on[a-z]+|src)=", html)


def test_an_error_is_told_in_words(serve: Serve, visit: Visit) -> None:
    """Shows the message of a refused request, and takes the next prompt."""
    with WireServer(reply(400, {"error": {"message": "Your prompt was refused.", "code": "x"}})) as server:
        page = visit(serve_live(serve, server))
        fill_prompt(page, "a fox")
        create(page)
        page.get_by_role("button", name="Send and pay").click()
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("Your prompt was refused.")
    expect(page.locator("#stage figure.waiting")).to_have_count(0)
    expect(page.locator("#requests .failed .error")).to_contain_text("Your prompt was refused.")
    assert find_faint_texts(page) == []


def test_a_stream_that_breaks_off_keeps_its_image(serve: Serve, visit: Visit) -> None:
    """Shows the partial image of a stream that is cut, says that it may be billed, and offers no file."""
    with WireServer(streamed(partial(0), end=b"")) as server:
        page = visit(serve_live(serve, server))
        fill_prompt(page, "a fox")
        create(page)
        page.get_by_role("button", name="Send and pay").click()
        expect(page.locator("#problem")).to_contain_text("made and billed an image")
    assert page.locator("#stage img").is_visible()
    expect(page.get_by_role("link", name="Download")).to_have_count(0)
    expect(page.locator("#requests .unknown")).to_have_count(1)


def test_money_is_spent_after_a_question_only(serve: Serve, visit: Visit, api: HeldApi) -> None:
    """Names the cost in a dialog; sends nothing if it is closed, and one request if it is confirmed."""
    page = visit(serve_live(serve, api.server, "--max-cost", "5", "--price-per-image", "0.04"))
    expect(page.locator("#mode")).to_have_text("Live")
    expect(page.locator("#limit")).to_contain_text("$5.00")
    fill_prompt(page, "a fox")
    expect(page.locator("#price")).to_contain_text("Sending costs")
    for close in ("Escape", "Enter"):  # the first button is Cancel
        create(page)
        expect(page.get_by_role("dialog")).to_contain_text("$")
        page.keyboard.press(close)
        expect(page.get_by_role("dialog")).to_be_hidden()
    assert api.server.posts == 0
    create(page)
    page.get_by_role("button", name="Send and pay").click()
    expect(page.locator("#stage figure.partial")).to_have_count(1)
    api.go.set()
    expect_complete(page)
    assert api.server.posts == 1
    assert KEY not in page.content()


def test_stop_ends_the_wait(serve: Serve, visit: Visit, api: HeldApi) -> None:
    """Stops a running request, keeps its partial image, and says that it may be billed."""
    page = visit(serve_live(serve, api.server))
    fill_prompt(page, "a fox")
    create(page)
    page.get_by_role("button", name="Send and pay").click()
    expect(page.locator("#stage figure.partial")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#progress")).to_contain_text("may bill")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert page.locator("#stage img").is_visible()


def test_a_token_is_asked_for(serve: Serve, visit: Visit) -> None:
    """Asks for the token, refuses a wrong one, and keeps the right one in this tab only."""
    origin = serve("--token", "sesame")
    page = visit(origin)
    expect(page.get_by_label("Prompt", exact=True)).to_be_disabled()
    page.get_by_label("Token, as").fill("open")
    page.get_by_role("button", name="Use token").click()
    expect(page.locator("#token-note")).to_contain_text("does not accept")
    page.get_by_label("Token, as").fill("sesame")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Token, as")).to_be_hidden()
    fill_prompt(page, "a fox")
    create(page)
    expect_complete(page)
    assert "sesame" not in page.content()
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_be_enabled()
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    other = visit(origin)
    expect(other.get_by_label("Token, as")).to_be_visible()


def test_prompts_are_not_shown_if_the_server_keeps_none(serve: Serve, visit: Visit) -> None:
    """Lists requests without prompts under --no-prompts, and says so."""
    page = visit(serve("--no-prompts"))
    fill_prompt(page, "a secret fox")
    create(page)
    expect_complete(page)
    expect(page.locator("#requests tr")).to_have_count(1)
    expect(page.locator("#counts")).to_contain_text("prompts are not kept")
    expect(page.locator("#requests")).not_to_contain_text("secret")


def test_a_server_that_is_gone_is_reported(offline: str, visit: Visit) -> None:
    """Says that the server does not answer, asks less and less often, and goes on once it is back."""
    page = visit(offline)
    page.clock.install()
    page.reload()
    expect(page.locator("#lamp")).to_have_text("ready")
    page.context.set_offline(True)
    for wait_s in (4, 8, 16):
        page.clock.run_for(wait_s * 1000 / 2)
        expect(page.locator("#gone-text")).to_contain_text(f"Next try in {wait_s} s")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#gone")).to_be_hidden()
    expect(page.locator("#lamp")).to_have_text("ready")


def test_text_is_legible(offline: str, visit: Visit) -> None:
    """Has a contrast of 4.5 or more for all text, in light and in dark."""
    page = visit(offline)
    fill_prompt(page, "a fox")
    create(page)
    expect_complete(page)
    assert find_faint_texts(page) == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_narrow_screen_needs_no_sideways_scroll(offline: str, visit: Visit, width: int) -> None:
    """Fits a phone, with long words, and shows requests as cards."""
    page = visit(offline, **NARROW | {"viewport": {"width": width, "height": 844}})
    fill_prompt(page, "fox" * 120)
    create(page)
    expect_complete(page)
    assert page.evaluate(OVERFLOW) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#requests td").nth(2).evaluate("cell => getComputedStyle(cell).display") == "block"


def test_the_keyboard_suffices(offline: str, visit: Visit) -> None:
    """Reaches each control by Tab with a visible outline, and sends with Ctrl+Enter."""
    page = visit(offline)
    expect(page.get_by_label("Prompt", exact=True)).to_be_enabled()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        reached.append(focus[0])
        assert focus[1] != "none" or focus[0] == ""
    controls = ["prompt", "size", "n", "model", "create"]
    assert [name for name in reached if name in controls][:5] == controls
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("a fox")
    page.keyboard.press("Control+Enter")
    expect_complete(page)
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
