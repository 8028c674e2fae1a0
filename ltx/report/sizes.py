"""What a mask alone does not do, said once at the end of a run and in `ltx show`."""

from pathlib import Path

from ltx.report.runs import read_table


def said(folder: Path) -> str:
    """The sparsest ticket's size, whole and without what is dead in it; nothing where no ticket is pruned."""
    table = read_table(folder / "size.csv")
    tickets = table[(table.role == "ticket") & (table.level > 0)]
    dense = table[(table.role == "ticket") & (table.level == 0)]
    if tickets.empty or dense.empty:
        return ""
    last = tickets[tickets.level == tickets.level.max()]
    share = {kind: 100 * (last[kind] / last[f"dense_{kind}"]).mean() for kind in ("parameters", "macs")}
    return (
        "A mask alone makes no file smaller and no device faster. Without what is dead in its last tickets "
        f"{dense.architecture.iloc[0]} becomes {last.architecture.iloc[0]} (seed {last.seed.iloc[0]}), with "
        f"{share['parameters']:.3g} % of the parameters and {share['macs']:.3g} % of the multiply-accumulates "
        f"(mean of {len(last)}); `ltx export` writes that network."
    )
