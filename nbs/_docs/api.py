"""What the source of a function says of itself: its signature, and a table of its parameters from the comments beside them."""
import ast
import io
import re
import tokenize


def comments_of(source):
    "Line number -> the comment on it."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def escaped(text):
    "Plain words as Markdown; what stands in backticks stays."
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_$<>\[\]{}#])", r"\\\1", p) for p in parts).replace("|", "\\|")


def code(text):
    "Code within a table's cell."
    return f"`{text}`".replace("|", "\\|") if text else ""


def arguments(node):
    "(name as called, annotation, default) of every argument."
    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)
    rows = [(x, x.arg, d) for x, d in zip(plain, defaults)]
    if a.vararg: rows.append((a.vararg, "*" + a.vararg.arg, None))
    rows += [(x, x.arg, d) for x, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: rows.append((a.kwarg, "**" + a.kwarg.arg, None))
    return [(x, name, ast.unparse(x.annotation) if x.annotation else "", "" if d is None else ast.unparse(d)) for x, name, d in rows]


class Unquoted(ast.NodeTransformer):
    "Types that are named before they exist stand in quotes; for a reader they go."
    def visit_Constant(self, node): return ast.copy_location(ast.parse(node.value, mode="eval").body, node) if isinstance(node.value, str) else node
    def visit_Subscript(self, node): return node if ast.unparse(node.value) == "Literal" else self.generic_visit(node)
    def visit_Call(self, node): return node  # as Field(pattern=...): a text in it is no type


def without_quotes(tree):
    "The same code with plain names in its annotations."
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(node, field, None): setattr(node, field, Unquoted().visit(getattr(node, field)))
    return tree


def signature(node):
    "The argument list and the return type, without comments."
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


def kind_and_default(kind, default):
    "The second cell of a table of parameters."
    return " ".join(filter(None, [code(kind), f"default {code(default)}" if default else ""]))


def parameter_rows(node, comments):
    "(name, type and default, comment) of the arguments, and of what is returned."
    rows = []
    for x, name, kind, default in arguments(node):
        if name in ("self", "cls"): continue
        comment = comments.get(x.end_lineno, "") if x.lineno != node.lineno else ""
        rows.append((name, kind_and_default(kind, default), comment))
    comment = comments.get(node.returns.end_lineno, "") if node.returns else ""
    if node.returns and (comment or ast.unparse(node.returns) != "None"): rows.append(("returns", code(ast.unparse(node.returns)), comment))
    return rows


def table(head, rows):
    "A Markdown table; a column that says nothing is left out, and with it a table of names alone."
    kept = [i for i in range(len(head)) if any(r[i] for r in rows)]
    if len(kept) < 2: return ""
    return "\n".join(f"| {' | '.join(r[i] for i in kept)} |" for r in [head, ["---"] * len(head), *rows]) + "\n"


def parameter_table(rows):
    return table(["parameter", "type", "what it is"], [[code(n) if n != "returns" else "*returns*", kind, escaped(comment)] for n, kind, comment in rows])


def field_rows(node, comments):
    "(name, type and default, comment) of the fields of a dataclass or a pydantic model."
    fields = [s for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name) and not s.target.id.startswith("_")]
    return [(s.target.id, kind_and_default(ast.unparse(s.annotation), ast.unparse(s.value) if s.value else ""), comments.get(s.end_lineno, "")) for s in fields]


def directive(kind, name, module, *body, colons=3, options=""):
    fence = ":" * colons
    return f"{fence}{{py:{kind}}} {name}\n:module: {module}\n{options}\n" + "\n\n".join(b for b in body if b) + f"\n{fence}\n"


def function_entry(node, comments, module, kind="function", prefix="", colons=3):
    decorators = {ast.unparse(d) for d in node.decorator_list}
    options = "".join(f":{o}:\n" for o, d in (("staticmethod", "staticmethod"), ("classmethod", "classmethod")) if d in decorators)
    if "property" in decorators or "cached_property" in decorators:
        returns = f":type: {ast.unparse(node.returns)}\n" if node.returns else ""
        return directive("property", prefix + node.name, module, escaped(ast.get_docstring(node) or ""), colons=colons, options=returns)
    args = signature(node)
    if kind == "method": args = re.sub(r"^\((self|cls)(, )?", "(", args)
    words, parameters = escaped(ast.get_docstring(node) or ""), parameter_table(parameter_rows(node, comments))
    return directive(kind, prefix + node.name + args, module, words, "", parameters, colons=colons, options=options)


def class_entry(node, comments, module):
    methods = [m for m in node.body if isinstance(m, (ast.FunctionDef, ast.AsyncFunctionDef))]
    init = next((m for m in methods if m.name == "__init__"), None)
    args = re.sub(r"^\(self(, )?", "(", signature(init)).removesuffix(" -> None") if init else ""
    rows = [r for r in parameter_rows(init, comments) if r[0] != "returns"] if init else field_rows(node, comments)
    shown = [m for m in methods if not m.name.startswith("_") or m.name == "__call__"]
    bases = f"Bases: {', '.join(code(ast.unparse(b)) for b in node.bases)}\n" if node.bases else ""
    methods = [function_entry(m, comments, module, "method", f"{node.name}.", 4) for m in shown]
    return directive("class", node.name + args, module, escaped(ast.get_docstring(node) or ""), "", bases, parameter_table(rows), *methods, colons=5)


def entries(source, module):
    "Markdown for the public functions and classes of a cell, in their order."
    comments = comments_of(source)
    parts = []
    for node in without_quotes(ast.parse(source)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name.startswith("_"): continue
        if isinstance(node, ast.FunctionDef): parts.append(function_entry(node, comments, module))
        elif isinstance(node, ast.ClassDef): parts.append(class_entry(node, comments, module))
    return "\n".join(parts)
