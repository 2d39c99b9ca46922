"""For mkdocs: every cell of a table bears the head of its column, which narrow screens show in front of it."""

import re
from typing import Any

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_HEAD = re.compile(r"<th[^>]*>(.*?)</th>", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td(?=[ >])")
_TAG = re.compile(r"<[^>]+>")


def labelled(html: str) -> str:
    """A page whose cells have the attribute ``data-label``; those of a column without a head have none."""

    def table(found: "re.Match[str]") -> str:
        heads = [_TAG.sub("", head).strip().replace('"', "&quot;") for head in _HEAD.findall(found.group(0))]
        return _ROW.sub(lambda row: _row(row.group(0), heads), found.group(0))

    return _TABLE.sub(table, html)


def _row(row: str, heads: list[str]) -> str:
    columns = iter(heads)

    def cell(found: "re.Match[str]") -> str:
        head = next(columns, "")
        return f'<td data-label="{head}"' if head else "<td"

    return _CELL.sub(cell, row)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Label the tables of a page."""
    return labelled(html)
