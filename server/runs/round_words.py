"""A round's explanation in rows for a person who was not there: what, and a sentence about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..engine.early_stop import REFERENCE_QUALITY
from .round_explanation import REFUSALS
from .watch_words import quality

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = tuple[str, str]
NODES_SHOWN: Final = 8
"""Nodes of a refusal trail that are named; the rest are counted."""


def explanation_rows(found: Mapping[str, Any]) -> list[Row]:
    """Say what happened in a round.

    Args:
        found: as `round_explanation.explain_round` lays it out.
    """
    which = f"{found['round']} of {found['num_rounds']}, in {found['seconds']:g} s"
    return [
        ("round", f"{which}; step {found['step']} of stream {found['run']}"),
        _invited(found["invitation"]),
        *_answered(found["replies"]),
        *_trailed(found["trail"]),
        *_named(found.get("nodes", {}), found["trail"]["by_node"]),
        *_released(found["release"], found["replies"]),
        *_spent(found["cost"], found["epsilon"]),
        *_entered(found["ledger"]),
        *_kept(found["checkpoint"], found["quality"]),
        *_to_come(found["next"]),
    ]


def _invited(invitation: Mapping[str, Any]) -> Row:
    n = invitation["invited"]
    owners = invitation["max_devices_per_owner"]
    of_owner = "" if owners is None else f" Of one owner at most {owners} devices take part."
    said = (
        f"{n:,} of {invitation['enrolled']:,} enrolled devices. The order of all devices is fixed "
        f"by a hash of stream and identifier. This round took the next {n:,} from place "
        f"{invitation['first_place']:,} of it, and passed over whoever had been invited "
        f"{invitation['max_participations']} times, fewer than {invitation['min_separation']} "
        f"rounds before, or had no budget left. Nothing that a device reports decides it.{of_owner}"
    )
    return "invited", said


def _answered(replies: Mapping[str, Any]) -> list[Row]:
    said = (
        f"{replies['replied']:,} devices, in good replies within {replies['deadline_s']:g} s; the "
        f"other {replies['without_good_reply']:,} count as zero. A device that sat out answers "
        "like any other, so nobody can tell."
    )
    if not replies["refused"]:
        return [("replied", said), ("refused", "none")]
    total = sum(replies["refused"].values())
    each = "; ".join(
        f"{count} {reason} ({REFUSALS.get(reason, 'a reason of a later version')})"
        for reason, count in sorted(replies["refused"].items())
    )
    return [("replied", said), ("refused", f"{total} replies, which count as zero: {each}")]


def _trailed(trail: Mapping[str, Any]) -> list[Row]:
    """Say whose replies were refused, most often first."""
    by_node = trail["by_node"]
    if not by_node:
        return []
    shown = list(by_node.items())[:NODES_SHOWN]
    each = "; ".join(
        f"{node}: {', '.join(f'{count} {why}' for why, count in sorted(counts.items()))}"
        for node, counts in shown
    )
    left = len(by_node) - len(shown)
    more = f"; and {left} more nodes" if left else ""
    beyond = sum(trail["not_kept"].values())
    uncounted = f"; {beyond} more replies, of which no node was noted" if beyond else ""
    first, last = str(trail["first_at"])[:19], str(trail["last_at"])[:19]
    when = f"at {first} UTC" if first == last else f"from {first} to {last} UTC"
    said = (
        f"by node, under the name that it bears in this stream alone: {each}{more}{uncounted}; "
        f"{when}. Each stands in refusals.jsonl"
    )
    return [("trail", said)]


def _named(nodes: Mapping[str, str], by_node: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Say which name of the trail is whose, of the nodes that were asked for."""
    each = "; ".join(
        f"{number} is {name}"
        + (f" ({sum(by_node[name].values())} in the trail)" if name in by_node else "")
        for number, name in nodes.items()
    )
    return [("nodes", each)] if each else []


