"""Keeps the record of each round: who answered, what it cost, how good the weights are, digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runs.report_layout import accountable
from ..streams.release_witness import weights_digest
from .rounds import RoundRecord
from .step_facts import read_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ..streams.stream_state import StreamState
    from .rounds import RoundsConfig
    from .step_facts import StepFacts

Metrics = dict[str, float | None]


@dataclass(slots=True, kw_only=True)
class RoundKeeper:
    """The records of one run.

    Attributes:
        config: what decides the run.
        stream: its steps.
        records: of its rounds so far, in order.
        evaluate: looks at weights on data that is not the devices'; None where nobody looks.
    """

    config: RoundsConfig
    stream: StreamState
    records: list[RoundRecord]
    evaluate: Callable[[NDArray[np.float32]], Metrics] | None

    def keep(
        self, facts: StepFacts, *, invited: int, weights: NDArray[np.float32], seconds: float
    ) -> RoundRecord:
        """Keep the record of the last round that is released.

        Args:
            facts: what came of its replies.
            invited: n.
            weights: after it, float32, shape (n_weights,).
            seconds: that it took.
        """
        record = RoundRecord(
            index=facts.index,
            invited=invited,
            replied=facts.replied,
            refused={str(reason): count for reason, count in facts.refused.items()},
            most_participations=self.stream.most_participations,
            epsilon_release=self._epsilon(),
            metrics=self._metrics(facts.index, weights),
            seconds=round(seconds, 4),
            noise_only=facts.noise_only,
            clipping_norm=facts.clipping_norm,
            weights_sha256=weights_digest(weights),
            ledger_hash="" if self.stream.entry is None else self.stream.entry.hash,
        )
        self.records.append(record)
        return record

    def keep_last_anew(self, weights: NDArray[np.float32]) -> None:
        """Keep the last round anew where the process ended before its report was written.

        Args:
            weights: of the checkpoint, float32, shape (n_weights,).
        """
        last = self.stream.next_index - 1
        known = self.records[-1].index if self.records else -1
        facts = read_facts(self.stream.folder, index=last) if known < last else None
        if facts is not None:
            invited = len(self.stream.home.cohort(self.config.stream, last))
            self.keep(facts, invited=invited, weights=weights, seconds=0.0)

    def _epsilon(self) -> float | None:
        if self.stream.terms.privacy is None:
            return None
        home, stream = self.stream.home, self.config.stream
        words = home.words_on(stream)
        return words.epsilon(accountable(home.entries, stream=stream), delta=self.config.delta)

    def _metrics(self, index: int, weights: NDArray[np.float32]) -> Metrics | None:
        is_last = index == self.config.num_rounds - 1
        if self.evaluate is None or not (is_last or index % self.config.evaluate_every == 0):
            return None
        return self.evaluate(weights)
