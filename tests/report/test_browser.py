"""The page in a browser: no request, no console error, sorting and filtering and reading by mouse and by keyboard.

Needs playwright (in the extra `test`) and a Chromium of the system (`apt-get install chromium`); skipped without.
"""

import json
import shutil
from itertools import pairwise

import pytest

from rlhf.report import ReportOptions, report, write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
SIZES = (390, 1280)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_file(planting, tmp_path_factory):
    """A report with a warning, hostile text, and a trace."""
    run = planting.plant(tmp_path_factory.mktemp("browser") / "run", planting.ILL["kl-runaway"])
    path = run / "evaluate" / "ppo.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["response"] = "<script>document.title='pwned'</script> \u202eevil\x1b[2J <img src=http://127.0.0.1:9/x>"
    planting.write_rows(path, rows)
    planting.write_frontier(run)
    return write_report(run)


@pytest.fixture
def opened(browser, page_file):
    """A function that opens a page and collects what it asked for and complained about."""
    contexts = []

    def open_page(path=page_file, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.problems, page.requests = [], []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
def test_the_page_asks_for_nothing_complains_of_nothing_and_fits(opened, page_file, width, scheme):
    page = opened(width=width, scheme=scheme)
    assert page.problems == [] and page.requests == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    for anchor in ("verdict", "comparison", "frontier", "curves", "answers", "followed", "tokens", "what-ran"):
        assert page.locator(f"#{anchor}").is_visible()
    assert page.title() == "Report of run" and page.locator("body script").count() == 1


def test_what_a_model_wrote_is_shown_as_text(opened):
    page = opened()
    said = page.locator(".said", has_text="pwned").first
    assert "<script>document.title='pwned'</script> [U+202E]evil\u241b[2J <img" in said.inner_text()
    assert page.title() == "Report of run"


def shown(page, name):
    cards = page.locator("#answers .card:visible")
    return [float(cards.nth(place).get_attribute(f"data-{name}")) for place in range(cards.count())]


def test_answers_are_sorted_and_filtered_by_mouse(opened):
    page = opened()
    assert shown(page, "gain") == sorted(shown(page, "gain"), reverse=True)
    for name in ("kl", "length"):
        page.locator("[data-sort]").select_option(name)
        assert shown(page, name) == sorted(shown(page, name), reverse=True)
    page.locator("[data-sort]").select_option("kl")
    page.locator("[data-turn]").click()
    assert shown(page, "kl") == sorted(shown(page, "kl"))
    before = len(shown(page, "kl"))
    page.locator("[data-kind]").select_option("worst")
    assert 0 < len(shown(page, "kl")) < before
    page.locator("[data-kind]").select_option("")
    page.locator("[data-filter]").fill("number 12")
    assert len(shown(page, "kl")) == 1 and page.locator("[data-count]").inner_text() == f"1 of {before}"


def test_answers_are_sorted_and_filtered_by_keyboard(opened):
    page = opened()
    page.locator("[data-kind]").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")  # the next entry: KL
    assert shown(page, "kl") == sorted(shown(page, "kl"), reverse=True)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert shown(page, "kl") == sorted(shown(page, "kl"))
    page.keyboard.press("Tab")
    page.keyboard.type("number 12")
    assert len(shown(page, "kl")) == 1


def test_a_chart_is_read_by_keys_and_by_pointer(opened):
    page = opened()
    figure = page.locator("#ppo-objective-kl")
    figure.locator("svg").focus()
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("End", 60), ("ArrowLeft", 59), ("Home", 1)):
        page.keyboard.press(key)
        assert figure.locator(".reading").inner_text().startswith(f"step {step}: ")
    figure.locator("svg").hover()
    step = int(figure.locator(".reading").inner_text().split()[1].rstrip(":"))
    assert 25 < step < 35


def test_a_frontier_is_read_at_its_points_with_their_intervals(opened):
    page = opened()
    figure = page.locator("#r0-frontier-0-ppo")
    figure.locator("svg").focus()
    page.keyboard.press("End")
    told = figure.locator(".reading").inner_text()
    assert told.startswith("sqrt(KL in nats) 5: gold -0.3648 [-0.4648, -0.2648], gold, fitted -0.3648, proxy 4.195 [")
    page.keyboard.press("Home")
    assert figure.locator(".reading").inner_text().startswith("sqrt(KL in nats) 0: gold 0 [0, 0]")


def test_tokens_change_their_colour_with_the_chosen_number(opened):
    page = opened()
    episode = page.locator(".episode").first
    before = episode.locator(".heat").inner_html()
    episode.get_by_label("surprise").check()
    after = episode.locator(".heat").inner_html()
    assert before != after and episode.locator(".heat .forced").count() == 2


def test_a_link_of_a_warning_leads_to_its_curve_even_when_it_is_folded(opened, planting, tmp_path):
    run = planting.plant(tmp_path / "run", planting.ILL["first-ratio"])
    page = opened(write_report(run))
    chart = page.locator("#ppo-val-first-ratio-deviation")
    assert not chart.is_visible()
    page.get_by_role("link", name="See it").click()
    assert chart.is_visible()


def test_every_control_has_a_name_and_the_order_of_headings_has_no_gap(opened):
    page = opened()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("select, input, button, a, summary, [role=region]")]
            .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.[0]?.textContent.trim()))
            .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    levels = page.evaluate("() => [...document.querySelectorAll('h1, h2, h3, h4')].map((e) => Number(e.tagName[1]))")
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))


CONTRAST = """(selector) => {
    const linear = (x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const element = document.querySelector(selector);
    const isClear = (each) => numbers(getComputedStyle(each).backgroundColor)[3] === 0;
    let behind = element;
    while (isClear(behind) && behind.parentElement) behind = behind.parentElement;
    const style = getComputedStyle(element);
    const ink = light(numbers(element.ownerSVGElement ? style.fill : style.color));
    const ground = light(numbers(getComputedStyle(behind).backgroundColor));
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
}"""
"""The formula of WCAG 2.2 for relative luminance and contrast."""


def contrast(page, selector):
    """The contrast of the text of an element with what is behind it."""
    return page.evaluate(CONTRAST, selector)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_in_dark(opened, scheme):
    page = opened(scheme=scheme)
    for selector in (".headline", ".warning h3", ".warning dt", ".quiet", "nav a", ".chart text", ".said", "tbody th"):
        assert contrast(page, selector) >= 4.5, selector


def test_two_runs_work_side_by_side(opened, planting, tmp_path):
    runs = tuple(planting.plant(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    page = opened(report(ReportOptions(runs=runs, output=tmp_path / "both.html")), width=390)
    assert page.problems == [] and page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    figure = page.locator("#ppo-objective-scores")
    figure.locator("svg").focus()
    page.keyboard.press("Home")
    assert "mean of 2 runs" in figure.locator(".reading").inner_text()
