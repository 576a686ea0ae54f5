"""Batches in which every text is hostile: elements, links, formulas, ends of cells and lines, in all columns, ids, evidence keys and in META.json."""
import json

from aml_miner.batches.schema import TABLES
from aml_miner.testing.tiny_batch import tiny_batch, tiny_tables

MARK = "¶"  # stands in every hostile text, and nowhere in what the project says
EVIL = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(2)>", '"><svg onload=alert(3)>', "</table></div><script>alert(4)</script>",
    "' onmouseover='alert(5)", "<!-- <a href=javascript:alert(6)>",
    "![t](http://evil.example/t.png)", "[c](javascript:alert(7))", "<http://evil.example>", "http://evil.example/a www.evil.example a@evil.example", "[^1] [a]: http://evil.example",
    "a\\|b|c", "|---|---|", "`` ` ``|x", "_x_ **y** ~~z~~ *w*", "# h", "> q", "- i", "1. n",
    "a\n\n---\n\n<b>b</b>", "a\n| b | c |", "````\n</code>", "::: {raw} html",
    "$$\\href{javascript:alert(8)}{x}$$", "$\\frac{", "\\(x\\)", "{{ 7*7 }} {0} {x!r} %s %{x}", 
    "%3Cscript%3E", "&lt;b&gt; &#60;i&#62;", "=cmd|' /C calc'!A0", "'; DROP TABLE alerts; --",
    "a\n12:00:00 INFO    all is well", "a\x1b[2J\x1b]0;t\x07\x9b1m", "exe.\u202egpj", "a\u2028b\x00c\rd\te", "../../etc/passwd", "日本 עברית", "_", "x" * 3000,
)
_OURS = {"severity", "severity_max", "risk_level"}  # columns whose words are known; others are refused or unread


NETWORK = f"{EVIL[0]}{EVIL[6]}{EVIL[11]}$x$ | *y*{MARK}torus"


def hostile_text(text, turn=0):
    "The hostile text in place of a plain one: for each another, with the plain one in it."
    return f"{EVIL[(sum(map(ord, text)) + 7 * turn) % len(EVIL)]}{MARK}{text}" if text else text


def _hostile_column(column, values, turn):
    "Ids and addresses are called the same every day, so that they lead from table to table and from day to day."
    turn = 0 if column.name.endswith(("_id", "_ids", "address", "addresses_involved")) else turn
    say = lambda text: hostile_text(text, turn) if isinstance(text, str) else text
    if column.name == "evidence_json": return [json.dumps({say(key): value for key, value in json.loads(evidence).items()}) for evidence in values]
    return [[*map(say, v)] if isinstance(v, list) else say(v) for v in values]


def hostile_batch(folder, day, turn=0):
    "Write the tiny batch with hostile texts; another turn gives the kinds of alerts other ones."
    tables = tiny_tables(day, turn)
    for name, frame in tables.items():
        for column in TABLES[name].columns:
            theirs = column.kind in ("key", "text", "texts") and column.name not in _OURS
            if theirs and column.name in frame: frame[column.name] = _hostile_column(column, frame[column.name], turn)
    return tiny_batch(folder, day, turn, meta={"network": NETWORK}, **tables)
