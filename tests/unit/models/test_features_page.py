"""The page of features is what the specification says."""

from pathlib import Path

from models.feature_spec import FEATURE_SPEC_VERSION, FEATURES, feature_table

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "features.md"


def test_page_holds_the_table_of_the_specification():
    page = PAGE.read_text()

    assert feature_table() in page
    assert f"Version {FEATURE_SPEC_VERSION} " in page


def test_there_are_20_to_30_features_with_a_range_each():
    assert 20 <= len(FEATURES) <= 30
    assert all(feature.low < feature.high for feature in FEATURES)
