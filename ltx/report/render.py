"""Tables as text: markdown for reading, LaTeX for papers."""

from collections.abc import Sequence
from textwrap import dedent

from ltx.report import escape
from ltx.report.tables import Section, Sheet


def as_markdown(sheet: Sheet) -> list[str]:
    """A table as lines of markdown."""
    ruler = ["---"] * sheet.left + ["---:"] * (len(sheet.columns) - sheet.left)
    head, *rows = ([escape.markdown(text) for text in row] for row in [list(sheet.columns), *sheet.rows])
    return [f"| {' | '.join(row)} |" for row in [head, ruler, *rows]]


def markdown(title: str, sections: Sequence[Section]) -> str:
    """A page: tables, each section's followed by what a reader must know."""
    page = [f"# {escape.markdown(title)}", ""]
    for sheets, captions in sections:
        for sheet in sheets:
            page += [f"## {escape.markdown(sheet.title)}", "", *as_markdown(sheet), ""]
        page += [*(f"- {escape.markdown(caption)}" for caption in captions), *([""] if captions else [])]
    return "\n".join(page)


def as_latex(title: str, sheet: Sheet, captions: Sequence[str]) -> str:
    """A table as a float of LaTeX, with the rules of booktabs and all that is to be known in its caption."""
    align = "l" * sheet.left + "r" * (len(sheet.columns) - sheet.left)
    heads, *rows = (" & ".join(map(escape.latex, row)) + r" \\" for row in [list(sheet.columns), *sheet.rows])
    caption = " ".join([f"{title}: {sheet.title}.", *captions])
    return dedent(
        r"""
        \begin{table}
          \centering
          \caption{%s}
          \begin{tabular}{%s}
            \toprule
            %s
            \midrule
            %s
            \bottomrule
          \end{tabular}
        \end{table}
        """
    ).lstrip() % (escape.latex(caption), align, heads, "\n    ".join(rows))


def latex(title: str, sections: Sequence[Section]) -> str:
    """Every table of a page as a float."""
    return "\n".join(as_latex(title, sheet, captions) for sheets, captions in sections for sheet in sheets)
