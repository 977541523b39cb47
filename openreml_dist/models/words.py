"""Random terms and residuals as text, for configs: ``unstructured(trait) * genomic(id)``.

The grammar is that of a Python expression of calls and products; nothing is evaluated, and no other name is known. An argument
is a column (of any name between backticks), a number, a quoted text, or a formula (``regression(1 + days)``).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from openreml_dist.errors import ConfigError
from openreml_dist.models.levels import CompoundSymmetric, Diagonal, FactorAnalytic, Regression, Unstructured
from openreml_dist.models.names import decoded, encoded
from openreml_dist.models.positions import AR1, Exponential, Matern
from openreml_dist.models.relationships import Genomic, Pedigree
from openreml_dist.models.structures import Group, Heterogeneous, Independent, Structure

VOCABULARY: dict[str, Callable[..., Structure]] = {
    "ar1": AR1,
    "compound_symmetric": CompoundSymmetric,
    "diagonal": Diagonal,
    "exponential": Exponential,
    "factor_analytic": FactorAnalytic,
    "genomic": Genomic,
    "group": Group,
    "heterogeneous": Heterogeneous,
    "independent": Independent,
    "matern": Matern,
    "pedigree": Pedigree,
    "regression": Regression,
    "unstructured": Unstructured,
}


def parse_structure(text: str, where: str, grms: Mapping[str, Any] | None = None, pedigree: Any = None) -> Structure:
    """The structure that a text describes.

    Args:
        text: such as ``ar1(row) * ar1(column)``.
        where: the setting it comes from, for messages.
        grms: open GRM stores by name: ``genomic(id)`` takes the first, ``genomic(id, name)`` the one of that name.
        pedigree: table of ``pedigree(id, sire, dam)``; None takes the records.
    Raises:
        ConfigError: names what is wrong and what there is.
    """
    words, names = encoded(text)
    try:
        tree = ast.parse(words, mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"{where}: {text!r} cannot be read: {error.msg} (at character {error.offset})") from error
    return _structure(tree, where, grms or {}, pedigree, names)


def _structure(node: ast.expr, where: str, grms: Mapping[str, Any], pedigree: Any, names: Mapping[str, str]) -> Structure:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = (_structure(side, where, grms, pedigree, names) for side in (node.left, node.right))
        return left * right
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        written = decoded(ast.unparse(node), names)
        raise ConfigError(f"{where}: {written!r} is not a structure such as group(plot), nor a product of them")
    name = node.func.id
    if name not in VOCABULARY:
        raise ConfigError(f"{where}: no structure is called {name}; there are {', '.join(VOCABULARY)}")
    positional = [_argument(value, names) for value in node.args]
    named = {keyword.arg: _argument(keyword.value, names) for keyword in node.keywords if keyword.arg is not None}
    if name == "genomic":
        return _genomic(positional, where, grms)
    if name == "pedigree" and pedigree is not None:
        named["table"] = pedigree
    try:
        return VOCABULARY[name](*positional, **named)
    except TypeError as error:
        raise ConfigError(f"{where}: {decoded(ast.unparse(node), names)}: {error}") from error


def _argument(node: ast.expr, names: Mapping[str, str]) -> Any:
    """A column's name or a formula as text, a constant as it is."""
    if isinstance(node, ast.Constant):
        return node.value
    return decoded(ast.unparse(node), names, "" if isinstance(node, ast.Name) else "`")


def _genomic(arguments: list[Any], where: str, grms: Mapping[str, Any]) -> Structure:
    if not 1 <= len(arguments) <= 2:
        raise ConfigError(f"{where}: genomic(id) or genomic(id, name of a GRM) is needed")
    if not grms:
        raise ConfigError(f"{where}: genomic({arguments[0]}) needs a GRM: set data.grm")
    name = arguments[1] if len(arguments) == 2 else next(iter(grms))
    if name not in grms:
        raise ConfigError(f"{where}: no GRM is called {name}; data.grm has {', '.join(grms)}")
    return Genomic(arguments[0], grms[name][0], grms[name][1])
