# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in the documents and in the help texts are ones that there are.

The command line itself judges them, with nothing behind it.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from pyfailover.cli import cli
from tests.support.commands import COMMANDS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_NO_SHELL = {"python", "mermaid", "c", "json", "toml", "yaml"}
# `# ` is a prompt where output is shown, and begins a comment in a script.
_PROMPT = re.compile(r"^[\w@:~/.-]*[#$]\s+(?=\S)")
_SCRIPT_PROMPT = re.compile(r"^\$\s+(?=\S)")
# A line that begins so may go on with our command.
_RUNNER = re.compile(
    r"^(\w+=.*|sudo|exec|time|env|python3?|nsenter|ip|timeout|watch|strace|docker)$"
)
_OPERATORS = set("|&;()<>")
# Advice inside of output: `hint: pyfailover …` and '…: 'pyfailover …''.
_ADVICE = re.compile(r"hint: (pyfailover \S.*)|'(pyfailover \S[^']*)'")
_INLINE = re.compile(r"`pyfailover ([a-z]\w*)")

Judge = Callable[[list[str]], str | None]


def spoken(text: str) -> Iterator[list[str]]:
    """The arguments of every `pyfailover …` in the fenced blocks of a document."""
    for language, block in _FENCE.findall(text):
        if language not in _NO_SHELL:
            yield from in_block(block, script=language in ("sh", "bash"))


def in_block(block: str, *, script: bool) -> Iterator[list[str]]:
    """The arguments of every `pyfailover …` in lines of shell or a terminal."""
    prompt = _SCRIPT_PROMPT if script else _PROMPT
    for line in block.replace("\\\n", " ").splitlines():
        for advice in _ADVICE.findall(line):
            yield shlex.split("".join(advice))[1:]
        yield from in_line(prompt.sub("", line.strip()))


def in_line(line: str) -> Iterator[list[str]]:
    """The arguments of every `pyfailover …` that begins a command of a line."""
    if "pyfailover" not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(_OPERATORS))
    lexer.whitespace_split = True
    try:
        words = [*lexer, ";"]
    except ValueError:  # an apostrophe: prose, or output
        return
    command: list[str] = []
    for word in words:
        if not set(word) <= _OPERATORS:
            command.append(word)
            continue
        names = [w.removeprefix("ExecStart=").rpartition("/")[2] for w in command]
        if "pyfailover" in names:
            at = names.index("pyfailover")
            if at == 0 or _RUNNER.match(command[0]):
                yield command[at + 1 :]
        command = []


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """What the command line says to arguments, which have no effect; None: fine."""
    for command in (cli, *COMMANDS.values()):
        monkeypatch.setattr(command, "callback", lambda **_: None)

    def verdict(args: list[str]) -> str | None:
        try:
            cli.main(args, prog_name="pyfailover", standalone_mode=False)
        except click.ClickException as exc:
            return f"pyfailover {shlex.join(args)}: {exc.format_message()}"
        return None

    return verdict


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_document(judge: Judge, path: Path) -> None:
    """Every command in a document is one, options and values too."""
    text = path.read_text()
    assert [wrong for args in spoken(text) if (wrong := judge(args))] == []
    assert set(_INLINE.findall(text)) <= cli.commands.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_help(judge: Judge, name: str) -> None:
    """The examples of a command are of that command, and would be taken."""
    examples = list(in_block(COMMANDS[name].epilog or "", script=True))
    assert examples
    for args in examples:
        assert name in " ".join(args)
        assert judge(args) is None


def test_the_readme_shows_the_use() -> None:
    """The documents do have commands, so that the tests above see something."""
    found = {args[0] for args in spoken((ROOT / "README.md").read_text()) if args}
    assert {"create", "switch", "status", "detach"} <= found


MADE_UP = """
Some `pyfailover` prose: pyfailover frobs nothing here.
```console
# pyfailover frob fo0
fo0: frobbed, see 'pyfailover frob --again' for more
hint: pyfailover frob harder
root@host:~# pyfailover --loud status
$ sudo pyfailover status fo0 --xml && pyfailover destroy
```
```sh
cd pyfailover frob                    # pyfailover frob is no command here
# pyfailover frob is not one either
/opt/pyfailover/bin/pip install pyfailover
PYFAILOVER_NETNS=lab nsenter --net=/run/netns/lab \\
  /opt/pyfailover/bin/pyfailover attach fo0 --primary eth0 --side left
ip netns exec lab pyfailover switch fo0
groups=$(pyfailover status --yaml | jq .groups)
python3 -m pyfailover create fo0 --primry eth0
```
```ini
ExecStart=/usr/sbin/pyfailover run --foreground
ExecStart=/usr/sbin/pyfailover --netns lab run
```
```python
from pyfailover import frob
```
```sh
$ pyfailover --netns lab create fo0 --primary eth1 --standby eth2   # is fine
$ pyfailover status --json > status.json
pyfailover --version; pyfailover switch --help
```
"""


def test_the_checker(judge: Judge) -> None:
    """Invented commands, options and values are found wherever they may stand, and
    nothing else is."""
    wrong = [found for args in spoken(MADE_UP) if (found := judge(args))]
    said = [re.sub(r" \((?:Did|Possible).*| Did you.*", "", text) for text in wrong]
    assert [text.partition(": ")[0].removeprefix("pyfailover ") for text in said] == [
        "frob fo0",
        "frob --again",
        "frob harder",
        "--loud status",
        "status fo0 --xml",
        "destroy",
        "attach fo0 --primary eth0 --side left",
        "switch fo0",
        "status --yaml",
        "create fo0 --primry eth0",
        "run --foreground",
    ]
    assert "No such command 'frob'" in wrong[0]
    assert "--primry" in wrong[-2]
    assert sum(1 for _ in spoken(MADE_UP)) == 11 + 5
