"""Which devices never train: a promise to every run that was made before."""

import numpy as np
import pytest

from models.held_out_devices import held_out_devices

IDS = [f"sim-{number}" for number in range(1000)]


def test_the_devices_that_were_held_out_before_still_are():
    ids = [f"device-{number:02}" for number in range(30)] + ["sim-7-000001", "b1c3", "é"]
    chosen = [name for name, out in zip(ids, held_out_devices(ids), strict=True) if out]

    assert chosen == [f"device-{number:02}" for number in (0, 7, 10, 12, 14, 24, 26)]


def test_held_out_devices_are_the_same_in_every_order_and_about_the_share():
    held_out = held_out_devices(IDS, share=0.2)
    # Binomial(1000, 0.2): standard deviation 12.6; 5 of them.
    assert abs(held_out.sum() - 200) < 63
    assert np.array_equal(held_out_devices(IDS[::-1], share=0.2), held_out[::-1])
    assert not held_out_devices(IDS, share=0.0).any()


def test_a_meaningless_share_is_refused():
    with pytest.raises(ValueError, match="share"):
        held_out_devices(IDS, share=1.0)
