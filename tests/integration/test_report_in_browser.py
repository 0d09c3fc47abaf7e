"""`report.html` in a real browser: wide and narrow, light and dark."""

import pytest

from simulations.report_page import write_page
from tests.support.headless_browser import open_browser
from tests.support.run_reports import run_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

VIEWS = [(1200, "light"), (1200, "dark"), (400, "light")]
LEAST_LETTER_PX = 9.0

# Words of a picture that leave it, and pairs of words that lie upon each other.
MISPLACED_WORDS = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const words = [...svg.querySelectorAll('text')].map(word => [word, word.getBoundingClientRect()]);
  const cut = words.filter(([_, box]) =>
    box.left < frame.left - 1 || box.right > frame.right + 1 ||
    box.top < frame.top - 1 || box.bottom > frame.bottom + 1
  ).map(([word]) => 'cut: ' + word.textContent);
  const upon = words.flatMap(([one, a], i) => words.slice(i + 1).filter(([_, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4
  ).map(([other]) => one.textContent + ' upon ' + other.textContent));
  return [...cut, ...upon];
})
"""
OVERFULL_BOXES = """
[...document.querySelectorAll('th, td, p, dd, li, h2, h3, summary')].filter(box =>
  !box.closest('.stacking thead') && box.scrollWidth > box.clientWidth + 1 && box.clientWidth > 0
).map(box => box.textContent.trim().slice(0, 60))
"""
SMALLEST_LETTER_PX = """
Math.min(...[...document.querySelectorAll('svg text')].map(word =>
  parseFloat(getComputedStyle(word).fontSize) * word.getScreenCTM().a || 99))
"""
COLOURS = """
({
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color,
  words: [...new Set([...document.querySelectorAll('svg text')].map(
    word => getComputedStyle(word).fill))],
})
"""


@pytest.fixture(scope="module")
def report_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(run_report(), path)
    return path


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    with open_browser(chromium, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def view(request, browser, report_file):
    """The page as one kind of reader sees it."""
    width, scheme = request.param
    browser.open(report_file, width=width, scheme=scheme)
    return browser, width, scheme


def test_page_fits_the_window_and_nothing_is_cut_or_covered(view):
    page, width, _ = view

    assert page.value_of("innerWidth") == width
    assert page.value_of("document.documentElement.scrollWidth") <= width
    assert page.value_of("document.querySelectorAll('svg text').length") > 80
    assert page.value_of(MISPLACED_WORDS) == []
    assert page.value_of(OVERFULL_BOXES) == []
    assert page.value_of(SMALLEST_LETTER_PX) >= LEAST_LETTER_PX


def test_colours_follow_the_reader_in_text_and_pictures(view):
    page, _, scheme = view
    colours = page.value_of(COLOURS)

    assert colours["paper"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 24, 30)"}[scheme]
    assert colours["words"] == [colours["ink"]]


def test_page_fetches_nothing_and_the_browser_has_no_complaint(view):
    page, _, _ = view
    requested = [
        parameters["request"]["url"]
        for method, parameters in page.events
        if method == "Network.requestWillBeSent"
    ]
    complaints = [parameters for method, parameters in page.events if method == "Log.entryAdded"]

    assert len(requested) == 1
    assert requested[0].startswith("file:")
    assert complaints == []


def test_a_screen_reader_finds_named_pictures_headings_and_tables(view):
    page, _, _ = view
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    named = {}
    for node in nodes:
        if not node["ignored"]:
            role = node["role"]["value"]
            named.setdefault(role, []).append(node.get("name", {}).get("value", ""))

    assert sorted(name[:12] for name in named["image"]) == [
        "Average prec",
        "Average prec",
        "Capacity abo",
        "Devices by s",
        "Devices by u",
        "Failures see",
    ]
    assert named["heading"][0] == "fedcell run report"
    assert len(named["table"]) >= 4
    assert all(named["table"])
    assert "average precision" in named["columnheader"]
    assert any(name.startswith("federated, private") for name in named["rowheader"])
