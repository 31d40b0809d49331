"""How an e-mail looks: one page of paragraphs, facts and commands, written as plain text and as HTML.

The HTML is what mail clients of every age show alike: tables, styles at the elements, fonts that are there, and nothing
that is fetched, so that opening it tells nobody anything.
"""

from dataclasses import dataclass
from functools import lru_cache
from html import escape

LONGEST_SUBJECT = 120
LONGEST_VALUE = 500
_REMEMBERED = 4096
"""Of what thousands of e-mails say, most is the same."""

_FONT = "font-family:-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_MONOSPACE = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono',monospace"
_HTML = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="format-detection" content="telephone=no, date=no, address=no, email=no">
<title>{title}</title>
</head>
<body style="margin:0;padding:0;background:#f3f4f6">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0" style="background:#f3f4f6">
<tr><td align="center" style="padding:32px 12px">
<table role="presentation" width="560" cellpadding="0" cellspacing="0" border="0" \
style="width:100%;max-width:560px;background:#ffffff;border:1px solid #e1e4e8;border-radius:8px;text-align:left">
<tr><td style="padding:32px 32px 24px;{font};font-size:16px;line-height:24px;color:#1f2328">
<h1 style="margin:0 0 16px;font-size:22px;line-height:30px;font-weight:600">{title}</h1>
{body}
</td></tr>
</table>
<table role="presentation" width="560" cellpadding="0" cellspacing="0" border="0" \
style="width:100%;max-width:560px;text-align:left">
<tr><td style="padding:16px 32px;{font};font-size:13px;line-height:20px;color:#59636e">{footer}</td></tr>
</table>
</td></tr>
</table>
</body>
</html>
"""
_PARAGRAPH = '<p style="margin:0 0 16px">{}</p>'
_FACTS = (
    '<table role="presentation" width="100%" cellpadding="0" cellspacing="0" border="0" '
    'style="margin:0 0 20px;border-top:1px solid #e1e4e8">\n{}\n</table>'
)
_FACT = (
    '<tr><td valign="top" style="padding:8px 16px 8px 0;border-bottom:1px solid #e1e4e8;font-size:14px;'
    'line-height:20px;color:#59636e;white-space:nowrap">{}</td>'
    '<td valign="top" style="padding:8px 0;border-bottom:1px solid #e1e4e8;font-size:14px;line-height:20px;'
    'width:100%;word-break:break-word;overflow-wrap:anywhere">{}</td></tr>'
)
_COMMANDS = (
    '<pre style="margin:0 0 16px;padding:12px 16px;background:#f3f4f6;border-radius:6px;font-size:13px;'
    'line-height:20px;white-space:pre-wrap;overflow-wrap:anywhere;{font}">{commands}</pre>'
)


@dataclass(frozen=True)
class Content:
    """What an e-mail says. `subject` is one line; `text` and `html` say the same."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True)
class Page:
    """What is to be said, before it is text or HTML: every part of it may hold what strangers wrote."""

    subject: str
    title: str
    opening: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    footer: str
    commands: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()


def render(page: Page) -> Content:
    """Write a page in both forms."""
    facts = tuple((one_line(label), one_line(value)) for label, value in page.facts)
    return Content(
        subject=one_line(page.subject, longest=LONGEST_SUBJECT), text=_text(page, facts), html=_html(page, facts)
    )


@lru_cache(maxsize=_REMEMBERED)
def one_line(text: str, *, longest: int = LONGEST_VALUE) -> str:
    """Return text as one line: no control characters, none that turn the direction of reading, not longer than this."""
    printable = text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(printable.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _text(page: Page, facts: tuple[tuple[str, str], ...]) -> str:
    width = max(map(len, dict(facts)), default=0)
    parts = [one_line(page.title), *map(one_line, page.opening)]
    if facts:
        parts.append("\n".join(f"{label:<{width}}  {value}" for label, value in facts))
    if page.commands:
        parts.append("\n".join(f"    {one_line(command)}" for command in page.commands))
    parts += [*map(one_line, page.closing), f"-- \n{one_line(page.footer)}"]
    return "\n\n".join(parts) + "\n"


def _html(page: Page, facts: tuple[tuple[str, str], ...]) -> str:
    parts = [_PARAGRAPH.format(_escaped(words)) for words in page.opening]
    if facts:
        rows = (_FACT.format(_escaped(label), _escaped(value)) for label, value in facts)
        parts.append(_FACTS.format("\n".join(rows)))
    if page.commands:
        commands = "\n".join(_escaped(command) for command in page.commands)
        parts.append(_COMMANDS.format(font=_MONOSPACE, commands=commands))
    parts += [_PARAGRAPH.format(_escaped(words)) for words in page.closing]
    return _HTML.format(title=_escaped(page.title), body="\n".join(parts), footer=_escaped(page.footer), font=_FONT)


@lru_cache(maxsize=_REMEMBERED)
def _escaped(words: str) -> str:
    return escape(one_line(words))
