"""`fedcell privacy plan` as an operator types it."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from privacy import StreamPolicy
from tests.support.command_line import fedcell


def test_a_plan_is_told_as_a_table_in_which_every_epsilon_has_its_meaning():
    ran = fedcell("privacy", "plan", "--devices", 10_000, "--epsilon", 2, "--years", 2)

    assert ran.code == 0, ran.err
    text = " ".join(ran.out.split())
    for said in (
        "1,600 invited a round",
        "at most 21 a device, 5 rounds or more apart (b)",
        "σ = 13.186, 5 bands (p)",
        "kept: 1,600 ≥",
        "2 at δ = 1e-08",
        "unbounded until secure aggregation exists",
        "not measurable with 2,000; measurable from",
        "devices retire",
        "unit of privacy: one device, its whole life",
        "neighbours: one device's contributions replaced by zero",
        "assumes: no amplification by sampling",
    ):
        assert said in text
    assert "expected quality" in text


def test_a_plan_for_machines_holds_the_same_and_the_policy_keeps_it(tmp_path):
    out = tmp_path / "policy.json"
    ran = fedcell(
        "privacy", "plan", "--devices", 50_000, "--start", "2027-01-01", "--out", out, "--json"
    )
    told = ran.json()
    policy = StreamPolicy.from_json(json.loads(out.read_text()))

    assert ran.code == 0
    assert told["epsilon_release"]["epsilon"] <= 2.0
    assert set(told["epsilon_release"]) == {
        "epsilon",
        "delta",
        "unit_of_privacy",
        "neighboring_relation",
        "assumptions",
    }
    assert told["epsilon_server"] is None
    assert told["schedule"]["starts"] == "2027-01-01"
    assert told["schedule"]["first_retirement"] <= told["schedule"]["last_retirement"]
    assert [figure["figure"] for figure in told["metrics"]["figures"]] == [
        "auc",
        "average_precision",
    ]
    assert told["metrics"]["figures"][0]["expected"]["value"] is not None
    assert policy.cohort_size == told["schedule"]["cohort_size"]
    assert policy.privacy.noise_multiplier == told["schedule"]["noise_multiplier"]
    assert [channel.name for channel in policy.channels] == ["similar_devices", "drift", "metrics"]


def test_a_new_policy_names_a_stream_that_was_never_used(tmp_path):
    streams = set()
    for name in ("a", "b"):
        fedcell("privacy", "plan", "--devices", 9000, "--json", "--out", tmp_path / name)
        streams.add(json.loads((tmp_path / name).read_text())["stream"])

    assert len(streams) == 2


def test_a_picture_stands_alone(tmp_path):
    for name in ("plan.svg", "plan.png"):
        ran = fedcell("privacy", "plan", "--devices", 10_000, "--plot", tmp_path / name)
        assert ran.code == 0, ran.err
        assert name in ran.out
    svg = (tmp_path / "plan.svg").read_text()
    root = ET.fromstring(svg)  # noqa: S314 - our own file

    assert root.tag.endswith("svg")
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert "chosen: k = 21, n = 1,600, b = 5" in texts
    assert any("δ = 1e-08" in text for text in texts)
    assert not re.search(r'(href|src)="(?!#)', svg)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (("--devices", 60), 1, ("too few", "it takes")),
        (("--devices", 9000, "--epsilon", 0), 2, ("epsilon", "(0, 20]")),
        (("--devices", 9000, "--delta", 0.5), 2, ("delta",)),
        (("--devices", 9000, "--dropout", 1), 2, ("dropout",)),
        (("--devices", 9000, "--auc", 0.4), 2, ("auc",)),
        (("--devices", 9000, "--start", "soon"), 2, ("--start", "YYYY-MM-DD")),
        (("--devices", 9000, "--plot", "plan.gif"), 2, (".svg or .png",)),
        (("--devices", 0), 2, ("--devices",)),
        ((), 2, ("--devices",)),
    ],
)
def test_what_cannot_be_planned_is_one_line_with_a_remedy(arguments, code, parts):
    assert fedcell("privacy", "plan", *arguments).is_refused(code, *parts)


def test_too_few_devices_are_told_how_many_would_do():
    refused = fedcell("privacy", "plan", "--devices", 60).err
    least = int(re.search(r"it takes ([\d,]+)", refused)[1].replace(",", ""))

    assert fedcell("privacy", "plan", "--devices", least).code == 0
    assert fedcell("privacy", "plan", "--devices", least - 1).code == 1
