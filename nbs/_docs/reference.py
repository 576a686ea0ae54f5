"""Pages that are written from the code: commands, settings, tables, reports."""
import ast
import contextlib
import importlib
import io
import json
import os
from pathlib import Path
import re
import types
import typing

import about
from api import code, escaped, table
import dictionary
from execute import ROOT

from aml_miner.cli.tree import COMMANDS, EXIT_CODES, NAME
from aml_miner.utils.command_line import OLD_SPELLINGS, command_app, run_command

HERE = Path(__file__).resolve().parent
PACKAGES = (  # each imports from those before it alone
    "utils", "config", "compute", "batches", "transactions", "simulation", "features", "evaluation", "monitoring",
    "models", "review", "conversion", "training", "scoring", "testing", "tuning", "exploration", "submission", "morning", "datasets", "service", "cli",
)


def package_words(package):
    "What a package is, as it says of itself."
    return ast.get_docstring(ast.parse((ROOT / "aml_miner" / package / "__init__.py").read_text(encoding="utf-8")))


# Commands

def module_commands():
    "Function -> how Python runs it by itself, such as `python -m aml_miner.scoring.compare`."
    found = {}
    for name in command_modules():
        module = importlib.import_module(name)
        kept, module.run_command = module.run_command, lambda function, typed, argv: found.update({function: typed}) or 0
        try: module.main([])
        finally: module.run_command = kept
    return found


def command_modules():
    "Modules that are a command by themselves."
    is_command = re.compile(r'^if __name__ == "__main__" and', flags=re.M)
    files = [p for p in sorted((ROOT / "aml_miner").rglob("*.py")) if is_command.search(p.read_text(encoding="utf-8"))]
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files]


def tree_commands():
    "How it is typed below `aml-miner` -> the function."
    places = {typed: place.partition(":") for typed, place in COMMANDS.items()}
    return {f"{NAME} {typed}": getattr(importlib.import_module(module), function) for typed, (module, _, function) in places.items()}


def arguments_of(function):
    "The options of a command, as cyclopts reads them."
    return list(command_app("x", function).assemble_argument_collection(parse_docstring=True))


def option_names(function):
    "The names of its options, with those that they once had."
    names = {n for a in arguments_of(function) for n in a.names}
    return names | {old for old, now in OLD_SPELLINGS.items() if now in names}


def type_of(hint):
    "What an option takes, in a word; None where it takes nothing."
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union: hint = typing.get_args(hint)[0]
    if hint is bool: return None
    if typing.get_origin(hint) is typing.Literal: return f"one of {', '.join(code(str(c)) for c in typing.get_args(hint))}"
    if typing.get_origin(hint) is list: return f"{type_of(typing.get_args(hint)[0])} (one or more)"
    return code({"str": "TEXT"}.get(hint.__name__, hint.__name__.upper()))


def option_row(argument):
    known = argument.field_info.default
    default = "**required**" if argument.required else "" if known in (None, False) or known is argument.field_info.empty else code(str(known))
    said = re.sub(r"(?<![\w`])--[a-z][\w-]*", r"`\g<0>`", argument.parameter.help or "")
    return [code(argument.name), type_of(argument.hint) or "", default, escaped(said)]


def help_head(typed, function):
    "The usage of a command, as `--help` gives it."
    with contextlib.redirect_stdout(io.StringIO()) as said: run_command(function, typed, ["--help"])
    return re.sub(r"\n(?=\S)", "\n    ", said.getvalue().split("\n\n")[0].removeprefix("Usage: ").strip())


