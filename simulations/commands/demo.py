"""`fedcell demo`: the product's main job, end to end."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.commands.doctor import BESIDE_THE_PROJECT

if TYPE_CHECKING:
    from ..demo.plan import DemoPlan

QUICK = {
    "devices": 60,
    "judged_devices": 120,
    "reference_devices": 60,
    "days": 300,
    "rounds": 2,
    "workers": 1,
}


def register(app: typer.Typer) -> None:
    """Add `demo` to the root command."""
    app.command("demo")(demo_command)


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder of the run; an old run is replaced.")] = Path(
        "runs/demo"
    ),
    broker: Annotated[
        str, typer.Option(help="MQTT broker: auto, mosquitto or embedded.", metavar="KIND")
    ] = "auto",
    devices: Annotated[
        int | None, typer.Option(help="Devices in the rounds.", show_default="600")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Private rounds.", show_default="10")] = None,
    epsilon: Annotated[float, typer.Option(help="ε_release, for a device's whole part.")] = 2.0,
    delta: Annotated[float, typer.Option(help="Its δ.")] = 1e-6,
    seed: Annotated[int, typer.Option(help="Of the simulated fleets.", min=0)] = 7,
    cells: Annotated[
        Path, typer.Option(envvar="FEDCELL_CELLS", help="Folder of real ageing cells.")
    ] = BESIDE_THE_PROJECT,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small fleets, two rounds, no cells: to try it out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Simulated fleet, private rounds, new bundle, six devices, notices over MQTT; then a report.

    The private rounds start from the default bundle. The same rounds without noise and the central
    baselines stand beside them, all judged on devices that never train. Server and devices are
    processes of their own and share one simulated clock. The noise comes from the operating
    system's entropy, so that figures differ a little from run to run.
    """
    plan = _plan(
        broker=broker,
        sizes={"devices": devices, "rounds": rounds},
        epsilon=epsilon,
        delta=delta,
        seed=seed,
        cells=None if quick else cells,
        quick=quick,
    )
    from ..demo.output_folder import require_replaceable

    require_replaceable(out)
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()

    def elapsed_s() -> float:
        return time.monotonic() - began

    def tell(line: str) -> None:
        typer.echo(f"{elapsed_s():5.0f} s  {line}", err=True)

    tell("loading torch, Flower and the rest")
    from ..demo.storyline import run_demo
    from ..demo.summary import closing_lines, legend_lines, summary_lines
    from ..report_page import PAGE_FILE
    from ..run_report import REPORT_FILE

    report = run_demo(
        plan, out=out, clock=lambda: datetime.now(UTC), elapsed_s=elapsed_s, tell=tell
    )
    if as_json:
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False))
        return
    from server.commands.prediction import quality_table

    typer.echo(f"\n{plan.judged_devices:,} simulated devices that never train judge all models:")
    typer.echo(quality_table(dict(report.metrics)))
    for line in (
        *legend_lines(),
        "",
        *summary_lines(report),
        *closing_lines(report, out, files=(REPORT_FILE, PAGE_FILE)),
    ):
        typer.echo(line)


def _plan(
    *,
    broker: str,
    sizes: dict[str, int | None],
    epsilon: float,
    delta: float,
    seed: int,
    cells: Path | None,
    quick: bool,
) -> DemoPlan:
    from server.broker import BrokerKind

    from ..demo.plan import DemoPlan

    if broker not in {"auto", *BrokerKind}:
        raise typer.BadParameter(
            f"{broker!r} is none of auto, {', '.join(BrokerKind)}", param_hint="'--broker'"
        )
    chosen = QUICK if quick else {}
    chosen |= {name: size for name, size in sizes.items() if size is not None}
    return DemoPlan(
        **chosen,
        epsilon=epsilon,
        delta=delta,
        seed=seed,
        broker=None if broker == "auto" else BrokerKind(broker),
        cells=cells,
    )


def _interrupt(_signal: int, _frame: object) -> None:
    """End as on Ctrl-C: every process is ended, and nothing half-written stays."""
    raise KeyboardInterrupt
