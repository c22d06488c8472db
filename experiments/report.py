"""The report: one page of HTML that needs no other file."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping
from html import escape
from pathlib import Path

import torch

import exodus_core as ec

from .files import replace
from .settings import Outcome, Settings, Table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; color: #111 }
h1 { line-height: 1.2 } h2 { margin-top: 3rem; line-height: 1.25 }
figure { margin: 1.5rem 0 } img { width: 100%; height: auto }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.caption { margin: 1.5rem 0 .4rem; color: #444 }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #111 }
nav li { margin: .2rem 0 } .facts { color: #444 }
"""


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
    # The caption is outside of the part that scrolls on a narrow screen.
    caption = f'<p class="caption">{escape(table.title)}</p>'
    return f'{caption}\n<div class="wide"><table>{body}</table></div>'


def _picture(path: Path, title: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{content}"></figure>'


def _section(name: str, outcome: Outcome) -> str:
    parts = [f'<h2 id="{escape(name)}">{escape(outcome.title)}</h2>']
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in outcome.text]
    parts += [_picture(path, outcome.title) for path in outcome.figures]
    parts += [_table(table) for table in outcome.tables]
    return "\n".join(parts)


def write_report(settings: Settings, outcomes: Mapping[str, Outcome]) -> Path:
    """Write the page.

    Parameters
    ----------
    settings : Settings
        The choices of the run.
    outcomes : mapping of str to Outcome
        The results, by the name of the experiment.

    Returns
    -------
    Path
        The page, report.html.
    """
    links = "\n".join(
        f'<li><a href="#{escape(name)}">{escape(outcome.title)}</a></li>'
        for name, outcome in outcomes.items()
    )
    size = "a quick run, much smaller than the paper's" if settings.quick else "the paper's settings"
    data = "recordings" if settings.data else "synthetic stand-ins for all recordings (no --data)"
    facts = (
        f"{size}; {data}; exodus_core {ec.__version__}, torch {torch.__version__}, device {settings.device}, "
        f"{platform.machine()}, instruction set {ec.isa()}"
    )
    sections = "\n".join(_section(name, outcome) for name, outcome in outcomes.items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>EXODUS: tables and figures</title><style>{_STYLE}</style></head>
<body><h1>EXODUS: the paper's tables and figures, computed with exodus_core</h1>
<p class="facts">{escape(facts)}</p>
<nav><ul>{links}</ul></nav>
{sections}
</body></html>
"""
    path = settings.out / "report.html"
    replace(path, lambda draft: draft.write_text(page, encoding="utf-8"))
    return path
