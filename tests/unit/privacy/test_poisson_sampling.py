"""Poisson sampling: each row with the public rate, whatever the others do."""

import numpy as np
import pytest

from privacy import OperatingSystemNoise
from privacy.poisson_sampling import poisson_batches


class EvenCoins:
    """A source whose coins are all one half."""

    is_simulated = True

    def uniform(self, size):
        return np.full(size, 0.5)


def test_poisson_batches_hold_each_row_with_the_public_rate():
    batches = list(
        poisson_batches(300, sampling_rate=0.1, steps=400, source=OperatingSystemNoise())
    )
    assert len(batches) == 400
    sizes = np.array([len(batch) for batch in batches])
    # Binomial(300, 0.1): mean 30, variance 27; 6 standard errors each.
    assert sizes.mean() == pytest.approx(30, abs=6 * np.sqrt(27 / 400))
    assert sizes.var() == pytest.approx(27, rel=6 * np.sqrt(2 / 400))


def test_poisson_batches_of_few_rows_may_be_empty():
    batches = poisson_batches(2, sampling_rate=0.1, steps=100, source=OperatingSystemNoise())
    assert any(len(batch) == 0 for batch in batches)


@pytest.mark.parametrize(
    ("rate", "steps", "named"), [(0.0, 5, "rate"), (1.1, 5, "rate"), (0.1, 0, "steps")]
)
def test_meaningless_sampling_is_refused(rate, steps, named):
    with pytest.raises(ValueError, match=named):
        list(poisson_batches(10, sampling_rate=rate, steps=steps, source=EvenCoins()))
