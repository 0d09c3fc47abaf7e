"""`report.html`: self-contained, readable for everybody, and honest about what it shows."""

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import pytest

from models.metrics import Quality
from simulations.report_page import model_rows, render_page, write_page
from simulations.report_svg import Ink
from simulations.run_report_parts import Notices, RealCells
from tests.support.html_outline import Outline
from tests.support.run_reports import life, notices, qualities, quality, run_report

pytestmark = pytest.mark.slow
HOSTILE = "<script>alert('$x$ & \"y\"')</script>"
UNMEASURED = [name for name in Quality.__dataclass_fields__ if name != "num_windows"]
SECTIONS = (
    "In short",
    "Models compared",
    "Learning under noise",
    "Calibration",
    "Fleet health",
    "One device’s life",
    "Notices as their owners see them",
    "Privacy",
    "Labels and real cells",
    "How it was made",
)


@pytest.fixture(scope="module")
def report():
    """A report whose texts try to break out of the page."""
    sent = notices()
    device = replace(sent.per_device[0], device=HOSTILE, text=f"{HOSTILE}\n  {HOSTILE}")
    return run_report(
        notices=replace(sent, per_device=(device, *sent.per_device[1:])),
        life=replace(life(), device_id=HOSTILE),
        versions={HOSTILE: HOSTILE},
        unit_of_privacy=f"one device {HOSTILE}",
    )


@pytest.fixture(scope="module")
def page(report):
    return render_page(report)


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def test_page_is_one_small_file_that_fetches_nothing(page, outline):
    addresses = outline.attributes("href") + outline.attributes("src")
    policy = next(
        meta["content"]
        for meta in outline.all("meta")
        if "Policy" in (meta.get("http-equiv") or "")
    )

    assert len(page.encode()) < 600_000
    assert all(address.startswith("#") for address in addresses)
    assert not re.findall(r"url\((?!#)|@import", page)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_page_has_no_script_and_escapes_every_text(page, outline):
    assert outline.all("script") == []
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 6
    assert outline.is_balanced


def test_identifiers_are_unique_and_every_reference_leads_somewhere(outline):
    known = outline.attributes("id")
    referred = [address[1:] for address in outline.attributes("href")]
    referred += " ".join(outline.attributes("aria-labelledby")).split()
    referred += re.findall(r"url\(#([^)]+)\)", " ".join(outline.attributes("clip-path")))

    assert len(known) == len(set(known))
    assert set(referred) <= set(known)


def test_headings_name_the_sections_and_skip_no_level(outline):
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch(r"h\d", tag)]

    assert outline.texts_of("h1") == ["fedcell run report"]
    assert tuple(outline.texts_of("h2")) == SECTIONS
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_picture_is_named_and_described_and_its_text_stays_text(outline):
    pictures = outline.all("svg")
    words = outline.texts_of("text")

    assert len(pictures) == 6
    assert all(picture["role"] == "img" for picture in pictures)
    assert all(len(picture["aria-labelledby"].split()) == 2 for picture in pictures)
    assert all(len(text) > 20 for text in outline.texts_of("desc"))
    assert {"average precision", "round", "days to failure", "capacity, %", "devices"} <= set(words)
    assert "ε spent by the private rounds (δ = 10⁻⁵)" in words


def test_pictures_take_every_colour_from_the_style_sheet(page):
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))

    assert re.findall(r"#[0-9a-fA-F]{6}\b", drawn) == []
    assert set(re.findall(r"var\((--[a-z-]+)\)", drawn)) <= {"--font", *(i.css[4:-1] for i in Ink)}


def test_every_table_has_a_caption_and_headers(outline):
    tables = len(outline.all("table"))

    assert tables >= 4
    assert len(outline.texts_of("caption")) == tables
    assert all(header.get("scope") in {"col", "row"} for header in outline.all("th"))


def test_prevalence_stands_above_the_table_of_models(page):
    assert page.index("Prevalence 1.82\N{NO-BREAK SPACE}%") < page.index("<table")


def test_private_model_stands_beside_every_baseline(report):
    rows = {row.label: row for row in model_rows(report)}

    assert list(rows)[-2:] == ["federated, private", "federated, no noise"]
    assert {"capacity rule", "gradient boosting", "default bundle"} <= set(rows)
    assert rows["federated, private"].kind == "ε = 2.00 at δ = 10⁻⁵"
    assert rows["gradient boosting"].kind == "central, sees all raw data"