def _released(release: Mapping[str, Any], replies: Mapping[str, Any]) -> list[Row]:
    said = f"the mean over the {replies['invited']:,} invited, with noise; not noise alone"
    if release["noise_only"]:
        why = "not one good reply came by the deadline, or a crash came before there was a sum"
        if replies["replied"]:
            why = (
                f"{replies['replied']:,} replies are fewer than the least, "
                f"{replies['least_replies']:,}"
            )
        said = f"noise alone: {why}. The round stays charged to whom it invited."
    if release["noise_multiplier"] == 0:
        return [("released", said), ("noise", "none: a comparison, which is never released")]
    noise = (
        f"{release['mechanism']}, σ = {release['noise_multiplier']:.4g}, "
        f"C = {release['clipping_norm']:g}: in each weight a standard deviation of "
        f"{release['noise_std_on_sum']:.4g} in the sum, {release['noise_std_on_mean']:.3g} in the "
        "mean, before a later round takes part of it back"
    )
    return [("released", said), ("noise", noise)]


def _spent(cost: Mapping[str, Any], epsilon: Mapping[str, Any]) -> list[Row]:
    mu_squared = cost["mu_squared_of_each_invited"]
    each = "unbounded" if mu_squared is None else f"μ² {mu_squared:.4g}"
    cost_said = (
        f"{each} to each invited device, whether it answered or not. The one invited most has been "
        f"invited {cost['most_participations']} of at most {cost['max_participations']} times."
    )
    said = (
        f"{_number(epsilon['before'])} before, {_number(epsilon['after'])} after, "
        f"at δ = {epsilon['delta']:g}, by the {epsilon['source']}"
    )
    return [
        ("cost", cost_said),
        ("ε_release", said),
        ("unit", str(epsilon["unit_of_privacy"])),
        ("neighbours", str(epsilon["neighboring_relation"])),
        ("assumes", "; ".join(epsilon["assumptions"])),
    ]


def _entered(ledger: Mapping[str, Any]) -> list[Row]:
    entry, chain = ledger["entry"], ("chain", str(ledger["chain"]))
    if entry is None:
        return [("ledger", f"{ledger['said_by_run'] or 'no entry'}, by run.json alone"), chain]
    agrees = {
        True: "as the run noted it",
        False: "NOT what the run noted",
        None: "the run noted none",
    }[ledger["agrees"]]
    which = f"entry {entry['index']}, {entry['kind']}, {ledger['at'][:19]} UTC, {agrees}"
    return [("ledger", which), ("hash", str(entry["hash"])), chain]


def _kept(checkpoint: Mapping[str, Any], look: Mapping[str, float | None] | None) -> list[Row]:
    rows = [("weights", str(checkpoint["weights_sha256"] or "no digest: a run of yesterday"))]
    if checkpoint["agrees"] is not None:
        word = "holds these weights" if checkpoint["agrees"] else "holds OTHER weights"
        rows.append(("checkpoint", f"the one here {word}"))
    elif checkpoint["here_is_step"] is not None:
        rows.append(("checkpoint", f"the one here is of round {checkpoint['here_is_step'] + 1}"))
    if look:
        where = "on the held-out part"
        if REFERENCE_QUALITY in look:
            where += "; reference AP on the public fleet by which the run may stop"
        rows.append(("quality", f"{quality(look)}, {where}"))
    return rows


def _to_come(following: Mapping[str, Any]) -> list[Row]:
    if following["is_last"]:
        why = following["ending"] and f": {following['ending']}"
        return [("next", f"nothing: it was the last round; the run is {following['state']}{why}")]
    done = "was released" if following["released_later"] else "comes next"
    said = (
        f"round {following['next_round']} {done}, from place {following['first_place']:,} of the "
        f"order; the run is {following['state']}. Whom this round invited may be invited again "
        f"from round {following['invited_here_again_from_round']} on."
    )
    return [("next", said)]


def _number(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.4f}"
