"""What the axes of a figure are called."""


def axis_titles(figure):
    """The titles of all x axes, and those of all y axes; axes without one left out."""
    return tuple(
        {axis.title.text for axis in axes if axis.title.text}
        for axes in (figure.select_xaxes(), figure.select_yaxes())
    )
