"""A device under a clipping norm that adapts: what it sends, debits, refuses and tells."""

from dataclasses import replace

import numpy as np
import pytest

from edge_client.errors import ParticipationRefusedError
from edge_client.local_training import local_trainer, train_block
from edge_client.privacy.account import account_of
from edge_client.privacy.participation import admit, debit
from edge_client.privacy.receipts import ReceiptState, check_receipt
from models.training.local_epochs import new_flat_weights
from models.wire.rounds import RoundTask
from privacy import policy_for
from privacy.accountant import mu_of_device
from privacy.adaptive_clipping import grid_of
from simulations.seeded_noise import SeededNoise
from tests.support.edge_devices import NOW
from tests.support.made_up_rows import made_up_rows
from tests.support.training_tasks import (
    KEYS,
    POLICY,
    TERMS,
    agreeing_store,
    receipt_of,
    recipe_of,
    release_of,
    task_of,
)

PRIVACY = policy_for(
    epsilon=2.0,
    delta=1e-8,
    max_participations=3,
    clipping_norm=0.3,
    min_separation=2,
    update_share=0.85,
    bands=2,
    target_quantile=0.5,
)
ADAPTIVE = replace(POLICY, privacy=PRIVACY)
WEIGHTS = new_flat_weights(seed=1)


def adaptive_task(**changes):
    return task_of(ADAPTIVE, **{"clipping_norm": 0.4, "has_norm_bit": True, **changes})


@pytest.fixture
def store(tmp_path):
    with agreeing_store(tmp_path) as opened:
        yield opened


def take_part(store, task):
    return debit(store, admit(store, task, terms=TERMS, now=NOW), terms=TERMS, now=NOW)


@pytest.mark.slow
def test_device_debits_update_and_bit_whatever_the_steps_norm_is(store):
    ledger = take_part(store, adaptive_task())
    ledger = take_part(store, adaptive_task(index=2, clipping_norm=3.0))
    assert mu_of_device(ledger.events) ** 2 == pytest.approx(2 * PRIVACY.step_mu_squared)
    event = ledger.events[0]
    assert (event.clipping_norm, event.clip_noise_multiplier) == (
        1.0,
        PRIVACY.clip_noise_multiplier,
    )
    account = account_of(store.path, store)
    assert [step.mu_squared for step in account.steps] == pytest.approx(
        [PRIVACY.step_mu_squared] * 2
    )
    assert {step.clip_noise_multiplier for step in account.steps} == {PRIVACY.clip_noise_multiplier}
    assert account.participations_left == 1


@pytest.mark.parametrize(
    ("task", "refusal"),
    [
        (adaptive_task(clipping_norm=30.5), "norm_out_of_bounds"),
        (adaptive_task(clipping_norm=0.002), "norm_out_of_bounds"),
        (adaptive_task(has_norm_bit=False), "task_differs"),
        (task_of(has_norm_bit=True), "task_differs"),
    ],
)
def test_device_refuses_a_norm_out_of_bounds_and_a_bit_that_its_policy_does_not_know(
    store, task, refusal
):
    with pytest.raises(ParticipationRefusedError) as caught:
        take_part(store, task)
    assert caught.value.refusal == refusal


def test_receipt_that_forgets_the_bits_differs(store):
    ledger = take_part(store, adaptive_task())
    told = release_of(ADAPTIVE, clip_noise_multiplier=PRIVACY.clip_noise_multiplier)
    checked = check_receipt(receipt_of(told), ledger=ledger, keys=KEYS)
    assert checked.state is ReceiptState.MATCHES
    checked = check_receipt(receipt_of(release_of(ADAPTIVE)), ledger=ledger, keys=KEYS)
    assert checked.differs == ("clip_noise_multiplier",)


def test_task_reads_back_and_says_nothing_of_bits_where_the_norm_is_fixed():
    assert RoundTask.from_plain(adaptive_task().to_plain()) == adaptive_task()
    assert "has_norm_bit" not in task_of().to_plain()
    assert RoundTask.from_plain(task_of().to_plain()) == task_of()


@pytest.mark.parametrize(("norm", "bit"), [(1e3, 1), (1e-3, -1)])
def test_block_sends_updates_over_the_norm_and_the_sum_of_their_bits(norm, bit):
    recipe = replace(recipe_of(POLICY), least_rows=20, expected_batch_size=40)
    rows = [made_up_rows(40, seed=seed) for seed in range(5)] + [made_up_rows(10, seed=9)]

    def devices():
        return [(each, SeededNoise(3, number)) for number, each in enumerate(rows)]

    trainer = local_trainer(recipe)
    total = train_block(trainer, devices(), weights=WEIGHTS, grid=grid_of(norm, has_norm_bit=True))
    fixed = train_block(trainer, devices(), weights=WEIGHTS, grid=grid_of(norm, has_norm_bit=False))
    # The sixth device has too few rows: no update and no bit.
    assert total[-1] == 5 * bit * 2**36
    assert np.abs(total[:-1] - fixed).max() <= 64
