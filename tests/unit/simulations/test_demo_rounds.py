from privacy.statement import CORRELATED, NEIGHBORING_RELATION, OWNERS_UNKNOWN
from server.engine.rounds import RoundRecord
from simulations.demo.plan import DemoPlan
from simulations.demo.private_rounds import PRIVATE, WITHOUT_NOISE, configurations, stated, teller


def told(name, *, epsilon):
    lines = []
    record = RoundRecord(
        index=2,
        invited=5,
        replied=5,
        refused={},
        most_participations=1,
        epsilon_release=epsilon,
        metrics={"average_precision": 0.25},
        seconds=1.0,
    )
    teller(name, configurations(PLAN)[name], lines.append)(record)
    return lines


PLAN = DemoPlan()


def test_a_line_of_the_private_rounds_has_its_delta_beside_epsilon():
    of = f"3/{PLAN.rounds}"
    assert told(PRIVATE, epsilon=1.1) == [
        f"private round {of}, ε 1.10 at δ = {PLAN.delta:g}, average precision 0.250"
    ]
    assert told(WITHOUT_NOISE, epsilon=None) == [
        f"round without noise {of}, average precision 0.250"
    ]


def test_what_every_epsilon_means_is_said_before_the_first():
    lines = "\n".join(stated(configurations(PLAN)[PRIVATE], num_devices=PLAN.devices))
    for said in (NEIGHBORING_RELATION, *CORRELATED, OWNERS_UNKNOWN):
        assert said in lines
    assert lines.startswith("unit of privacy: ")
