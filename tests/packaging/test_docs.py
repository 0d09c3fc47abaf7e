"""Docs that are read are docs that are right: links lead somewhere, marked snippets run."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from edge_client.cli import COMMANDS
from models.metrics import Quality
from simulations import run_report_parts
from simulations.run_report import MODEL_NAMES, RunReport
from tests.support.system_parts import REPOSITORY

PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")],
    key=lambda page: str(page.relative_to(REPOSITORY)),
)
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\((?P<target>[^)\s]+)\)")
SECONDS_FOR_A_SNIPPET = 120
PRINTED = re.compile(
    r"^```(?:bash|python) run\n(?P<body>.*?)^```\n\n```\n(?P<printed>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FIGURE = re.compile(r"\bdefault-[0-9a-f]{12}\b|-?[0-9]+(?:[.,][0-9]+)*")
ANYTHING = "…"
SHOWS_WHAT_IS_PRINTED = {REPOSITORY / "docs" / "how-to" / "integrate-firmware.md"}
"""Pages whose snippets are followed by what they print, word for word but for the figures."""
OURS = {"edge_client", "models", "privacy", "server", "simulations"}
KEYS = re.compile(r"^\| (?P<keys>`\w+`(?:, `\w+`)*) \|", re.MULTILINE)
REPORT_OBJECTS = {
    "Top level": (RunReport,),
    "`fleet`": (run_report_parts.FleetDescription,),
    "Quality of a model": (Quality,),
    "`learning_curve`": (run_report_parts.LearningPoint,),
    "`bundle_in_use`": (run_report_parts.BundleInUse,),
    "`notices`": (run_report_parts.Notices, run_report_parts.DeviceNotice),
    "`fleet_health`": (run_report_parts.FleetHealth, run_report_parts.HealthBin),
    "`life`": (run_report_parts.Life,),
    "`label_score`": (run_report_parts.LabelScore, run_report_parts.CauseFound),
    "`real_cells`": (run_report_parts.RealCells,),
}
"""Headings of the page about report.json, with the objects whose keys stand under them."""


def name_of(page):
    return str(page.relative_to(REPOSITORY))


def text_without_code(page):
    return FENCE.sub("", page.read_text())


def headings_of(page):
    """Anchors of a page's headings, as repository sites make them."""
    titles = re.findall(r"^#+ (.+)$", text_without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def snippets_of(page):
    """Code blocks whose info line says `run`, in order: language and text."""
    found = []
    for match in FENCE.finditer(page.read_text()):
        language, *words = match["info"].split()[:2] or [""]
        if "run" in words:
            found.append((language, match["body"]))
    return found


def imports_of(page):
    """What Python blocks of a page import from our packages: pairs of module and name."""
    for match in FENCE.finditer(page.read_text()):
        if match["info"].split()[:1] != ["python"]:
            continue
        for node in ast.walk(ast.parse(match["body"])):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in OURS:
                yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", [page for page in PAGES if any(imports_of(page))], ids=name_of)
def test_what_docs_import_is_there_and_public_where_a_list_of_public_names_holds_it(page):
    for module, name in imports_of(page):
        package = module.partition(".")[0]
        public = getattr(import_module(package), "__all__", ())
        if module == package:
            assert name in public
        else:
            assert hasattr(import_module(module), name)
            assert name not in public, f"from {package} import {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for match in LINK.finditer(text_without_code(page)):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in headings_of(file)):
            broken.append(match["target"])

    assert broken == []


def test_every_decision_is_listed_once_and_numbered_without_gaps():
    folder = REPOSITORY / "docs" / "adr"
    decisions = sorted(path.name for path in folder.glob("[0-9]*.md"))
    index = (folder / "README.md").read_text()
    listed = re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", index, re.MULTILINE)

    assert listed == decisions
    assert [name[:4] for name in decisions] == [f"{n + 1:04}" for n in range(len(decisions))]


@pytest.mark.parametrize(
    "decision", sorted((REPOSITORY / "docs" / "adr").glob("[0-9]*.md")), ids=name_of
)
def test_decision_has_the_form_of_the_template(decision):
    text = decision.read_text()

    assert text.startswith(f"# {decision.name[:4]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Context",
        "Options",
        "Outcome",
        "Consequences",
    ]
    assert re.search(r"^Status: .+ · Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE)


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for match in LINK.finditer(text_without_code(page)):
            target = match["target"].partition("#")[0]
            if target and not re.match(r"[a-z]+:", target):
                waiting.append((page.parent / target).resolve())

    assert {name_of(page) for page in PAGES} - {name_of(page) for page in reached} == set()


def test_index_lists_every_page_but_single_decisions():
    index = REPOSITORY / "docs" / "index.md"
    listed = {
        (index.parent / match["target"].partition("#")[0]).resolve()
        for match in LINK.finditer(index.read_text())
    }
    decisions = REPOSITORY / "docs" / "adr"
    pages = {page for page in PAGES if page.is_relative_to(index.parent) and page != index}

    assert {page for page in pages if page.parent != decisions} - listed == set()
    assert decisions / "README.md" in listed


def test_every_command_of_a_device_is_documented():
    page = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    rows = re.findall(r"^\| (`[a-z].*?) \|", page.partition("## `fedcell-device`")[2], re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)", row)}

    assert named == set(COMMANDS)


def keys_under(heading, *, page):
    """Names in the first column of the tables under a heading."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(?P<body>.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL
    )
    body = "" if found is None else found["body"]
    return [key for row in KEYS.finditer(body) for key in re.findall(r"\w+", row["keys"])]


@pytest.mark.parametrize("heading", REPORT_OBJECTS)
def test_every_key_of_the_run_report_is_documented_and_no_other(heading):
    page = (REPOSITORY / "docs" / "reference" / "report-json.md").read_text()
    version = ["schema_version"] if heading == "Top level" else []
    written = [entry.name for kind in REPORT_OBJECTS[heading] for entry in fields(kind)]

    assert sorted(keys_under(heading, page=page)) == sorted(version + written)


def test_every_object_of_the_run_report_and_every_model_has_its_place():
    page = (REPOSITORY / "docs" / "reference" / "report-json.md").read_text()
    parts = {kind for kind in vars(run_report_parts).values() if is_dataclass(kind)}

    assert {kind for kinds in REPORT_OBJECTS.values() for kind in kinds} == parts | {RunReport}
    assert sorted(keys_under("Names of models", page=page)) == sorted(MODEL_NAMES)


def test_readme_names_its_two_commands():
    readme = (REPOSITORY / "README.md").read_text()

    assert "make demo\nmake test" in readme


def test_changelog_has_a_section_for_what_comes_next():
    text = (REPOSITORY / "CHANGELOG.md").read_text()

    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)


def test_constraints_pin_every_declared_library_without_naming_a_machine():
    lines = [
        line
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {
        re.split(r"[<>=!;\[\s]", line, maxsplit=1)[0].lower()
        for group in (project["dependencies"], *project["optional-dependencies"].values())
        for line in group
    } - {"fedcell"}

    assert wanted <= pinned
    assert "torch==2.13.0" in lines
    assert [line for line in lines if not re.fullmatch(r"[\w.\-]+==[\w.]+", line)] == []
    assert [line for line in lines if line.startswith(("nvidia", "triton"))] == []


def reads_as(printed, *, shown):
    """Tell whether what was printed is what a page shows; `…` stands for any number of lines."""
    patterns = [
        r"(?:[^\n]*\n)*?" if line == ANYTHING else re.escape(FIGURE.sub("#", line)) + r"\n"
        for line in shown.splitlines()
    ]
    return re.fullmatch("".join(patterns), FIGURE.sub("#", printed)) is not None


def test_figures_alone_may_differ_from_what_a_page_shows():
    assert reads_as(
        "model default-0123456789ab: -1.5 %\n", shown="model default-ba9876543210: 27 %\n"
    )
    assert reads_as("a\nb\nc\nd\n", shown="a\n…\nd\n")
    assert not reads_as("16 days\nhow sure: 60 %\n", shown="16 days\n")
    assert not reads_as("Hours in use a day: 5; that speaks\n", shown="Hours in use a day: 5\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if snippets_of(page)], ids=name_of)
def test_marked_snippets_of_a_page_run_in_order_in_one_folder(page, tmp_path):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    shown = PRINTED.finditer(page.read_text()) if page in SHOWS_WHAT_IS_PRINTED else ()
    printed = {match["body"]: match["printed"] for match in shown}
    for language, text in snippets_of(page):
        command = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
        answer = subprocess.run(
            [*command[language], text],
            cwd=tmp_path,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS_FOR_A_SNIPPET,
        )

        assert answer.returncode == 0, f"{text}\n{answer.stderr}"
        if text in printed:
            assert reads_as(answer.stdout, shown=printed[text]), f"{text}\n{answer.stdout}"
