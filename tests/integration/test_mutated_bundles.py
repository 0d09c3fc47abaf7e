"""1,000 mutated bundles: refused before the network is run, or the same; the agent never ends.

What a trusted key signed again after random damage may pass the structural gate; then the golden
vectors judge it in the child process. Every bundle that is taken up computes what the released one
does: a flip in a date of the zip, in the name of a node, in the last bits of a weight.
"""

import time
from collections import Counter

import numpy as np
import pytest

from edge_client.model_store import ModelStore
from edge_client.updates import bundle_gate
from models.errors import BundleError
from models.inference import GOLDEN_TOLERANCE, Predictor
from tests.support.mutated_bundles import (
    COMMITTED_RELEASE,
    FAILED_VERSION,
    released,
    write_mutation,
)
from tests.support.update_bundles import trusted_keys, try_out_here, write_variant

IN_ONE_GO = 100
LONGEST_S = 60.0


class Device:
    """A device with a committed bundle, an earlier failure, and an eye on what is run."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.num_runs = folder, 0
        self.models = ModelStore.beside(folder / "device.db")
        self._real = bundle_gate.try_out
        monkeypatch.setattr(bundle_gate, "try_out", try_out_here)
        failed = int(FAILED_VERSION.rpartition("-")[2])
        self.models.install(write_variant(folder / "f.zip", failed), trusted_keys=trusted_keys())
        for _ in range(4):
            ModelStore(self.models.folder).begin_boot()
        path = write_variant(folder / "c.zip", 100, release=COMMITTED_RELEASE)
        self.committed = self.models.install(path, trusted_keys=trusted_keys())
        self.models.open()
        assert self.models.commit()
        monkeypatch.setattr(bundle_gate, "try_out", self._watched)

    def _watched(self, bundle, **choices):
        self.num_runs += 1
        self._real(bundle, **choices)

    def offer(self, index):
        """Offer one mutated bundle; say what became of it."""
        path = self.folder / "offered.zip"
        mutation = write_mutation(path, index)
        before = self.num_runs
        refusal = self.refusal_of(path)
        if refusal is None:
            self.judge_harmless(index, mutation)
            return mutation.kind, "harmless"
        ran = self.num_runs > before
        assert mutation.may_run or not ran, f"{index}: {mutation.kind} was run"
        assert self.models.installed() == self.committed
        assert self.models.last_refusal().reason == refusal.reason
        return mutation.kind, "refused by golden vectors" if ran else "refused before the run"

    def refusal_of(self, path):
        try:
            self.models.install(path, trusted_keys=trusted_keys())
        except BundleError as error:
            return error
        return None

    def judge_harmless(self, index, mutation):
        taken = self.models.open()
        if not mutation.may_run:
            assert taken.digest == released().digest, f"{index}: {mutation.kind} was taken up"
        golden = released().golden()
        outputs = Predictor(taken).outputs(golden.pop("features"))
        for name, expected in golden.items():
            close = np.isclose(outputs[name], expected, rtol=GOLDEN_TOLERANCE, atol=1e-5)
            assert close.all(), f"{index}: {mutation.kind} changes {name}"
        # The next offer of this version shall be judged by its content, not by a failed trial.
        state = self.models.state()
        ended = state._replace(trial=None, starts=0, a=None, b=None)
        kept = ended._replace(**{str(state.committed): self.committed})
        self.models._file.write(state, kept)
        assert self.models.installed() == self.committed


def offer_all(device, numbers):
    counts = Counter()
    for index in numbers:
        before = time.monotonic()
        counts[device.offer(index)] += 1
        assert time.monotonic() - before < LONGEST_S
    assert device.models.open().digest == device.committed.digest
    return counts


def judge(counts):
    print(*(f"{kind}: {end}: {count}" for (kind, end), count in sorted(counts.items())), sep="\n")
    refused = sum(count for (_, end), count in counts.items() if end == "refused before the run")
    assert refused >= 0.85 * counts.total()
    certain = ("of another key", "unsigned", "other operators", "huge shapes", "external data")
    assert {end for (kind, end) in counts if kind in (*certain, "old version", "altered file")} == {
        "refused before the run"
    }


@pytest.fixture
def device(tmp_path, monkeypatch):
    return Device(tmp_path, monkeypatch)


def test_a_hundred_mutated_bundles_are_refused_or_harmless(device):
    judge(offer_all(device, range(IN_ONE_GO)))


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(1, 10))
def test_every_hundred_of_a_thousand_mutated_bundles(device, hundred):
    judge(offer_all(device, range(hundred * IN_ONE_GO, (hundred + 1) * IN_ONE_GO)))
