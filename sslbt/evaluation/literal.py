"""Names in figures as they are."""

from matplotlib.figure import Figure
from matplotlib.text import Text


def literal(figure: Figure) -> Figure:
    """The same figure, in whose texts two dollars are no formula: names of classes, files and patients may hold some.

    Axes with logarithmic ticks are not for it: these are formulas.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure
