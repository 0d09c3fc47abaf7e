"""A bundle whose answer anybody can compute: the day on which the 30-day line meets end of life."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.bundle import Bundle, build_bundle, sign_bundle, write_bundle
from models.feature_spec import FEATURE_NAMES, NUM_FEATURES
from models.inference import Predictor

if TYPE_CHECKING:
    from pathlib import Path

KEY_ID = "test"
PRIVATE_KEY = bytes(range(32))
LINE = FEATURE_NAMES.index("days_to_eol_linear_30d")
SHARES = (0.5, 1.0, 2.0)
CONFIDENCE = 0.6
OPERATORS = ("Add", "Div", "Exp", "IsNaN", "MatMul", "Min", "Mul", "Squeeze", "Sub", "Where")


def model_bytes(*, scale: float = 1.0) -> bytes:
    """Write a graph: quantiles of days = the line's day x `SHARES` x scale, 3650 where missing."""
    column = np.zeros((NUM_FEATURES, 1), np.float32)
    column[LINE] = 1
    constants = {
        "column": column,
        "never": np.full(NUM_FEATURES, 3650, np.float32),
        "shares": np.array([SHARES], np.float32) * np.float32(scale),
        "longest": np.array([3650], np.float32),
        "month": np.array([30], np.float32),
        "week": np.array([7], np.float32),
        "one": np.array([1], np.float32),
        "flat": np.array([1], np.int64),
        "nothing": np.array([0], np.float32),
        "bands": np.full((1, 4), CONFIDENCE, np.float32),
        "causes": np.array([[0.6, 0.1, 0.1, 0.1, 0.1]], np.float32),
    }
    steps = [
        ("IsNaN", ["features"], "is_missing"),
        ("Where", ["is_missing", "never", "features"], "known"),
        ("MatMul", ["known", "column"], "known_day"),
        ("Mul", ["known_day", "shares"], "any_days"),
        ("Min", ["any_days", "longest"], "days_to_failure"),
        ("Sub", ["known_day", "month"], "beyond"),
        ("Div", ["beyond", "week"], "weeks_beyond"),
        ("Exp", ["weeks_beyond"], "odds_against"),
        ("Add", ["odds_against", "one"], "whole"),
        ("Div", ["one", "whole"], "risk"),
        ("Squeeze", ["risk", "flat"], "failure_probability_30d"),
        ("Mul", ["known_day", "nothing"], "zero"),
        ("Add", ["zero", "bands"], "action_probabilities"),
        ("Add", ["zero", "causes"], "cause_probabilities"),
    ]
    outputs = {
        "failure_probability_30d": ["n"],
        "days_to_failure": ["n", 3],
        "action_probabilities": ["n", 4],
        "cause_probabilities": ["n", 5],
    }
    graph = helper.make_graph(
        [helper.make_node(kind, ins, [out]) for kind, ins, out in steps],
        "line",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", NUM_FEATURES])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@cache
def line_bundle(*, name: str = "line", scale: float = 1.0) -> Bundle:
    """Build the bundle, unsigned."""
    content = model_bytes(scale=scale)
    parts = {
        "name": name,
        "model_bytes": content,
        "operators": OPERATORS,
        "flag_threshold": 0.5,
        "calibration": {"scale": 1.0, "shift": 0.0},
        "explanation_reference": np.full(NUM_FEATURES, 3650.0, np.float32),
        "surrogate_tree": {},
        "card": {"metrics": {}},
        "card_text": "# {version}\n",
        "ledger_entry": {"kind": "public"},
    }
    features = np.full((2, NUM_FEATURES), 12.0, np.float32)
    features[1, LINE] = np.nan
    draft = build_bundle(golden={"features": features}, **parts)
    golden = {"features": features, **Predictor(draft).outputs(features)}
    return build_bundle(golden=golden, **parts)


def write_line_bundle(path: Path, *, signed: bool = True, **choices: object) -> Path:
    """Write the bundle as a zip, signed with the test key."""
    bundle = line_bundle(**choices)
    if signed:
        bundle = sign_bundle(bundle, key_id=KEY_ID, private_key=PRIVATE_KEY)
    write_bundle(bundle, path)
    return path


def trusted_keys() -> dict[str, bytes]:
    """Return the public half of the test key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return {
        KEY_ID: Ed25519PrivateKey.from_private_bytes(PRIVATE_KEY).public_key().public_bytes_raw()
    }
