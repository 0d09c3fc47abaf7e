"""Figures of a quality study, as benchmarks keep them."""

from statistics import median


def add_figures(figures, summary, *, named, targets):
    """Record gain, share kept and average precision with their spread over seeds.

    Args:
        figures: of an area.
        summary: of a study.
        named: which study it is.
        targets: of gain and share kept, None where there are none.
    """
    privacy, seeds = summary["privacy"], summary["seeds"]
    record = privacy["record"]
    terms = (
        f"ε_release = {privacy['epsilon_release']:.3g} at δ = {privacy['delta']:g} (one device, "
        f"{privacy['participations']} participations, σ = {privacy['noise_multiplier']:.2f}, "
        f"b = {privacy['min_separation']}, trusted aggregator, no sampling assumed), ε_record = "
        f"{record['epsilon']:.3g} at δ = {record['delta']:g} (one row) in both arms"
    )
    gain_target, kept_target = targets
    above = sum(seed["private"]["auc"] > seed["without_noise"]["auc"] for seed in seeds)
    rows = (
        ("gain without release noise", "AUC", gain_target, [seed["gain"] for seed in seeds]),
        (
            "share of the gain that the private run keeps",
            "share",
            kept_target,
            [seed["kept"] for seed in seeds],
        ),
        (
            "share of the gain at the best look without noise that the private run keeps",
            "share",
            None,
            [seed["kept_of_best"] for seed in seeds],
        ),
        (
            "share of the gain in average precision that the private run keeps",
            "share",
            None,
            [seed["average_precision_kept"] for seed in seeds],
        ),
        *(
            (f"{metric}, {said}", metric, None, [seed[key][field] for seed in seeds])
            for metric, field in (("AUC", "auc"), ("average precision", "average_precision"))
            for said, key in (
                ("start", "start"),
                ("without release noise", "without_noise"),
                ("private", "private"),
            )
        ),
    )
    for name, unit, target, values in rows:
        figures.add(
            f"quality, {named}: {name}",
            median(values),
            unit=unit,
            target=target,
            better="higher",
            spread=(min(values), max(values)),
            against=(
                f"{len(seeds)} seeds, devices that never train; both arms share settings chosen "
                f"with noise in mind, and the private one ends above in {above} of them; {terms}"
            ),
        )
