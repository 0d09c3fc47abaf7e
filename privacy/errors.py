"""Errors of the privacy package; facts are attributes, callers branch on the type."""


class PrivacyError(Exception):
    """Root of every error that this package raises for a reason of privacy.

    Attributes:
        exit_code: The process exit code a command ends with when this error reaches it.
    """

    exit_code = 1


class BudgetExceededError(PrivacyError):
    """A participation or a round would spend more than the policy allows.

    Attributes:
        reason: Which rule refused, a value of `privacy.budget.Refusal`.
        spent: What is already spent, in the unit of the rule that refused.
        requested: What was asked for on top.
        limit: What the policy allows.
    """

    def __init__(self, *, reason: str, spent: float, requested: float, limit: float) -> None:
        """Keep the facts beside the message."""
        super().__init__(f"{reason}: spent {spent:g}, requested {requested:g}, limit {limit:g}")
        self.reason = reason
        self.spent = spent
        self.requested = requested
        self.limit = limit


class LedgerBrokenError(PrivacyError):
    """A ledger's chain does not verify; nothing may be spent on top of it.

    Attributes:
        index: Position of the first entry that does not fit.
        reason: What does not fit.
    """

    exit_code = 5

    def __init__(self, *, index: int, reason: str) -> None:
        """Keep the facts beside the message."""
        super().__init__(f"privacy ledger is broken at entry {index}: {reason}")
        self.index = index
        self.reason = reason


class UnsupportedEventError(PrivacyError):
    """An event that this version cannot account for; it is refused, never approximated.

    Attributes:
        event_type: The event's type as written.
    """

    def __init__(self, event_type: str) -> None:
        """Keep the type beside the message."""
        super().__init__(f"no accounting for event {event_type!r}: a newer fedcell may know it")
        self.event_type = event_type


class NoiseReuseError(PrivacyError):
    """Noise of a step that was already given out was asked for again.

    Attributes:
        index: The step asked for.
        last_index: The last step given out.
    """

    def __init__(self, *, index: int, last_index: int) -> None:
        """Keep the facts beside the message."""
        super().__init__(f"noise of step {index} was asked for after step {last_index}")
        self.index = index
        self.last_index = last_index


class NoiseGapError(PrivacyError):
    """Noise of a step was asked for before that of the steps between.

    Attributes:
        index: The step asked for.
        next_index: The step that is next.
    """

    def __init__(self, *, index: int, next_index: int) -> None:
        """Keep the facts beside the message."""
        super().__init__(f"noise of step {index} was asked for, step {next_index} is next")
        self.index = index
        self.next_index = next_index


class StreamEndedError(PrivacyError):
    """A stream has no more steps; what follows needs a new stream.

    Attributes:
        index: The step asked for.
        num_rounds: Steps that the stream's policy allows.
    """

    def __init__(self, *, index: int, num_rounds: int) -> None:
        """Keep the facts beside the message."""
        super().__init__(f"step {index} was asked for, the stream ends after {num_rounds}")
        self.index = index
        self.num_rounds = num_rounds
