"""Docstrings name what they refer to as :func:`this`; the pages link it where they describe it."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc):`~?([\w.]+)`")
LITERAL = re.compile(r"``(.+?)``", re.DOTALL)


def _link(match: re.Match[str]) -> str:
    target = match[1]
    name = target.removeprefix("pylon_zoo.")
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'


class Roles(griffe.Extension):
    """Makes links and code of the roles and literals of reStructuredText."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring is not None:
            text = ROLE.sub(_link, obj.docstring.value)
            obj.docstring.value = LITERAL.sub(r"`\1`", text)
