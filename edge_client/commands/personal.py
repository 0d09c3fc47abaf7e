"""`personalisation`: what this device learnt of its own battery; it never leaves the device."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .answers import answer, config_of, open_store, table

if TYPE_CHECKING:
    import argparse

    from ..personalisation.learning import PersonalState


def add_personalisation(personalisation: argparse.ArgumentParser) -> None:
    """Add the arguments of `personalisation`."""
    personalisation.add_argument(
        "act", nargs="?", choices=("show", "reset"), default="show", help="default: show"
    )


def run_personalisation(arguments: argparse.Namespace) -> int:
    """Show it, or forget it; nothing is predicted."""
    from ..personalisation.learning import kept_state, reset

    is_on = config_of(arguments).is_personal()
    with open_store(arguments) as store:
        was_reset = arguments.act == "reset" and reset(store)
        state = kept_state(store)
    data: dict[str, Any] = {"personalisation": "on" if is_on else "off"}
    if arguments.act == "reset":
        words = "forgotten" if was_reset else "there was nothing to forget"
        answer(arguments, data | {"was_reset": was_reset, "learnt": None}, [words])
        return 0
    learnt = None if state is None else _learnt(state)
    answer(arguments, data | {"learnt": learnt}, _lines(learnt, is_on=is_on))
    return 0


def _learnt(state: PersonalState) -> dict[str, Any]:
    from models.telemetry import SECONDS_PER_DAY

    from ..personalisation.learning import PARAMETERS

    day = float(state.waiting.day[0])
    waiting = None
    if math.isfinite(day):
        waiting = {
            "made_on": f"{datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC):%Y-%m-%d}",
            "days_to_failure_p50": float(state.waiting.days[0]),
        }
    return {
        "factor": math.exp(state.log_factor),
        "forecasts_judged": state.num_judged,
        "parameters": {
            name: float(value[0]) for name, value in zip(PARAMETERS, state.correction, strict=True)
        },
        "waiting": waiting,
        "model_digest": state.model_digest,
        "feature_spec_version": state.feature_spec_version,
        "pack_since": datetime.fromtimestamp(state.pack_since_s, UTC).isoformat(),
    }


def _lines(learnt: dict[str, Any] | None, *, is_on: bool) -> list[str]:
    rows = [("personalisation", "on" if is_on else "off: the model's word stands")]
    if learnt is None:
        return table([*rows, ("learnt", "nothing yet")])
    known = learnt["parameters"]
    rows += [
        ("days to failure", f"times {learnt['factor']:.2f}, less for forecasts under 120 days"),
        ("forecasts judged", str(learnt["forecasts_judged"])),
        ("loss of margin", _against(known["margin_measured"], known["margin_forecast"])),
    ]
    if known["num_resistances"]:
        growth = _against(known["resistance_measured"], known["resistance_forecast"])
        rows.append(("resistance growth", growth))
    if learnt["waiting"] is not None:
        rows.append(("judged next", f"the forecast of {learnt['waiting']['made_on']}"))
    model = f"{learnt['model_digest'][:16]}, features {learnt['feature_spec_version']}"
    rows += [
        ("of the pack since", learnt["pack_since"][:10]),
        ("of the model", model),
        ("who knows", "this device alone; it is in no message, and is erased with the store"),
    ]
    return table(rows)


def _against(measured: float, forecast: float) -> str:
    return f"{measured:.3f} measured, {forecast:.3f} forecast"
