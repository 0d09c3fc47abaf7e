"""What an erasure can honestly promise, from what a device's ledger holds.

Nothing that was released is taken back: noise hides a device in a model, it does not remove it. So
the text says what is deleted, what is not, and by how much the device's part is bounded, with the
figures of its own ledger. It never speaks of unlearning as done, nor of anonymity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from .accountant import gaussian_epsilon, mu_of_device
from .events import CountAnswer, Participation
from .ledger import LedgerEntry, events_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureFacts:
    """What a device's ledger says on the day that its data is erased.

    Attributes:
        participations: rounds that it was charged for, aborted ones included.
        answers: counts that it was charged for.
        streams: number of streams that it took part in.
        first_day: of the first entry, ISO 8601, UTC; None where there is none.
        last_day: of the last entry.
        epsilon: ε of everything that was released of it.
        delta: δ at which ε holds.
        odds_factor: e^ε: how much more likely its part can make any outcome, apart from δ.
        best_guess: probability with which the best attacker, who knows all else, guesses whether
            the device took part, where both were equally likely: Φ(μ/2).
        head: hash of the ledger's last entry, or None.
    """

    participations: int
    answers: int
    streams: int
    first_day: str | None
    last_day: str | None
    epsilon: float
    delta: float
    odds_factor: float
    best_guess: float
    head: str | None


def erasure_facts(entries: Sequence[LedgerEntry], *, delta: float) -> ErasureFacts:
    """Read the facts of an erasure out of a verified ledger of a device.

    Args:
        entries: all of them, the oldest first.
        delta: δ at which ε is said.

    Raises:
        UnsupportedEventError: An entry that this version cannot account for.
        ValueError: δ is out of bounds.
    """
    events = events_of(entries)
    taken = [event for event in events if isinstance(event, Participation)]
    mu = mu_of_device(events)
    epsilon = gaussian_epsilon(mu=mu, delta=delta)
    return ErasureFacts(
        participations=len(taken),
        answers=sum(isinstance(event, CountAnswer) for event in events),
        streams=len({event.stream for event in taken}),
        first_day=entries[0].at.date().isoformat() if entries else None,
        last_day=entries[-1].at.date().isoformat() if entries else None,
        epsilon=epsilon,
        delta=delta,
        odds_factor=math.exp(epsilon),
        best_guess=NormalDist().cdf(mu / 2),
        head=entries[-1].hash if entries else None,
    )


def erasure_text(facts: ErasureFacts) -> tuple[str, ...]:
    """Say in English what the erasure does and what it cannot do, a paragraph each.

    Args:
        facts: as `erasure_facts` reads them.
    """
    always = (
        _joined(
            "Deleted on the device: readings, features, outcomes, answers, predictions and",
            "installed models.",
        ),
        "From now on the device trains nothing and answers no count. This cannot be undone.",
    )
    kept = _joined(
        f"Kept: the device's privacy ledger{_named(facts.head)} and a note that there was an",
        "erasure. They hold no reading; without them the device could be asked again as if it",
        "had never taken part.",
    )
    if facts.participations == 0 and facts.answers == 0:
        return (*always, "No model or count was made with anything from this device.", kept)
    return (
        *always,
        _joined(
            f"Not taken back: between {facts.first_day} and {facts.last_day} the device was",
            f"charged for {_counted(facts.participations, 'round')} in",
            f"{_counted(facts.streams, 'stream')} and {_counted(facts.answers, 'count')}. Models",
            "and counts that were released then are not made again, and the device's part is not",
            "unlearned from them.",
        ),
        _joined(
            f"What bounds its part: whatever was released is at most {facts.odds_factor:.2f}",
            f"times as likely with the device as without it (ε = {facts.epsilon:.3f}), apart from",
            f"a probability of {facts.delta:g} (δ). Who knows everything else and must guess",
            f"whether the device took part is right at most {100 * facts.best_guess:.1f} times in",
            "100, where 50 is chance. Its part is bounded, it is not zero, and this does not make",
            "the models or the device anonymous.",
        ),
        _joined(
            "These figures rest on a server that adds the noise as it says. The server's operator",
            "saw the device's clipped updates, for which there is no bound.",
        ),
        _joined(
            "Models that are trained anew from now on do not contain the device. Those that go on",
            "from a released model begin with what it holds.",
        ),
        kept,
    )


def _joined(*parts: str) -> str:
    return " ".join(parts)


def _named(head: str | None) -> str:
    return "" if head is None else f" (last entry {head[:12]})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
