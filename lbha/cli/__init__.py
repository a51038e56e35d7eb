"""The command line. Each command lives in a module of its own and is imported only when it runs."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from lbha import __version__
from lbha.errors import LbhaError

COMMANDS = {
    "agent": "The agent: watches, decides, follows; systemd runs it.",
    "apply": "Render, validate, lay and reload: a transaction over haproxy and keepalived.",
    "backend": "Take one server of a service out of its pool, or put it back.",
    "check": "keepalived's track script: haproxy, holder, or a service's backend on this node.",
    "completion": "Completion for a shell: bash, zsh or fish.",
    "config": "The effective configuration with every default, and the reference of every key.",
    "doctor": "What will hurt later and can be seen now, each with its cure.",
    "drain": "Move the VIP to another node, and keep it away for a while.",
    "drill": "Inject faults into a lab under load and measure what clients see.",
    "events": "What happened on this node: moves of the VIP, faults, drains, applies, servers.",
    "explain": "Why this node holds the VIP or not, and what would happen if something died.",
    "init": "Write a commented lbha.toml for a new cluster.",
    "install": "Lay lbha's systemd units, apply, enable and start.",
    "lab": "A cluster of real nodes on this machine, in network namespaces.",
    "pki": "Mint the certificates by which agents know one another.",
    "plan": "How long each fault may take, proof of the elections, and the order of a change.",
    "render": "Print, write or compare haproxy.cfg and keepalived.conf.",
    "rollback": "Put an earlier configuration back.",
    "status": "This node and its peers: VIP, priorities, backends, discovery, etcd, what is wrong.",
    "undrain": "End a drain.",
    "uninstall": "Undo lbha install.",
    "wiring": "What kubeadm, kubeconfigs, flannel and etcd must be told, and whether they were.",
}
"""Command -> its line in --help and in a shell's completion, so that these import none of them."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"lbha.cli.{cmd_name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=COMMANDS[name]) for name in COMMANDS if name.startswith(incomplete)]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="lbha")
def group() -> None:
    """One address for etcd and the kube-apiserver that survives failures.

    Exit codes: 0 done, 1 refused or failed with nothing changed, 2 a mistake in lbha.toml or on the
    command line.
    """


def main() -> NoReturn:
    """Run the command line; every LbhaError is one line on stderr and its exit code."""
    try:
        code = group.main(prog_name="lbha", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("lbha: interrupted", err=True)
        sys.exit(130)
    except LbhaError as error:
        click.echo(f"lbha: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `lbha render | head`: the reader has seen enough. Python would complain once more at exit.
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # A file is named by the command that met it: this is stdout, on a full disk.
        click.echo(f"lbha: cannot write the output: {error.strerror}", err=True)
        sys.stdout = None  # Python would try once more at exit, and exit with 120.
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
