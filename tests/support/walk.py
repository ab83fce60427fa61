# SPDX-License-Identifier: GPL-2.0-or-later
"""Walking through a chapter of the documents: each command is run, and what it says
held against what the document shows.

In blocks marked `console` a line that begins with `# ` is a command, with `# # ` an
act of the world; what follows is output. Numbers, times and the width of gaps may
differ. A block marked with a file's name is that file.
"""

import re
from collections.abc import Callable, Iterator, Mapping

_BLOCK = re.compile(
    r"^```(console|\w+ title=\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_PROMPT = "# "


def chapter(text: str, title: str) -> str:
    """A chapter of a document."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def walked(
    text: str,
    *,
    run: Callable[[str], str],
    write: Callable[[str, str], None],
    acts: Mapping[str, Callable[[], object]],
) -> str:
    """The same text with the output that there really is.

    Args:
        run: has a command line carried out; says what it said.
        write: has a file, by path and content.
        acts: what the world does, by the words for it.
    """

    def again(block: re.Match[str]) -> str:
        kind, body = block.groups()
        if kind != "console":
            write(kind.partition("title=")[2], body)
            return block.group()
        return f"```{kind}\n{''.join(_again(body, run, acts))}```"

    return _BLOCK.sub(again, text)


def _again(
    body: str, run: Callable[[str], str], acts: Mapping[str, Callable[[], object]]
) -> Iterator[str]:
    for line in body.splitlines():
        if line.startswith(f"{_PROMPT}# "):
            acts[line.removeprefix(f"{_PROMPT}# ")]()
            yield f"{line}\n"
        elif line.startswith(_PROMPT):
            yield f"{line}\n"
            yield run(line.removeprefix(_PROMPT))


def shape(text: str) -> str:
    """A text without what may differ."""
    text = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "N", text)
    text = re.sub(r"\b(kernel|controller)\b", "WHO", text)  # who is faster decides
    return "\n".join(" ".join(line.split()) for line in text.splitlines())
