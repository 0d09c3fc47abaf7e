"""The order of checks, and the child process that runs a bundle for the first time."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_client.errors import SlotError
from edge_client.updates import bundle_gate
from edge_client.updates.bundle_gate import TrialLimits, try_out, verify
from edge_client.updates.bundle_trial import NUMPY, ONNX_RUNTIME, check_golden, outputs_of
from models.bundle import GOLDEN, MODEL, load_bundle, sign_bundle, write_bundle
from models.errors import BundleError
from models.feature_spec import NUM_FEATURES
from tests.support.onnx_surgery import STRUCTURAL, changed
from tests.support.update_bundles import (
    KEY_ID,
    resigned,
    trusted_keys,
    variant,
    with_golden,
    write_variant,
)

HOPEFUL = TrialLimits(cpu_s=20, wall_s=60)


def refusal_of(bundle, folder, **choices):
    with pytest.raises(BundleError) as refusal:
        try_out(bundle, scratch=folder, **choices)
    return refusal.value


def hostile_model(operator):
    """A model that ONNX Runtime loads, and that harms whoever runs it."""
    answer = "failure_probability_30d"
    if operator == "Loop":
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        state = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in "pq"]
        body = helper.make_graph(
            [helper.make_node("Identity", ["p"], ["q"]), helper.make_node("Sin", ["x"], ["y"])],
            "body",
            [helper.make_tensor_value_info("turn", TensorProto.INT64, []), state[0], value[0]],
            [state[1], value[1]],
        )
        nodes = [helper.make_node("Loop", ["turns", "", "first"], [answer], body=body)]
        constants = {"turns": np.int64(2**62), "first": np.ones(1, np.float32)}
    else:
        nodes = [helper.make_node("ConstantOfShape", ["sizes"], [answer])]
        constants = {"sizes": np.array([2**40], np.int64)}
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", NUM_FEATURES])],
        [helper.make_tensor_value_info(answer, TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


# The order


def test_bundle_that_is_whole_passes_every_check(tmp_path):
    path = write_variant(tmp_path / "b.zip")
    bundle = verify(path, trusted_keys=trusted_keys())
    for backend in (ONNX_RUNTIME, NUMPY):
        try_out(bundle, scratch=tmp_path, backend=backend)
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.zip"]


@pytest.mark.parametrize("name", ["an endless loop", "four terabytes of zeros", "external data"])
def test_structure_is_refused_however_well_signed(tmp_path, name):
    path = write_variant(tmp_path / "b.zip", files={MODEL: changed(STRUCTURAL[name])})
    with pytest.raises(BundleError) as refusal:
        verify(path, trusted_keys=trusted_keys())
    assert (refusal.value.reason, refusal.value.version) == ("structure", "update-1")
    assert str(refusal.value).startswith(f"{path}: ")


def test_signature_is_looked_at_before_the_structure(tmp_path):
    bundle = variant(files={MODEL: b"no model at all"})
    for signed, reason in ((bundle, "untrusted"), (resigned(bundle), "structure")):
        write_bundle(signed, tmp_path / "b.zip")
        with pytest.raises(BundleError) as refusal:
            verify(tmp_path / "b.zip", trusted_keys=trusted_keys())
        assert refusal.value.reason == reason


def test_size_is_looked_at_before_the_signature(tmp_path):
    bundle = variant(files={MODEL: bytes(2 << 20)})
    write_bundle(sign_bundle(bundle, key_id="other", private_key=bytes(32)), tmp_path / "b.zip")
    with pytest.raises(BundleError) as refusal:
        verify(tmp_path / "b.zip", trusted_keys=trusted_keys())
    assert refusal.value.reason == "too_large"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_spec_digest": "0" * 64}, "unsupported_spec"),
        ({"least_client_version": "99.0"}, "client_too_old"),
        ({"format": 2}, "client_too_old"),
        ({"release": -1}, "altered"),
        ({"release": "7"}, "altered"),
        ({"release": True}, "altered"),
        ({"operators": ["Abs"]}, "structure"),
    ],
)
def test_what_this_client_cannot_serve_is_named(tmp_path, change, reason):
    path = write_variant(tmp_path / "b.zip", manifest=change)
    with pytest.raises(BundleError) as refusal:
        verify(path, trusted_keys=trusted_keys())
    assert (refusal.value.reason, refusal.value.version) == (reason, "update-1")


def test_release_number_is_signed(tmp_path):
    bundle = sign_bundle(variant(), key_id=KEY_ID, private_key=bytes(range(32)), release=7)
    write_bundle(bundle, tmp_path / "b.zip")
    assert load_bundle(tmp_path / "b.zip", trusted_keys=trusted_keys()).release == 7
    forged = replace(bundle, manifest={**bundle.manifest, "release": 8})
    files = {**bundle.files, "manifest.json": json.dumps(forged.manifest).encode()}
    write_bundle(replace(forged, files=files), tmp_path / "b.zip")
    with pytest.raises(BundleError, match="not of this content"):
        load_bundle(tmp_path / "b.zip", trusted_keys=trusted_keys())


# The child process


def test_endless_loop_ends_with_its_process(tmp_path):
    bundle = replace(variant(), files={**variant().files, MODEL: hostile_model("Loop")})
    before = time.monotonic()
    error = refusal_of(
        bundle, tmp_path, backend=ONNX_RUNTIME, limits=TrialLimits(cpu_s=1, wall_s=60)
    )
    assert error.reason == "limits"
    assert time.monotonic() - before < 20


def test_process_that_waits_is_ended_from_outside(tmp_path):
    bundle = replace(variant(), files={**variant().files, MODEL: hostile_model("Loop")})
    error = refusal_of(
        bundle, tmp_path, backend=ONNX_RUNTIME, limits=TrialLimits(cpu_s=60, wall_s=0.5)
    )
    assert error.reason == "limits"
    assert "within 0.5 s" in str(error)


def test_terabytes_are_refused_by_the_limit_of_memory(tmp_path):
    bundle = replace(variant(), files={**variant().files, MODEL: hostile_model("ConstantOfShape")})
    error = refusal_of(bundle, tmp_path, backend=ONNX_RUNTIME, limits=HOPEFUL)
    assert error.reason in {"load", "limits"}


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"failure_probability_30d": [0.5] * 3}, "than were signed"),
        ({"fortune": [1.0]}, "are of shape"),
        ({"features": []}, "are of shape"),
        ({"features": [[1.0, 2.0]]}, "are of shape"),
        ({"features": "x"}, "cannot be read"),
    ],
)
def test_golden_vectors_that_do_not_fit_are_refused(outputs, says):
    bundle = with_golden(variant(), **outputs)
    with pytest.raises(BundleError, match=says) as refusal:
        check_golden(bundle, outputs_of(bundle, NUMPY))
    assert refusal.value.reason == "golden"


@pytest.mark.parametrize("backend", [ONNX_RUNTIME, NUMPY])
def test_other_outputs_than_the_signed_ones_are_refused_by_the_child(tmp_path, backend):
    bundle = with_golden(variant(), failure_probability_30d=[0.5] * 64)
    error = refusal_of(bundle, tmp_path, backend=backend)
    assert (error.reason, error.version) == ("golden", "update-1")
    assert "other values of failure_probability_30d" in str(error)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("failure_probability_30d", [1.01]),
        ("failure_probability_30d", [-0.01]),
        ("failure_probability_30d", [float("nan")]),
        ("days_to_failure", [[1.0, 2.0, 3651.0]]),
        ("days_to_failure", [[-1.0, 2.0, 3.0]]),
        ("days_to_failure", [[3.0, 2.0, 4.0]]),
        ("cause_probabilities", [[0.0, 0.0, 0.0, 0.0, float("inf")]]),
    ],
)
def test_outputs_that_cannot_be_are_refused_even_where_they_were_signed(name, values):
    def outputs_of_rows(features):
        return honest | {name: np.array(values, np.float32)}

    golden = variant().golden()
    honest = {output: rows[:1] for output, rows in golden.items() if output != "features"}
    bundle = with_golden(
        variant(),
        features=json.loads(variant().files[GOLDEN])["features"][:1],
        **{output: rows.tolist() for output, rows in honest.items()} | {name: values},
    )
    with pytest.raises(BundleError, match=r"cannot be|not finite"):
        check_golden(bundle, outputs_of_rows)


def test_golden_file_that_is_no_json_is_refused():
    bundle = replace(variant(), files={**variant().files, GOLDEN: b"[" * 100_000})
    with pytest.raises(BundleError, match="cannot be read"):
        check_golden(bundle, outputs_of(bundle, NUMPY))


def test_limits_hold_in_the_child_and_not_here(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    program = (
        "import resource as r; from edge_client.updates.bundle_trial import limit;"
        "limit(1 << 28, 5);"
        "print(*(r.getrlimit(k)[1] for k in (r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_CORE)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(1 << 28), "5", "0"]
    try_out(variant(), scratch=tmp_path, backend=NUMPY)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_child_sees_no_secret_of_the_environment(tmp_path, monkeypatch):
    seen = {}

    class Watching(subprocess.Popen):
        def __init__(self, *arguments, **choices):
            seen.update(choices["env"])
            super().__init__(*arguments, **choices)

    monkeypatch.setenv("FEDCELL_DEVICE_STORE_KEY", "secret")
    monkeypatch.setattr(bundle_gate.subprocess, "Popen", Watching)
    try_out(variant(), scratch=tmp_path, backend=NUMPY)
    assert "FEDCELL_DEVICE_STORE_KEY" not in seen
    assert seen["OMP_NUM_THREADS"] == "1"


def test_child_that_cannot_start_says_nothing_of_the_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(SlotError, match="cannot be tried out here"):
        try_out(variant(), scratch=tmp_path)


def test_child_that_finds_no_library_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SlotError, match="No module named"):
        try_out(variant(), scratch=tmp_path)
