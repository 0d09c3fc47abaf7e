import numpy as np
import pytest

from models.parameters import Parameters

NAMED = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([7.0, 8.0], np.float32),
}


def test_weights_go_into_one_vector_and_back_in_their_order():
    parameters = Parameters.of(NAMED)
    doubled = parameters.with_flat(parameters.flat() * 2)

    assert parameters.names == ("b", "a")
    assert parameters.size == 8
    assert parameters.flat().tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert doubled.named()["b"].tolist() == (NAMED["b"] * 2).tolist()
    assert doubled.named()["a"].dtype == np.float32


@pytest.mark.parametrize("length", [0, 7, 9])
def test_a_vector_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="8 weights"):
        Parameters.of(NAMED).with_flat(np.zeros(length))


@pytest.mark.parametrize(
    ("names", "arrays"),
    [
        (("a",), ()),
        (("a",), (np.zeros(2),)),
        (("a",), (np.array([np.nan], np.float32),)),
        (("a",), (np.array([np.inf], np.float32),)),
    ],
    ids=["count", "dtype", "nan", "infinite"],
)
def test_weights_that_cannot_be_are_refused(names, arrays):
    with pytest.raises(ValueError):
        Parameters(names, arrays)


def test_a_vector_with_values_that_are_not_finite_makes_no_parameters():
    with pytest.raises(ValueError, match="not finite"):
        Parameters.of(NAMED).with_flat(np.full(8, np.nan))
