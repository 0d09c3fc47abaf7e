"""A candidate is judged beside the model that devices have, and enters only if it was."""

import json
import shutil
from dataclasses import replace

import pytest

from models.bundle import DEFAULT, load_bundle
from server.commands.release_desk import model_in_use
from server.errors import RegistryError, StorageMissingError
from server.releases.admission import Payment
from server.releases.rings import ReleaseState
from server.storage.releases import Releases
from tests.support.releases import AT_ONCE, now, release_lab


@pytest.fixture
def lab(tmp_path):
    with release_lab(tmp_path) as found:
        yield found


def released(lab, number):
    """Bring a bundle through to the whole fleet; returns it as devices have it."""
    path = lab.bundle(number)
    kept = lab.signed(path)
    with lab.database.transaction() as connection:
        rollout = replace(kept.rollout, state=ReleaseState.RELEASED, ring=0)
        Releases(connection).keep(rollout, ring="fleet", now=now())
    return load_bundle(path, allow_unsigned=True)


def judged(lab, number, *, beside):
    """Leave a run whose candidate passed beside a model; None leaves out beside which."""
    run = lab.folder / f"run-{number}"
    run.mkdir(exist_ok=True)
    shutil.copy(lab.bundle(number), run / "bundle.zip")
    candidate = load_bundle(run / "bundle.zip", allow_unsigned=True)
    told = {"passed": True, "candidate": {"digest": candidate.digest}}
    if beside is not None:
        told["current"] = {"version": beside.version, "digest": beside.digest}
    (run / "proposal.json").write_text(json.dumps(told))
    return run


def in_use(lab, **changes):
    folder = str(lab.folder / "releases")
    spec = load_bundle(DEFAULT).manifest["feature_spec_version"]
    return model_in_use(
        spec, **{"db": lab.database.url, "folder": folder, "config": None} | changes
    )


def test_the_model_in_use_is_what_the_releases_say(lab):
    assert in_use(lab)[0].digest == load_bundle(DEFAULT).digest
    first = released(lab, 1)
    found, by = in_use(lab)
    assert (found.version, found.digest) == ("update-1", first.digest)
    assert by == f"releases in {lab.folder / 'releases'}"


def test_releases_that_are_there_are_not_passed_over(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCELL_SERVER_RELEASES", str(lab.folder / "releases"))
    released(lab, 1)
    assert in_use(lab, folder=None)[0].version == "update-1"
    with pytest.raises(StorageMissingError):
        in_use(lab, folder=None, db=f"sqlite:///{tmp_path}/none.db")
    monkeypatch.setenv("FEDCELL_SERVER_RELEASES", str(tmp_path / "none"))
    found, by = in_use(lab, folder=None)
    assert found.digest == load_bundle(DEFAULT).digest
    assert by == f"default (no releases in {tmp_path / 'none'})"


def test_a_candidate_that_passed_beside_a_model_of_before_is_judged_again(lab):
    default = load_bundle(DEFAULT)
    early = judged(lab, 2, beside=default)
    first = released(lab, 1)

    def propose(run):
        payment = Payment(home=lab.home)
        return lab.desk.propose(run, payment, policy=AT_ONCE, now=now())[0]

    with pytest.raises(RegistryError, match=f"beside {default.version}, and devices have update-1"):
        propose(early)
    with pytest.raises(RegistryError, match="beside no model that it names"):
        propose(judged(lab, 2, beside=None))
    assert propose(judged(lab, 2, beside=first)).offer.version == "update-2"