def test_values_that_one_fleet_cannot_tell_apart_are_all_marked():
    close = {**qualities(), "default_bundle": quality(average_precision=0.505)}
    rows = {row.name: row.cells for row in model_rows(run_report(metrics=close))}

    marked = {name for name, cells in rows.items() if cells[0].is_best}
    assert marked == {"gradient_boosting", "default_bundle"}


def test_precision_recall_and_calibration_are_never_called_best(report):
    marked = {cell.heading for row in model_rows(report) for cell in row.cells if cell.is_best}

    assert marked == {"average precision", "AUC", "F1"}


def test_privacy_is_stated_with_delta_unit_and_assumptions(page, report):
    statement = " ".join(page[page.index('id="privacy"') :].split())

    assert "against the server’s operator" in statement
    assert "unbounded" in statement
    assert "3.41" in statement
    assert all(assumption in statement for assumption in report.assumptions)
    assert "one training row" in statement


def test_every_epsilon_of_the_text_has_its_delta_close_by(outline):
    sentences = [text for tag in ("p", "small", "desc") for text in outline.texts_of(tag)]
    stating = [text for text in sentences if re.search(r"ε = [\d.]+", text)]

    assert len(stating) >= 3
    assert all(re.search(r"ε = [\d.]+ at δ = ", text) for text in stating)


def test_notices_are_shown_in_the_language_of_their_owners(page, outline):
    assert {"en", "de"} <= set(outline.attributes("lang"))
    assert "Ihr Ranger 2 braucht in den nächsten Wochen vielleicht einen neuen Akku" in page
    assert "[ Request a free replacement ]" in page
    assert page.count("The owner saw nothing.") == 2


def test_noise_statement_is_not_hidden(page, report):
    assert report.noise_statement in page[: page.index('id="models"')]


@pytest.fixture(scope="module")
def bare_page():
    """A run in which almost nothing could be measured."""
    nothing = {name: quality(**dict.fromkeys(UNMEASURED)) for name in qualities()}
    quiet = replace(
        life(),
        days_left=(None,) * len(life().as_of_days),
        failed_at_days=None,
    )
    return render_page(
        run_report(
            metrics=nothing,
            learning_curve={},
            calibration={},
            epsilon_release=None,
            record_epsilon=None,
            record_delta=None,
            notices=Notices(sent=0, acknowledged=0, suppressed={}, per_device=()),
            life=quiet,
            real_cells=RealCells(cells=88, metrics=quality(average_precision=0.61), reason=None),
        )
    )


def test_what_was_not_measured_is_said_and_not_drawn(bare_page):
    outline = Outline(bare_page)
    text = " ".join(outline.texts_of("main"))

    assert "No round was measured." in text
    assert "No model announced a probability." in text
    assert "nothing limits what the private model reveals" in text
    assert "No failure was seen." in text
    assert "None" not in text
    assert "nan" not in text


def test_real_cells_are_shown_where_they_are(bare_page):
    text = " ".join(bare_page.split())

    assert "88 development cells, 41,208 windows" in text
    assert "learnt from these cells too" in text


def test_writing_leaves_one_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr("simulations.report_page.render_page", lambda _: "<p>whole</p>")

    write_page(run_report(), tmp_path / "new" / "report.html")

    assert (tmp_path / "new" / "report.html").read_text() == "<p>whole</p>"
    assert len(list((tmp_path / "new").iterdir())) == 1


def schemes():
    """Colours by variable, light and dark, as the style sheet sets them."""
    style = files("simulations").joinpath("report_template", "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    light = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", light))
    return {"light": light, "dark": light | dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", dark))}


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_what_is_behind_them(scheme):
    colours = schemes()[scheme]
    texts = ("text", "muted", "private")
    lines = [ink.css[6:-1] for ink in Ink if ink not in {Ink.RULE, Ink.PAPER}]

    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for behind in ("paper", "panel"):
        for name in texts:
            assert contrast(colours[name], colours[behind]) >= 4.5, (scheme, name, behind)
    for name in lines:
        assert contrast(colours[name], colours["paper"]) >= 3, (scheme, name)
