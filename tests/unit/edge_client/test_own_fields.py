import pytest

from edge_client.notices import own_fields
from edge_client.wording import FIELDS, load_wording
from models.device_report import DeviceFigures
from models.prediction import Report, Status
from tests.support.edge_devices import NOW, PROFILE

ENGLISH = load_wording("en")


def fields(figures=None, **report):
    return own_fields(
        report=Report(
            device_id="device-1",
            as_of=NOW,
            status=Status.OK,
            model_version="1",
            feature_spec_version="1",
            **report,
        ),
        figures=figures or DeviceFigures(),
        profile=PROFILE,
        wording=ENGLISH,
    )


def test_unknown_figures_have_no_field():
    assert fields() == {"device_model": "Meter 3"}


def test_figures_become_whole_numbers():
    figures = DeviceFigures(
        capacity_mah=2129.6,
        state_of_health_pct=70.98,
        capacity_change_30d_pct=-4.2,
        resistance_change_pct=27.4,
        temp_max_c=41.2,
        shutdowns_30d=0.0,
        usage_hours_per_day=5.6,
        charge_cycle_count=419.0,
    )
    own = fields(figures, confidence=0.85)
    assert own == {
        "device_model": "Meter 3",
        "capacity_mah": "2130",
        "state_of_health_pct": "71",
        "capacity_loss_30d_pct": "4",
        "resistance_higher_pct": "27",
        "temp_max_c": "41",
        "shutdowns_30d": "0",
        "usage_hours_per_day": "6",
        "charge_cycles": "419",
        "confidence": "fairly sure.",
    }
    assert own.keys() <= FIELDS.keys()


@pytest.mark.parametrize(
    ("now_pct", "change_30d_pct", "field", "text"),
    [
        (38.0, 38.0, "charge_time_longer_pct", "38"),
        (65.6, 45.6, "charge_time_longer_pct", "38"),  # 120 % of new a month ago, 165.6 % now
        (0.0, -25.0, "charge_time_shorter_pct", "20"),
    ],
)
def test_charge_time_is_compared_with_a_month_ago(now_pct, change_30d_pct, field, text):
    own = fields(
        DeviceFigures(charge_time_change_pct=now_pct, charge_time_change_30d_pct=change_30d_pct)
    )
    assert own[field] == text


def test_changes_below_one_percent_are_not_worth_a_sentence():
    own = fields(
        DeviceFigures(
            charge_time_change_pct=0.5,
            charge_time_change_30d_pct=0.5,
            capacity_change_30d_pct=-0.9,
            resistance_change_pct=0.2,
            usage_hours_per_day=0.3,
        )
    )
    assert own == {"device_model": "Meter 3"}


@pytest.mark.parametrize(
    ("low", "high", "days"),
    [
        (3.7, 8.2, {"days_low": "3", "days_high": "9"}),
        (0.4, 4.0, {"days_high": "4"}),
        (0.1, 0.9, {}),
        (3.1, 3.4, {"days_low": "3", "days_high": "4"}),
        (3.0, 3.0, {"days_high": "3"}),
    ],
)
def test_interval_of_days_is_rounded_outwards(low, high, days):
    own = fields(days_to_failure_p10=low, days_to_failure_p90=high)
    assert {name: text for name, text in own.items() if name.startswith("days")} == days
