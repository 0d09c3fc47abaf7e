import pytest

from server.engine.over_invitation import invited_for


@pytest.mark.parametrize(
    ("replies", "dropout", "invited"),
    [(70, 0.3, 100), (71, 0.3, 102), (2000, 0.2, 2500), (1, 0.0, 1), (5, 0.99, 500), (9, 0.1, 10)],
)
def test_invited_are_the_replies_wanted_over_those_that_are_expected_to_answer(
    replies, dropout, invited
):
    assert invited_for(replies, dropout=dropout) == invited


@pytest.mark.parametrize("replies", range(1, 300, 7))
@pytest.mark.parametrize("dropout", [0.05, 0.1, 0.15, 0.3, 0.35, 0.7])
def test_no_fewer_would_do(replies, dropout):
    invited, hundredths = invited_for(replies, dropout=dropout), round(dropout * 100)
    assert invited * (100 - hundredths) >= 100 * replies
    assert (invited - 1) * (100 - hundredths) < 100 * replies


@pytest.mark.parametrize(
    ("replies", "dropout"), [(0, 0.1), (-1, 0.0), (1, 1.0), (1, -0.1), (1, float("nan"))]
)
def test_what_cannot_be_kept_is_refused(replies, dropout):
    with pytest.raises(ValueError, match="must"):
        invited_for(replies, dropout=dropout)
