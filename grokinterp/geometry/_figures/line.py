"""Is there a barrier of loss on the line between two checkpoints?"""

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import COLOURS, Figure, checked, figure
from grokinterp.geometry.line_between import ModeConnectivity, mode_connectivity

LINES = {"train": COLOURS["train"], "test": COLOURS["test"], "all": COLOURS["key"]}


@draws(ModeConnectivity)
@found_by(mode_connectivity, ModeConnectivity)
def plot_mode_connectivity(found: ModeConnectivity) -> Figure:
    """Loss (log axis) and accuracy along the line from the first end (0) to the second (1).

    Dashed are those of the line to the second end with its units in the order of the first's, left
    out where that is the same line. The title has the barriers on the training inputs, in nats.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_mode_connectivity(gi.load("mod31-small"), n_points=5)
    >>> [line.name for line in drawn.data if line.showlegend]
    ['train inputs', 'test inputs', 'train inputs, aligned', 'test inputs, aligned']
    """
    checked(found, ModeConnectivity, "geometry.mode_connectivity")
    barriers = found.barriers()
    side = barriers["rows"].iloc[0]
    same = not any(found.moved.values())
    told = f"barrier {found.barrier:.3g} nats on {side} inputs"
    if not same:
        told += f", {found.aligned_barrier:.3g} aligned"
    (one, other), (start, end) = found.ends, found.steps
    names = (f"step {start:,}", f"step {end:,}")
    if one != other:
        names = (f"{one}, {names[0]}", f"{other}, {names[1]}")
    drawn = figure(f"On the line from {names[0]} to {names[1]}<br>{told}")
    drawn.set_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for path, points in found.table().groupby("path", sort=False):
        if path == "aligned" and same:
            continue
        for rows in found.n_rows:
            line = {"color": LINES[rows], "dash": "dash" if path == "aligned" else "solid"}
            for row, quantity in enumerate(("loss", "accuracy"), start=1):
                values = points[f"{rows}_{quantity}"]
                drawn.add_scatter(
                    x=points["alpha"], y=values.where(values > 0) if row == 1 else values,
                    name=f"{rows} inputs" + ", aligned" * (path == "aligned"), line=line,
                    mode="lines" if path == "aligned" else "lines+markers", marker={"size": 4},
                    showlegend=row == 1,
                    hovertemplate="%{y:.4g}", row=row, col=1,
                )  # fmt: skip
    drawn.update_yaxes(title_text="loss (nats)", type="log", row=1, col=1)
    drawn.update_yaxes(title_text="accuracy", range=[-0.03, 1.03], row=2, col=1)
    drawn.update_xaxes(title_text="share of the way, alpha", row=2, col=1)
    return drawn.update_layout(hovermode="x unified", height=640)