def commands_page():
    modules = module_commands()
    parts = ["# Commands\n\nOne command, `aml-miner`, also as `python -m aml_miner`; `--help` says the same as this page, and `aml-miner completion bash` "
             f"(or zsh, fish) prints what completes it in a shell.\n\n{escaped(EXIT_CODES)}\n\n"
             "What an option was called before still works: " + ", ".join(f"{code(old)} is {code(now)}" for old, now in OLD_SPELLINGS.items()) + ".\n"]
    alone = {typed: f for f, typed in modules.items() if f not in tree_commands().values()}
    for typed, function in {**tree_commands(), **alone}.items():
        same = f"\n\nAlso {code(modules[function])}." if function in modules and typed != modules[function] else ""
        rows = [option_row(a) for a in arguments_of(function)]
        words = escaped((function.__doc__ or "").split("\n\n")[0])
        options = table(["option", "takes", "default", "what it is"], rows)
        parts.append(f"## {typed}\n\n{words}{same}\n\n```text\n{help_head(typed, function)}\n```\n\n{options}")
    return "\n".join(parts)


# Settings

TYPE_WORDS = {"number": "number", "integer": "integer", "string": "text", "boolean": "true or false", "null": "null", "object": "section"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def type_words(schema, whole):
    "A JSON schema in words."
    if "$ref" in schema: return type_words(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in schema: return " or ".join(dict.fromkeys(type_words(s, whole) for s in schema["anyOf"]))
    if "allOf" in schema: return type_words(schema["allOf"][0], whole)
    if "const" in schema: return code(str(schema["const"]))
    if "enum" in schema: return ", ".join(code(str(v)) for v in schema["enum"])
    if schema.get("type") == "array":
        inner = schema.get("items") or {"anyOf": schema.get("prefixItems", [])}
        return "list of " + re.sub(r"^(number|integer|text)\b", r"\1s", type_words(inner, whole)) if inner.get("anyOf", True) else "list"
    words = TYPE_WORDS.get(schema.get("type"), "")
    if "properties" in schema: return ", ".join(map(code, schema["properties"]))
    limits = [f"{sign} {schema[key]:,}".removesuffix(".0") for key, sign in LIMITS.items() if key in schema]
    return f"{words} {', '.join(limits)}".strip()


def yaml_comments(text):
    "Path of a key -> the comment beside it, of the packaged YAML."
    stack, found = [], {}
    for line in text.splitlines():
        m = re.match(r"^( *)([\w]+):(.*)$", line)
        if not m: continue
        depth = len(m[1])
        stack = [(d, n) for d, n in stack if d < depth] + [(depth, m[2])]
        said = re.search(r"\s#\s*(.+)$", m[3])
        found[".".join(n for _, n in stack)] = said[1].strip() if said else ""
    return found


def yaml_words(value):
    "A value as the file has it."
    if isinstance(value, dict): return ", ".join(f"{k}: {yaml_words(v)}" for k, v in value.items())
    if isinstance(value, list): return ", ".join(map(yaml_words, value))
    return {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)


def setting_rows(schema, values, whole, comments, path):
    "(key, default, type, comment), the sections of a section below it."
    rows, below = [], []
    for key, inner in schema["properties"].items():
        resolved = whole["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        here = f"{path}.{key}"
        if "properties" in resolved and isinstance(values.get(key), dict) and key not in ("low", "high"):
            below.append((here, resolved, values[key]))
            continue
        rows.append([code(key), code(yaml_words(values.get(key))), type_words(inner, whole), escaped(comments.get(here, ""))])
    return rows, below


def configuration_page():
    import yaml
    from aml_miner.config.model_config import ModelConfig, default_config_path
    text = (ROOT / "aml_miner" / "config" / "model_config.yaml").read_text(encoding="utf-8")
    values, comments, whole = yaml.safe_load(text), yaml_comments(text), ModelConfig.model_json_schema()
    assert default_config_path().name == "model_config.yaml"
    parts = ["# Settings\n\nThe defaults of every notebook and command, with the limits of each. "
             "`--config my.yaml` takes a file of this form with only the keys that differ; "
             "an unknown key or a value out of its range is refused by name. {doc}`/howto/parameters` shows how.\n"]
    queue = [(name, whole["$defs"][ref["$ref"].rpartition("/")[2]], values[name]) for name, ref in whole["properties"].items()]
    while queue:
        path, schema, given = queue.pop(0)
        rows, below = setting_rows(schema, given, whole, comments, path)
        said = comments.get(path) or schema.get("description", "")
        parts.append(f"{'#' * (2 + path.count('.'))} {path}\n\n{escaped(said)}\n\n{table(['key', 'default', 'allowed', 'what it is'], rows)}")
        queue = below + queue
    return "\n".join(parts)


# Tables

KIND_WORDS = {
    "key": "text that names a row", "text": "text", "texts": "list of texts", "date": "date", "usd": "US dollars",
    "number": "number", "numbers": "list of numbers", "count": "whole number", "flag": "0, 1 or null"}


def tables_page():
    from aml_miner.batches.schema import KINDS, SEVERITIES, TABLES
    parts = ["# Tables of a batch\n\nA batch is a folder of parquet files: one processing date of one network and one look-back window. "
             "Columns may come in the types that are accepted below and under "
             f"the other names; severities are {', '.join(SEVERITIES)}, in any case. What a batch lacks beyond the required columns is read as unknown. "
             "{doc}`/tutorials/your_batches` goes through it.\n"]
    kinds = [[KIND_WORDS[k], code(target), ", ".join(code(a.lower()) for a in accepted)] for k, (target, accepted) in KINDS.items()]
    for t in TABLES.values():
        meanings = dictionary.column_meanings(t.name, t.names())
        rows = [[code(c.name), KIND_WORDS[c.kind], meanings[c.name], "yes" if c.required else "", ", ".join(code(a) for a in c.aliases)] for c in t.columns]
        key = f" A row is named by {', '.join(code(k) for k in t.key)}." if t.key else ""
        line = f"`{t.file}`, {'required' if t.required else 'optional'}; {len(t.columns)} columns.{key}"
        parts.append(f"## {t.name}\n\n{line}\n\n{table(['column', 'holds', 'what it is', 'required', 'also read as'], rows)}")
    types = table(["holds", "type after reading", "accepted in the file"], kinds)
    parts.append(f"## Types\n\nWhat a column may be in the file, and what it is after reading; another type is refused.\n\n{types}")
    return "\n".join(parts)


# Reports

def report_lines():
    "(heading, [(pattern, meaning, whether some reports lack it)]) of report_keys.txt."
    parts = []
    for line in (HERE / "report_keys.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "): parts.append((line[3:], []))
        elif line and not line.startswith("#"):
            pattern, meaning = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            parts[-1][1].append((pattern.removesuffix("?"), meaning, pattern.endswith("?")))
    return parts


def report_paths(value, path=""):
    "Every key of a report, as deep as it goes: (path, value)."
    if isinstance(value, dict):
        for key, inner in value.items(): yield from report_paths(inner, f"{path}\x00{key}" if path else key)
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        for inner in value: yield from report_paths(inner, path + "[]")
    else: yield path, value


def report_values(report):
    "Path -> a value of every key; the first that is not null, where a list repeats the key."
    found = {}
    for path, value in report_paths(report):
        if found.get(path) is None: found[path] = value
    return found


def pattern_of(text):
    "A line's pattern as a regular expression; keys are parted by NUL, as a key may hold a dot."
    parts = re.split(r"(<\w+>|\.\*\*$|\.)", text)
    words = {".": "\x00", ".**": "(?:\\[\\])?(?:\x00.*)?"}
    return re.compile("".join("[^\x00]+" if p.startswith("<") else words.get(p) or re.escape(p) for p in parts), flags=re.S)


def short_numbers(value):
    "Four digits say what kind of number it is."
    if isinstance(value, list): return [short_numbers(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def example_of(values):
    "A short value, for the table."
    text = next((json.dumps(short_numbers(v), ensure_ascii=False) for v in values if v is not None), "null")
    return text if len(text) <= 20 else text[:18] + "…"


def reports_page():
    parts, lines = ["# Reports\n\nBeside each model `<name>.txt` stands its report `<name>.json`; "
                    "the model card `<name>.md` says the same to whoever answers for the model. "
                    "The keys below are those of the reports in `trained_models/`, with a value from the first that has the key: "
                    "*R* the alert ranker's, *S* the alert scorer's, *C* the cluster scorer's. {doc}`/howto/report` shows how to read one.\n"], report_lines()
    reports = {letter: report_values(json.loads((ROOT / "trained_models" / f"{name}.json").read_text(encoding="utf-8")))
               for letter, name in (("R", "alert_ranker"), ("S", "alert_scorer"), ("C", "cluster_scorer"))}
    known = [pattern_of(p) for _, rows in lines for p, _, _ in rows]
    unknown = sorted({path.replace("\x00", ".") for found in reports.values() for path in found if not any(k.fullmatch(path) for k in known)})
    if unknown: raise SystemExit(f"report_keys.txt does not explain: {', '.join(unknown[:20])}")
    for heading, rows in lines:
        shown = []
        for text, meaning, rare in rows:
            pattern = pattern_of(text)
            have = {letter: [v for path, v in found.items() if pattern.fullmatch(path)] for letter, found in reports.items()}
            if not rare and not any(have.values()): raise SystemExit(f"report_keys.txt explains {text}, which no report has")
            value = "" if text.endswith("**") or not any(have.values()) else code(example_of([v for vs in have.values() for v in vs]))
            key, letters = f"{text.removesuffix('.**')}…" if text.endswith("**") else text, " ".join(letter for letter, vs in have.items() if vs)
            shown.append([code(key), value, letters, meaning if "{doc}" in meaning else escaped(meaning)])
        parts.append(f"## {heading}\n\n{table(['key', 'such as', 'of', 'what it means'], shown)}")
    return "\n".join(parts)


# Benchmarks

def benchmarks_page():
    "What the scripts of benchmarks/ printed, with what each says of itself."
    parts = ["# Benchmarks\n\nWhat the scripts in `benchmarks/` printed, each with the command that made it; "
             "`python nbs/_docs/benchmarks/record.py` makes these tables anew. "
             "They were taken on two shared cores: CPU seconds tell more than seconds. No test is timed.\n"]
    kept = {p.stem: p.read_text(encoding="utf-8") for p in sorted((HERE / "benchmarks").glob("*.txt"))}
    scripts = {p.stem: ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) or "" for p in sorted((ROOT / "benchmarks").glob("*.py"))}
    for name, text in kept.items(): parts.append(f"## {name}\n\n{escaped(scripts[name].splitlines()[0])}\n\n```console\n{text.rstrip()}\n```\n")
    rest = [f"| `benchmarks/{n}.py` | {escaped(words.splitlines()[0])} |" for n, words in scripts.items() if n not in kept and words]
    why = "These take longer, or need data that the project does not hold; `make benchmarks` runs all."
    if rest: parts.append(f"## Not kept here\n\n{why}\n\n" + "\n".join(["| script | what it prints |", "| --- | --- |", *rest]) + "\n")
    return "\n".join(parts)


def modules_page():
    lines = "\n".join(f"- {{doc}}`/{p}/contents`: {package_words(p)}" for p in PACKAGES)
    intro = ("The path of a notebook is the path of its module: `nbs/features/feature_builder.ipynb` exports `aml_miner.features.feature_builder`. "
             "A package imports only from those before it in this list.")
    numbered = "The numbered {doc}`/notebooks` export nothing: they run what is described here, and show results."
    pages = "\n".join(f"/{p}/contents" for p in PACKAGES)
    return f"# Modules\n\n{intro}\n\n{lines}\n\n{numbered}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def written_pages():
    "name -> Markdown, of every page that is written from the code."
    os.environ["COLUMNS"] = "78"  # a usage fits the screen
    return {
        "reference/commands": commands_page(), "reference/configuration": configuration_page(), "reference/tables": tables_page(),
        "reference/reports": reports_page(), "reference/modules": modules_page(), "benchmarks": benchmarks_page(),
        **dictionary.written_pages(), **about.written_pages()}
