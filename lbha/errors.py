"""What can go wrong, for the operator. Each error carries the exit code of the command that meets it."""

from __future__ import annotations


class LbhaError(Exception):
    """Something that is told in one line and ends a command with `exit_code`."""

    exit_code = 1


class ConfigError(LbhaError):
    """A mistake in lbha.toml or on the command line: names the file, the key, the value and what would do."""

    exit_code = 2


class DiscoveryError(LbhaError):
    """A source of backends did not give a usable answer."""


class RenderError(LbhaError):
    """A template, usually an operator's own, cannot be rendered."""


class EngineError(LbhaError):
    """haproxy or keepalived is missing, refused a file, or did not answer as documented."""


class ApplyError(LbhaError):
    """A configuration was refused or put back; the engines run what they ran before."""


class LabError(LbhaError):
    """The lab cannot do what was asked."""
