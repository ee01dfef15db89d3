"""The house's budgets: lengths of files and functions, checked for every change."""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src" / "seglens"


def main() -> int:
    """Name every file and function over its budget; 1 if there is any."""
    over, methods = [], []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines, name = text.count("\n"), path.relative_to(ROOT)
        is_method = name.parts[0] == "methods" and not path.name.startswith("_")
        if is_method:
            methods.append(lines)
        if lines > (150 if is_method else 400):
            over.append(f"{name}: {lines} lines")
        over += [f"{name}:{line} {function}: {length} lines" for function, line, length in long_functions(text)]
    if methods and statistics.median(methods) > 60:
        over.append(f"median method file: {statistics.median(methods)} lines")
    sys.stdout.write("\n".join(over) + "\n" if over else "Budgets are kept.\n")
    return bool(over)


def long_functions(text: str) -> list[tuple[str, int, int]]:
    """Functions of more than 60 lines: name, first line, length."""
    found = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    spans = ((n.name, n.lineno, (n.end_lineno or n.lineno) - n.lineno + 1) for n in found)
    return [span for span in spans if span[2] > 60]


if __name__ == "__main__":
    sys.exit(main())
