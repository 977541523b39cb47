"""Columns of any name in formulas and words: full stops, blanks, brackets, letters of any script.

Both are read by parsers of Python, for which ``y.mean`` is an attribute and ``milk yield`` two words. Such a name is therefore
replaced by a word that Python takes for a name before the text is parsed, and put back afterwards.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MODULES = ("np", "contr")  # np.pi and contr.sum are no columns; `np.x` is one
_TOKEN = re.compile(
    r"""(?P<text>"[^"]*"|'[^']*')            # a quoted text is no name
      | `(?P<quoted>[^`]+)`
      | (?<![\w.])(?P<bare>[^\W\d]\w*(?:\.\w+)*)(?![\w.]|\s*\()   # not a function: np.log(x)
    """,
    re.VERBOSE,
)


def encoded(text: str) -> tuple[str, dict[str, str]]:
    """The text with words in place of the names that Python would not read as one, and the name of each word."""
    words: dict[str, str] = {}

    def replaced(found: re.Match[str]) -> str:
        name = found["quoted"] or found["bare"]
        if name is None or _is_plain(name) or (found["bare"] and name.partition(".")[0] in MODULES):
            return name or found[0]
        return words.setdefault(name, f"_column{len(words)}_")

    replacement = _TOKEN.sub(replaced, text)
    return replacement, {word: name for name, word in words.items()}


def decoded(text: str, names: Mapping[str, str], quote: str = "") -> str:
    """The text with the names put back, between ``quote``."""
    if not names:
        return text
    return re.sub(r"_column\d+_", lambda found: f"{quote}{names[found[0]]}{quote}" if found[0] in names else found[0], text)


def shown(text: str) -> str:
    """The text without backticks that it does not need."""
    words, names = encoded(text)
    return decoded(words, names, "`")


def renamed(records: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Records under the words that stand for their names."""
    return records.rename(columns={name: word for word, name in names.items()}) if names else records


def _is_plain(name: str) -> bool:
    """Whether Python reads the name as such; letters beyond ASCII it may normalise, as the micro sign."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
