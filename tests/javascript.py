"""The page's DOM-free scripts in a JavaScript engine, called with JSON."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from py_mini_racer import MiniRacer

FREE_OF_A_PAGE = ("laws.js", "drawing.js")


@cache
def engine() -> MiniRacer:
    made = MiniRacer()
    for name in FREE_OF_A_PAGE:
        made.eval(source(name))
    return made


def source(name: str) -> str:
    return files("rightbatch.reporting").joinpath(name).read_text(encoding="utf-8")


def call(function: str, *arguments: Any) -> Any:
    """Return what a function of the scripts gives; an infinity becomes None."""
    given = json.dumps(arguments)
    answer = engine().eval(f"JSON.stringify({function}(...{given}) ?? null)")
    return json.loads(str(answer))


def words_of_code(name: str) -> set[str]:
    """Return the identifiers of a script, without its comments."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", source(name), flags=re.DOTALL)
    return set(re.findall(r"[A-Za-z_$][\w$]*", code))
