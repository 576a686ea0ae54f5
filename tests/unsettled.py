"""Where the package asks a library for something whose last bits, or whose order of equals, depend on the processor or on the C library."""
import ast
import re

# No correctly rounded result is asked of these.
FUNCTIONS = set("""
    exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 power float_power pow cbrt hypot sin cos tan sinh cosh tanh arcsin arccos arctan arctan2
    arcsinh arccosh arctanh asin acos atan atan2 erf gamma lgamma gammaln expit logit softmax logsumexp sinc i0
""".split())
# Sums in the order of a BLAS kernel or of vector instructions.
PRODUCTS = set("dot vdot inner matmul tensordot einsum cov corrcoef corr polyfit lstsq convolve correlate multi_dot".split())
# exp and log of the C library stand behind these.
DRAWS = set("""
    normal standard_normal multivariate_normal lognormal exponential standard_exponential gamma standard_gamma beta dirichlet poisson binomial
    negative_binomial multinomial geometric hypergeometric pareto weibull laplace logistic gumbel zipf vonmises wald rayleigh triangular chisquare f
    standard_t standard_cauchy
""".split())
LIBRARIES = ("scipy", "sklearn", "optuna", "lightgbm")  # arithmetic of their own
SQL = re.compile(r"\b(ln|log|log2|log10|exp|pow|power|cbrt|sin|cos|tan|skewness|kurtosis|corr|covar_\w+|regr_\w+|entropy|geomean|gamma|lgamma)\(")


def _part(name):
    "A library, or the part of a large one."
    return ".".join(name.split(".")[:2]) if name.startswith(("scipy", "sklearn")) else name.split(".")[0]


def _names(node):
    "What an expression or import uses: texts such as `np.exp`, `**`, `SQL ln`, `argsort`."
    match node:
        case ast.Attribute(value=ast.Name(id="np" | "numpy" | "math" as module), attr=name) if name in FUNCTIONS | PRODUCTS: yield f"{module}.{name}"
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="linalg"), attr=name): yield f"np.linalg.{name}"
        case ast.Attribute(attr=name) if name in PRODUCTS | {"argpartition", "nlargest", "nsmallest"}: yield name
        case ast.BinOp(op=ast.MatMult()) | ast.AugAssign(op=ast.MatMult()): yield "@"
        case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=2)): return  # a product
        case ast.BinOp(op=ast.Pow(), left=ast.Constant(), right=ast.Constant() | ast.UnaryOp(operand=ast.Constant())): return  # a constant
        case ast.BinOp(op=ast.Pow()) | ast.AugAssign(op=ast.Pow()): yield "**"
        case ast.Call(func=ast.Attribute(attr="argsort"), keywords=keywords) if not any(k.arg == "kind" for k in keywords): yield "argsort"
        case ast.Call(func=ast.Attribute(attr="sort_values"), args=args, keywords=keywords):
            by = next((k.value for k in keywords if k.arg == "by"), args[0] if args else None)
            if not any(k.arg == "kind" for k in keywords) and not (isinstance(by, ast.List) and len(by.elts) > 1): yield "sort_values"
        case ast.Call(func=ast.Attribute(attr=name)) if name in DRAWS: yield f"rng.{name}"
        case ast.Import(names=names): yield from (_part(n.name) for n in names if n.name.split(".")[0] in LIBRARIES)
        case ast.ImportFrom(module=module, level=0, names=names) if module.split(".")[0] in LIBRARIES: yield from (_part(f"{module}.{n.name}") for n in names)
        case ast.ImportFrom(module="numpy" | "math" as module, names=names): yield from (f"{module}.{n.name}" for n in names if n.name in FUNCTIONS | PRODUCTS)
        case ast.Constant(value=str(text)): yield from (f"SQL {name}" for name in SQL.findall(text))


def unsettled(code: str) -> set[str]:
    "The names of everything of the kind in a module."
    tree = ast.parse(code)
    documented = [n for n in ast.walk(tree) if isinstance(n, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(n) is not None]
    docstrings = {id(node.body[0].value) for node in documented}
    return {name for node in ast.walk(tree) if id(node) not in docstrings for name in _names(node)}
