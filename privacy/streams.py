"""Streams of correlated noise: banded matrix factorisation under a stored key.

Step t of a stream releases Σ u_i + C·w_t with w_t = (z_t − Σ_{j=1..p−1} c_j w_{t−j}) / c_0 and
z_t ~ N(0, σ² I) (`privacy.banded_factor`). z_t is made from ChaCha20(key_t, t), where key_t is
HMAC-SHA256(key, digest of the one sum that step t was committed to) once the step is bound to that
sum, and the stream's key otherwise. So the stream can be made again from its key and its digests at
any step, bit for bit, on any machine, without a seed. Where a server forgets what it released,
because it was put back from a backup, z of what it commits anew is independent of all before: the
digest must cover a nonce of the commit. Without it a step with an equal sum in both lives would
have an equal z, and as w_t holds the w of p − 1 steps before, the two releases of that step would
lay open how those before it differ.

Where a clipping norm adapts, the last entry of each sum is that of the bits: its noise is σ_b·z of
its own step alone, from the same words.

The key comes from the operating system's entropy (`new_stream_key`) and is kept sealed by whoever
runs the stream. The caller makes the sum durable and binds the step to it before it asks for noise,
and after a crash adds the same noise to that sum again. Over the choice of the key, noise that is
bound is distributed as noise that is not: no step is asked for under two digests in one life, and
under two it is independent (as nonces are derived from messages in RFC 6979).

Assumptions of the accounting that rests on it: a device takes part in steps at least b ≥ p apart
and at most k times; the constants of the policy do not change; every index is released, an aborted
round as noise alone (Choquette-Choo et al. 2023, arXiv 2306.08153; Denisov et al. 2022 for rounds
that depend on what was released before).
"""

import hashlib
import hmac
from collections import deque
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from .banded_factor import band_coefficients
from .box_muller import gaussian_from_words, words_needed
from .errors import NoiseGapError, NoiseReuseError, StreamEndedError
from .events import EntryKind
from .keystream import KEY_BYTES, keystream, new_key
from .policy import StreamPolicy

MECHANISM: Final = "banded_matrix_factorisation"

_DIGEST_BYTES: Final = 32
_BINDING: Final = b"fedcell/v1/step-noise\n"


def new_stream_key() -> bytes:
    """A 256-bit key from the operating system's entropy, for one stream and no other."""
    return new_key()


class CorrelatedNoise:
    """The noise of one stream's steps, given out once each and in order.

    Args:
        key: 256 bits from `new_stream_key`, this stream's alone.
        policy: The constants of the stream.
    """

    def __init__(self, key: bytes, policy: StreamPolicy) -> None:
        """Start before step 0."""
        privacy = policy.privacy
        if len(key) != KEY_BYTES:
            raise ValueError(f"key must have {KEY_BYTES} bytes, got {len(key)}")
        if not 1 <= privacy.bands <= privacy.min_separation:
            raise ValueError(
                f"bands must lie in 1..{privacy.min_separation} (the separation), "
                f"got {privacy.bands}"
            )
        self._key = key
        self._policy = policy
        self._first, *self._others = band_coefficients(privacy.bands)
        self._next_index = 0
        self._bound: dict[int, bytes] = {}
        self._size: int | None = None
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=len(self._others))

    @classmethod
    def resumed(cls, key: bytes, policy: StreamPolicy, next_index: int, size: int) -> Self:
        """The same stream as it stands before step `next_index`, made again from its key.

        Args:
            key: The stream's key.
            policy: The stream's constants.
            next_index: The step whose noise is next, in 0..T.
            size: Number of weights.

        Returns:
            A stream whose noise is bit-identical with one that never stopped.

        Raises:
            StreamEndedError: The stream has fewer steps.
        """
        stream = cls(key, policy)
        for index in range(next_index):
            stream.noise(index, size)
        return stream

    @property
    def mechanism(self) -> str:
        """Name of the mechanism."""
        return MECHANISM

    @property
    def noise_multiplier(self) -> float:
        """σ: standard deviation of z over the clipping norm."""
        return self._policy.privacy.noise_multiplier

    @property
    def entry_kind(self) -> EntryKind:
        """`stream`: the key is the operating system's entropy."""
        return "stream"

    @property
    def next_index(self) -> int:
        """The step whose noise is next."""
        return self._next_index

    def bind(self, index: int, digest: bytes) -> None:
        """Make the noise of a step a function of the sum that it is to meet.

        Args:
            index: t; not given out yet.
            digest: SHA-256 of the committed sum with its stream, step and cohort; 32 bytes.

        Raises:
            NoiseReuseError: The step was already given out, or is bound to another sum.
            ValueError: It is no digest.
        """
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"digest must have {_DIGEST_BYTES} bytes, got {len(digest)}")
        if index < self._next_index or self._bound.get(index, digest) != digest:
            raise NoiseReuseError(index=index, last_index=self._next_index - 1)
        self._bound[index] = digest

    def noise(self, index: int, size: int) -> NDArray[np.float64]:
        """Noise C·w_t of step `index`, in the unit of the clipped sum, to be added once.

        Args:
            index: t; the next one, no other.
            size: Number of weights, and one for bits where the norm adapts; the same for every
                step.

        Returns:
            float64, shape (size,).

        Raises:
            NoiseReuseError: The step was already given out.
            NoiseGapError: A step before it was not given out yet.
            StreamEndedError: The policy has no such step.
            ValueError: The size differs from the steps before.
        """
        self._require_next(index, size)
        drawn = self._fresh(index, size)
        of_bits = drawn[-1:].copy()
        for coefficient, before in zip(self._others, reversed(self._recent), strict=False):
            drawn -= coefficient * before
        drawn /= self._first
        self._recent.append(drawn)
        self._next_index, self._size = index + 1, size
        privacy = self._policy.privacy
        noise = drawn * privacy.clipping_norm
        if privacy.clip_noise_multiplier is not None:
            noise[-1:] = of_bits * (privacy.clip_noise_multiplier / privacy.noise_multiplier)
        return noise

    def _fresh(self, index: int, size: int) -> NDArray[np.float64]:
        """z_t, a function of the key, the index and the sum that the step is bound to alone."""
        digest = self._bound.pop(index, None)
        key = self._key
        if digest is not None:
            key = hmac.new(key, _BINDING + digest, hashlib.sha256).digest()
        words = np.frombuffer(keystream(key, index, 8 * words_needed(size)), dtype="<u8")
        return gaussian_from_words(words.astype(np.uint64), size) * self.noise_multiplier

    def _require_next(self, index: int, size: int) -> None:
        if index < self._next_index:
            raise NoiseReuseError(index=index, last_index=self._next_index - 1)
        if index > self._next_index:
            raise NoiseGapError(index=index, next_index=self._next_index)
        if index >= self._policy.num_rounds:
            raise StreamEndedError(index=index, num_rounds=self._policy.num_rounds)
        if self._size is not None and size != self._size:
            raise ValueError(f"size must be {self._size} as in the steps before, got {size}")
