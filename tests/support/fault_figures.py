"""Figures of a fault study, as benchmarks keep them."""

from simulations.fault_study import CLEAN, FAULTS


def add_figures(figures, summary, *, named, targets):
    """Record completed rounds, precision lost to the clean run and attack success, with spread.

    Args:
        figures: of an area.
        summary: of a study.
        named: which study it is.
        targets: of completed rounds, of precision lost under faults and under poison; None where
            there are none.
    """
    privacy, plan = summary["privacy"], summary["plan"]
    complete, under_faults, under_poison = targets
    for arm in summary["arms"]:
        is_backdoor = "backdoored" in arm["arm"]
        against = (
            f"{len(arm['seeds'])} seeds, each against the clean run of its seed, on devices that "
            f"never train; {plan['num_rounds']} rounds of {plan['cohort_size']}; in every arm "
            f"ε = {privacy['epsilon_release']:.3g} at δ = {privacy['delta']:g} (one device; "
            f"k = {privacy['participations']}, trusted aggregator)"
        )
        rounds = [seed["complete"] / seed["rounds"] for seed in arm["seeds"]]
        success = [seed["triggered"]["false_alarm"] for seed in arm["seeds"]]
        if arm["arm"] != CLEAN:
            figures.add(
                f"hostile fleet, {named}: average precision lost, {arm['arm']}",
                arm["lost"],
                unit="average precision",
                target=None
                if is_backdoor
                else under_faults
                if arm["arm"] == FAULTS
                else under_poison,
                better="lower",
                spread=(min(arm["lost_by_seed"]), max(arm["lost_by_seed"])),
                against=against,
            )
        figures.add(
            f"hostile fleet, {named}: rounds complete, {arm['arm']}",
            arm["complete"],
            unit="share of rounds",
            target=complete,
            better="higher",
            spread=(min(rounds), max(rounds)),
            against=against,
        )
        if arm["arm"] == FAULTS and arm["reached_near_least"] is not None:
            figures.add(
                f"hostile fleet, {named}: rounds with {arm['near_least']} good replies, "
                f"{arm['arm']}",
                arm["reached_near_least"],
                unit="share of rounds",
                target=complete,
                better="higher",
                spread=(arm["reached_near_least"],) * 2,
                against="nine tenths of the replies that such faults leave on average",
            )
        if is_backdoor or arm["arm"] == CLEAN:
            figures.add(
                f"hostile fleet, {named}: attack success on triggered inputs, {arm['arm']}",
                arm["triggered"]["false_alarm"],
                unit="share of healthy rows",
                target=None,
                better="lower",
                spread=(min(success), max(success)),
                against=against,
            )
