"""The ε that is told: of a device's whole life, by the ledger or by its word if that is more."""

import json
import math

import numpy as np
import pytest

from models.wire.envelope import SigningKey
from models.wire.rounds import RECEIPT_MESSAGE, DeviceReceipt
from privacy.accountant import gaussian_epsilon
from privacy.statement import OWNERS_UNKNOWN, SAID_MORE
from server.deployed_run import deployed_run
from server.engine.rounds import RoundsError
from server.privacy_home.ledger_report import home_report, read_words
from server.privacy_home.participation_counts import StepCost, StreamRecord
from server.privacy_home.privacy_ledger import open_home
from server.runs.report_layout import report_of
from tests.support.federated_rounds import (
    SENT,
    config_of,
    contribution,
    honest,
    rounds_over,
    task_of,
)
from tests.support.flower_grid import GridInMemory
from tests.support.released_homes import NOW, ask
from tests.unit.server import test_strategy_deployed

run_config = test_strategy_deployed.run_config
DELTA = 1e-6


def saying(mu_squared):
    """A node whose devices have spent so much in other homes, and count on from there."""

    def answer(message):
        if message.metadata.message_type == RECEIPT_MESSAGE:
            return []
        task = task_of(message)
        number = len(task.device_ids)
        lines = [
            DeviceReceipt(
                pseudonym=name, participations=1, mu_squared=mu_squared, head="ab" * 32
            ).to_line()
            for name in task.pseudonyms
        ]
        facts = {"stream": task.stream, "index": task.index, "num_devices": number}
        return [contribution(number * SENT, receipts=tuple(lines), **facts)]

    return answer


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1e9])
def test_each_round_tells_what_devices_say_where_it_is_more(tmp_path, share):
    records = []
    config = config_of(epsilon=2.0, num_rounds=1, cohort_size=2, max_participations=20)
    rounds = rounds_over(
        [1], tmp_path, config=config, signing_key=SigningKey.generate(), on_round=records.append
    )
    privacy = rounds.stream.terms.privacy
    rounds.run(GridInMemory({1: saying(share * privacy.mu_squared_in_all)}))

    of_ledger = gaussian_epsilon(mu=privacy.step_mu_squared**0.5, delta=DELTA)
    # A word beyond what its policy lets a device spend counts as all of that.
    said = gaussian_epsilon(mu=(min(share, 1.0) * privacy.mu_squared_in_all) ** 0.5, delta=DELTA)
    assert records[0].epsilon_release == pytest.approx(max(of_ledger, said), rel=1e-8)
    assert records[0].epsilon_release <= 2.0 * (1 + 1e-6)


def deployed(run_config, tmp_path, node):
    home = {"privacy-home": str(tmp_path / "home")}
    context = test_strategy_deployed.context_of(run_config | home)
    test_strategy_deployed.app(grid=GridInMemory({1: node, 2: node}), context=context)
    return json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["privacy"]


def test_report_of_a_deployed_run_tells_what_devices_have_spent_elsewhere(run_config, tmp_path):
    def node(message):
        is_task = message.metadata.message_type == "train"
        return (saying(0.18) if is_task else test_strategy_deployed.node)(message)

    told = deployed(run_config | {"rounds": 1}, tmp_path, node)
    said = gaussian_epsilon(mu=math.sqrt(0.18), delta=DELTA)
    assert told["epsilon_release"] == pytest.approx(said)
    assert told["epsilon_ledger"] < said
    assert SAID_MORE in told["assumptions"]
    report = home_report(tmp_path / "home", delta=DELTA)
    assert report["epsilon_release"] == pytest.approx(said)
    assert read_words(tmp_path / "home", ()).said_mu_squared == pytest.approx(0.18)


def test_report_of_a_run_whose_devices_say_nothing_more_is_the_ledgers(run_config, tmp_path):
    told = deployed(run_config, tmp_path, test_strategy_deployed.node)
    assert told["epsilon_release"] == told["epsilon_ledger"]
    assert SAID_MORE not in told["assumptions"]
    assert OWNERS_UNKNOWN in told["assumptions"]


def test_report_of_a_run_whose_owners_are_known_assumes_nothing_of_them(run_config, tmp_path):
    owners = tmp_path / "owners.csv"
    owners.write_text("device_id,owner\n1-b,one\n2-b,two\n")
    told = deployed(run_config | {"owners": str(owners)}, tmp_path, test_strategy_deployed.node)
    assert OWNERS_UNKNOWN not in told["assumptions"]
    assert OWNERS_UNKNOWN not in home_report(tmp_path / "home", delta=DELTA)["assumptions"]


def test_ledger_of_a_home_says_where_owners_of_any_stream_are_unknown(tmp_path):
    home = open_home(tmp_path)
    assert OWNERS_UNKNOWN not in home_words(home)
    for stream, owners in (("known", {"a": "one"}), ("unknown", {})):
        home.open_stream(stream, StreamRecord(policy_digest="d", anchor="", max_participations=9))
        home.keep_owners(stream, owners, most_devices=5)
        cost = StepCost(mu_squared=0.1)
        home.invite(stream, 0, device_ids=["a"], choose=lambda _: [0], cost=cost)
        home.commit(stream, 0, digest="x", noise_only=False)
        assert home.words_on(stream).knows_owners is (stream == "known")
        assert home.words_on("").knows_owners is (stream == "known")


def home_words(home):
    return () if home.words_on("").knows_owners else (OWNERS_UNKNOWN,)


def test_deployed_run_without_a_privacy_home_is_refused(run_config):
    with pytest.raises(RoundsError, match="lacks 'privacy-home'; add --run-config"):
        deployed_run(run_config | {"privacy-home": ""})
    assert np.load(run_config["start-weights"])["weights"].shape == (3,)


def test_report_names_the_newest_entry_of_the_home_beside_its_streams_own(tmp_path):
    config = config_of(epsilon=2.0, num_rounds=1, cohort_size=2, max_participations=20)
    rounds = rounds_over([1], tmp_path, config=config)
    rounds.run(GridInMemory({1: honest}))
    step = rounds.stream.home.entries[-1]
    ask(rounds.stream.home, 0)
    told = report_of(
        config,
        status="finished",
        schedule=rounds.schedule,
        terms=rounds.stream.terms,
        noise=rounds.stream.noise,
        rounds=rounds.records,
        start_metrics=None,
        record=(None, None),
        entries=rounds.stream.home.entries,
        versions={},
        started_at=NOW,
        seconds=1.0,
    )["privacy"]
    assert told["ledger_head"] == step.reference()
    assert told["home_head"] == rounds.stream.home.entries[-1].reference() != step.reference()
