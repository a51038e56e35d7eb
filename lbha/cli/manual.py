"""The man page lbha(1), made from the commands' own help: `python -m lbha.cli.manual >lbha.1`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import click

from lbha import __version__, check
from lbha.cli import group
from lbha.cli.common import DEFAULT_CONFIG
from lbha.config.keys import KEYS
from lbha.model import Paths

EXIT_STATUS = (
    ("0", "Done; for `status`, `check` and `doctor`: all is well."),
    ("1", "Refused or failed, and nothing was changed; or what was asked about is not well."),
    ("2", "A mistake in lbha.toml or on the command line."),
    ("3, 4, 5", "`doctor`: the worst that it found is a warning, an error, or fatal."),
    ("130", "Interrupted."),
)

ENVIRONMENT = (
    ("LBHA_CONFIG", "The cluster file, where -c does not name one."),
    ("LBHA_NODE", "Which node this is, where --node does not say; else it is found by its addresses."),
    ("LBHA_LAB", "The lab that `lab` works on."),
    ("LBHA_LAB_ROOT", "Where labs keep their files."),
)

_SEE_ALSO = "haproxy(1), keepalived(8), keepalived.conf(5), systemctl(1); /usr/share/doc/lbha/"


def page() -> str:
    """The whole page as roff (man(7))."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    context = click.Context(group, info_name="lbha")
    yield f'.TH LBHA 1 "" "lbha {__version__}" "lbha"'
    yield ".SH NAME"
    yield r"lbha \- one address for etcd and the kube\-apiserver that survives failures"
    yield ".SH SYNOPSIS"
    yield _bold(f"lbha {' '.join(group.collect_usage_pieces(context))}")
    yield ".SH DESCRIPTION"
    yield from _text(group.help or "")
    yield ".SH OPTIONS"
    yield from _options(group, context)
    yield ".SH COMMANDS"
    yield from _commands(group, context)
    yield ".SH EXIT STATUS"
    yield from _terms(EXIT_STATUS)
    yield ".SH ENVIRONMENT"
    yield from _terms(ENVIRONMENT)
    yield ".SH FILES"
    yield from _terms(((DEFAULT_CONFIG, "The cluster file: the same on every node."), *_files()))
    yield ".SH SEE ALSO"
    yield _escaped(_SEE_ALSO)


def _files() -> Iterator[tuple[str, str]]:
    for key in Paths.__dataclass_fields__:
        if key != "lbha":
            yield getattr(Paths(), key), f"{KEYS['paths'][key].about} ([paths] {key})"


def _commands(parent: click.Group, context: click.Context) -> Iterator[str]:
    """Every command below `parent`; a group is followed by its own."""
    for name in parent.list_commands(context):
        command = parent.get_command(context, name)
        assert command is not None, name
        inner = click.Context(command, info_name=name, parent=context)
        yield f'.SS "{_escaped(inner.command_path)}"'
        if inner.command_path == "lbha check":  # goes past click, and has its own help
            yield from _verbatim((check.USAGE + check.HELP).splitlines())
            continue
        yield _bold(f"{inner.command_path} {' '.join(command.collect_usage_pieces(inner))}")
        yield ".PP"
        yield from _text(command.help or "")
        yield from _options(command, inner)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Every command has --help; it is told once, at the top."""
    for option in command.get_params(context):
        if isinstance(option, click.Option) and ("--help" not in option.opts or context.parent is None):
            record = option.get_help_record(context)
            yield from _terms([record] if record else [])


def _terms(terms: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, about in terms:
        yield ".TP"
        yield _bold(term)
        yield _marked(about)


def _text(help_text: str) -> Iterator[str]:
    """click's own rule: paragraphs, and those that begin with a line of "\\b" stay as they are."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", help_text.strip())):
        if number:
            yield ".PP"
        lines = paragraph.strip("\n").splitlines()
        if lines[0].strip() == "\b":
            yield from _verbatim(lines[1:])
        else:
            yield from map(_marked, lines)


def _verbatim(lines: list[str]) -> Iterator[str]:
    yield ".nf"
    yield from map(_escaped, lines)
    yield ".fi"


def _bold(text: str) -> str:
    return rf"\fB{_escaped(text)}\fR"


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _escaped(text))


def _escaped(text: str) -> str:
    """Backslashes and hyphens are roff's own; a line that begins with "." or "'" would be a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    click.echo(page(), nl=False)
