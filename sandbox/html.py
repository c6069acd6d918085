"""The few pieces of HTML that the sandbox's pages are made of. Everything given is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from starlette.responses import HTMLResponse

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8888; --good: #178a4c; --bad: #c0392b; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .35rem 0; }
.soft { color: GrayText; }
.notice { border-left: .25rem solid var(--good); padding: .35rem .75rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem .4rem 0; text-align: left;
  vertical-align: top; }
th { font-weight: 600; font-size: .85rem; color: GrayText; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .82rem; overflow-wrap: anywhere; }
.state { border: 1px solid var(--soft); border-radius: 1rem; padding: .05rem .55rem;
  font-size: .82rem; white-space: nowrap; }
.good { border-color: var(--good); color: var(--good); }
.bad { border-color: var(--bad); color: var(--bad); }
form { display: inline-flex; flex-wrap: wrap; gap: .4rem; align-items: end; margin: 0 .3rem 0 0; }
button, input, select { font: inherit; padding: .25rem .6rem; border-radius: .35rem;
  border: 1px solid var(--soft); }
button { cursor: pointer; }
label { display: grid; font-size: .8rem; color: GrayText; }
input[type=number] { width: 6rem; }
@media (max-width: 44rem) {
  thead { display: none; }
  tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0; }
  td, td.number { display: flex; gap: .75rem; border: 0; padding: .12rem 0; text-align: left; }
  td::before { content: attr(data-label); color: GrayText; flex: 0 0 6.5rem; font-size: .82rem; }
  td:empty { display: none; }
  button, input, select { padding: .45rem .8rem; }
}
"""


class Markup(str):
    """Text that is HTML already."""


def html(value: object) -> Markup:
    """The value as HTML; Markup is taken as it is."""
    return value if isinstance(value, Markup) else Markup(escape(str(value)))


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(map(html, parts)))


def element(tag: str, *content: object, **attributes: str) -> Markup:
    """`class_` and the like lose their underscore at the end, others become hyphens."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{written}>{joined(content)}</{tag}>")


def paragraph(*content: object) -> Markup:
    return element("p", *content)


def hidden(fields: Mapping[str, str]) -> Markup:
    return joined(
        Markup(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">')
        for name, value in fields.items()
    )


def button(action: str, text: str, fields: Mapping[str, str]) -> Markup:
    """A form of one button that POSTs `fields` to `action`, the page's own address if empty."""
    attributes = {"action": action} if action else {}
    return element("form", hidden(fields), element("button", text), method="post", **attributes)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> Markup:
    """Rows under their columns, one block a row on a narrow screen; `empty` where there is none.

    Columns whose name begins with `#` are numbers, aligned to the right.
    """
    body = [_row(columns, row) for row in rows]
    if not body:
        return element("p", empty, class_="soft")
    head = [_cell("th", column, column.lstrip("#")) for column in columns]
    return element("table", element("thead", element("tr", *head)), element("tbody", *body))


def show_page(title: str, *content: object, status: int = 200) -> HTMLResponse:
    """A page of its own, without anything from elsewhere."""
    head = joined(
        (
            Markup('<meta charset="utf-8">'),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", title),
            element("style", Markup(_STYLE)),
        )
    )
    body = element("body", element("h1", title), *content)
    return HTMLResponse(
        f"<!doctype html>\n{element('html', element('head', head), body, lang='en')}", status
    )


def _row(columns: Sequence[str], cells: Sequence[object]) -> Markup:
    return element(
        "tr",
        *(
            _cell("td", column, cell, data_label=column.lstrip("#"))
            for column, cell in zip(columns, cells, strict=True)
        ),
    )


def _cell(tag: str, column: str, content: object, **attributes: str) -> Markup:
    if column.startswith("#"):
        attributes["class_"] = "number"
    return element(tag, content, **attributes)
