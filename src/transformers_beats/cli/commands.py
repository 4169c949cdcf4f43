# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Grammar of the command line: names of options and commands, messages and exit statuses, examples."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from transformers_beats.utils.errors import UsageError, did_you_mean, errors_in_one_line


NAME = "transformers-beats"


def with_dashes(name: str) -> str:
    """Returns the name of an option or command as it is declared: `event_threshold` is `event-threshold`."""
    return name.replace("_", "-")


class Commands(TyperGroup):
    """Group of commands that ends after any error with one line on stderr and an exit status of `utils.errors`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = list(sys.argv[1:] if args is None else args) or ["--help"]
        with errors_in_one_line():
            try:
                status = super().main(words, NAME, standalone_mode=False, **extra)
            except Exception as error:
                # The classes of click, which newer versions of typer have a copy of.
                if not hasattr(error, "format_message"):
                    raise
                raise UsageError(describe_usage_error(error)) from None
        return sys.exit(status or 0) if standalone_mode else status

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if with_dashes(args[0]) not in self.commands:
            hint = did_you_mean(with_dashes(args[0]), self.commands)
            raise UsageError(f"no command {args[0]}{hint or f'; see {ctx.command_path} --help'}")
        return super().resolve_command(ctx, args)


def describe_usage_error(error: Any) -> str:
    """Returns the message of an error of click: with options that look like an unknown one, and where help is."""
    if (option := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        known = [name for parameter in error.ctx.command.params for name in parameter.opts] if error.ctx else []
        message = f"no option {option}{did_you_mean(with_dashes(option), known)}"
    else:
        message = error.format_message().replace("Value error, ", "")
    path = error.ctx.command_path if getattr(error, "ctx", None) else NAME
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} See {path} --help."


def make_app() -> typer.Typer:
    """Makes a command line without commands."""
    app = typer.Typer(
        cls=Commands,
        help="BEATs models: name the sounds in audio files, embed, convert and train.",
        add_completion=False,
        pretty_exceptions_enable=False,
        # Joins the lines of a paragraph.
        rich_markup_mode="markdown",
        context_settings={"token_normalize_func": with_dashes, "help_option_names": ["-h", "--help"]},
    )
    # Keeps an app with a single command a group.
    app.callback()(lambda: None)
    return app


def add_command(app: typer.Typer, name: str, function: Callable[..., Any], example: str, panel: str) -> None:
    """
    Adds a function for typer as a command, under the heading `panel` in the list of commands. Its errors become one
    line and an exit status. `example` are the words after the name in the last line of its help, if there are any.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        with errors_in_one_line():
            function(*args, **kwargs)

    epilog = f"Example: {NAME} {name} {example}" if example else None
    app.command(name, rich_help_panel=panel, epilog=epilog)(run)
