"""Figures drawn once more for a phone: as wide as its screen, panels below each other, legends below the axes, long texts on several lines."""
from base64 import b64encode
from copy import deepcopy
from io import BytesIO
import re
from textwrap import fill

from IPython.core.formatters import BaseFormatter
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator
from traitlets import Unicode

KIND = "image/png;width=phone"  # under which a notebook keeps such a picture beside the usual one
WIDTH, DPI = 3.7, 200  # inches, of 100 CSS pixels each
TITLE, NAME = 46, 24  # characters of a line: of a title, of a name beside an axis
PANEL, LOW = 2.6, 1.7  # inches; panels narrower than the first stand below each other, and are as low as the second where they are many
TICKS = 6  # names or dates along the lower edge, at most


def draw_for_phone(figure):
    "The figure as a narrow picture, base64; None for one that is narrow anyway."
    if figure.get_figwidth() <= WIDTH: return None
    narrow = deepcopy(figure)
    plt.close(narrow)  # a copy is no figure of the cell
    grid = _stack(narrow)
    names = sum(_break_names(ax.yaxis) for ax in narrow.axes)
    height = narrow.get_figheight() * grid * (1.25 if names else 1)
    narrow.set_size_inches(WIDTH, height + _legends_below(narrow))
    for ax in narrow.axes: _thin_ticks(ax.xaxis)
    _break_texts(narrow)
    file = BytesIO()
    narrow.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    return b64encode(file.getvalue()).decode()


def _stack(figure):
    "Panels side by side go below each other where they would be too narrow. Returns how many times as high that makes the figure."
    placed = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    columns = max((ax.get_subplotspec().get_gridspec().ncols for ax in placed), default=1)
    if columns == 1 or WIDTH / columns >= PANEL: return 1
    shown = [ax for ax in placed if ax.axison or ax.has_data() or ax.texts]
    for ax in placed:
        if ax not in shown: ax.remove()
    rows = placed[0].get_subplotspec().get_gridspec().nrows
    grid = figure.add_gridspec(len(shown), 1)
    for i, ax in enumerate(shown):
        if shared := ax.get_subplotspec().colspan.start and not ax.yaxis.get_label_text(): ax.set_ylabel(shown[0].get_ylabel())
        ax.set_subplotspec(grid[i, 0])
        ax.tick_params(labelleft=ax.axison, labelbottom=ax.axison)
        if shared and not ax.axison: ax.set_ylabel("")
    high = figure.get_figheight() / rows
    return len(shown) / rows * (min(1, LOW / high) if len(shown) > 4 else 1)


def _lines(text, width):
    "Text on lines of so many characters; a long name breaks behind an underscore or a dot."
    return "\n".join(fill(line, width) if " " in line else _name_lines(line, width) for line in text.splitlines())


def _name_lines(name, width): return fill(re.sub(r"([_.])(?=[a-z])", r"\1 ", name), width).replace("_ ", "_").replace(". ", ".")


def _break_names(axis):
    "Names beside the rows of a figure on several lines. Returns whether any is long."
    names = [tick.get_text() for tick in axis.get_ticklabels()]
    if not any(len(name) > NAME for name in names): return False
    axis.set_ticks(axis.get_ticklocs(), [_lines(name, NAME) for name in names], fontsize=7.5)
    return True


def _thin_ticks(axis):
    "As many names or dates along an axis as there is room for."
    places, names = axis.get_ticklocs(), [tick.get_text() for tick in axis.get_ticklabels()]
    named = any(any(c.isalpha() for c in name) or name.count("-") == 2 for name in names)
    if named: axis.set_tick_params(labelsize=8)
    if isinstance(axis.get_major_locator(), AutoDateLocator):
        axis.set_major_locator(AutoDateLocator(minticks=2, maxticks=4))
        axis.set_major_formatter(DateFormatter("%d %b"))
    if not named or len(places) <= TICKS or not isinstance(axis.get_major_locator(), FixedLocator): return
    step = -(-len(places) // TICKS)
    axis.set_ticks(places[::step], names[::step])


def _legends_below(figure):
    "Legends beside the axes, or of many names, go below the figure. Returns the inches that this takes."
    found = [(legend, True) for legend in figure.legends]
    for ax in figure.axes:
        if legend := ax.get_legend(): found.append((legend, legend.get_window_extent().x1 > ax.bbox.x1 + 1))
    taken, told = 0, set()
    for legend, outside in found:
        names = (*(text.get_text() for text in legend.get_texts()),)
        if not outside and len(names) < 3: continue
        if legend in figure.legends: figure.legends.remove(legend)
        else: legend.remove()
        if names in told: continue
        told.add(names)
        columns = 1 if max(map(len, names)) > 20 else 2
        figure.legend(legend.legend_handles, names, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
        taken += .2 * -(-len(names) // columns) + .1
    return taken


def _break_texts(figure):
    "Titles, labels and notes on lines that fit; the title of the only axes begins at the left edge of the figure."
    if text := figure.get_suptitle(): figure.suptitle(fill(text, TITLE), x=.01, ha="left", fontsize=10)
    for note in [*figure.texts, *(note for ax in figure.axes for note in ax.texts)]:
        if note is not figure._suptitle: note.set_text(_lines(note.get_text(), TITLE + 8))
    for ax in figure.axes:
        ax.set_xlabel(_lines(ax.get_xlabel(), TITLE - 4))
        title = ax.get_title(loc="left") or ax.get_title()
        if not title: continue
        ax.set_title(""); ax.set_title("", loc="left")
        if len(figure.axes) == 1: figure.suptitle(fill(title, TITLE), x=.01, ha="left", fontsize=10)
        else: ax.set_title(_lines(title, TITLE - 6), loc="left", fontsize=9.5)


class _PhoneFormatter(BaseFormatter):
    format_type = Unicode(KIND)

    def __call__(self, obj): return draw_for_phone(obj) if isinstance(obj, Figure) else None


def draw_also_for_phones(shell: InteractiveShell):
    "Beside each picture of a figure that this shell shows stands one for a phone."
    shell.display_formatter.formatters[KIND] = _PhoneFormatter(parent=shell.display_formatter)
