# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Grammar of the command line: names of options and commands, messages and exit statuses, examples."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Annotated, Any

import typer
from typer.completion import completion_init, get_completion_script
from typer.core import TyperGroup

import transformers_beats
from transformers_beats.utils.errors import FAILURE, INTERRUPTED, USAGE, UsageError, did_you_mean, errors_in_one_line
from transformers_beats.utils.messages import quietly


NAME = "transformers-beats"
# The last paragraph of every help.
STATUSES = (
    f"Exit status: 0 success, {FAILURE} a file or the work failed, {USAGE} unusable arguments, "
    f"{INTERRUPTED} interrupted."
)


# The variable by which the script of a shell asks for completions.
COMPLETE = "_TRANSFORMERS_BEATS_COMPLETE"


class Shell(str, Enum):
    """Shells that can complete commands."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


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
        if COMPLETE in os.environ:
            # Called by a shell, with the script that `completion` prints.
            completion_init()
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
        if with_dashes(args[0]) not in self.commands and not ctx.resilient_parsing:
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
    """Makes a command line without commands, for `python -m transformers_beats` the whole one."""
    app = typer.Typer(
        cls=Commands,
        help="BEATs models: name the sounds in audio files, embed, convert and train.",
        epilog=ending([f"{NAME} tag -m MODEL recordings"]),
        add_completion=False,
        pretty_exceptions_enable=False,
        # Joins the lines of a paragraph.
        rich_markup_mode="markdown",
        context_settings={"token_normalize_func": with_dashes, "help_option_names": ["-h", "--help"]},
    )

    # Also keeps an app with a single command a group.
    @app.callback()
    def run(
        version: Annotated[
            bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        pass

    return app


def print_version(is_wanted: bool) -> None:
    """Prints the version and ends the program, if that is wanted."""
    if is_wanted:
        typer.echo(f"{NAME} {transformers_beats.__version__}")
        raise typer.Exit()


def ending(examples: Sequence[str]) -> str:
    """Returns the end of a help: a list of examples, and the exit statuses."""
    return "\n\n".join(["Examples:", *(f"- {example}" for example in examples), STATUSES])


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and notes; only warnings and errors.")]


def add_group(app: typer.Typer, name: str, help: str, examples: Sequence[str], panel: str) -> typer.Typer:
    """
    Adds a command that has commands of its own, under the heading `panel`, and returns it; `examples` are the words
    after its name in the examples of its help.
    """
    group = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode="markdown")
    epilog = ending([f"{NAME} {name} {example}" for example in examples])
    app.add_typer(group, name=name, help=help, epilog=epilog, rich_help_panel=panel)
    return group


def add_command(
    app: typer.Typer,
    name: str,
    function: Callable[..., Any],
    examples: Sequence[str],
    panel: str,
    quiet: bool = False,
    group: str = "",
) -> None:
    """
    Adds a function for typer as a command, under the heading `panel` in the list of commands. Its errors become one
    line and an exit status. `examples` are the words after the name in the examples of its help. With `quiet` it has
    the option `--quiet`. `group` is the name of the command whose command it is.
    """

    @functools.wraps(function)
    def run(*args: Any, quiet: bool = False, **kwargs: Any) -> None:
        with errors_in_one_line(), quietly(quiet):
            function(*args, **kwargs)

    if quiet:
        signature = inspect.signature(function, eval_str=True)
        option = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
        parameters = [*signature.parameters.values(), option]
        run.__signature__ = signature.replace(parameters=parameters)  # ty: ignore[missing-attribute]
    words = " ".join(filter(None, (NAME, group, name)))
    epilog = ending([f"{words} {example}".rstrip() for example in examples])
    app.command(name, rich_help_panel=panel, epilog=epilog)(run)


def completion(
    shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.", show_default=False)],
) -> None:
    """
    Print a script for a shell, which then completes commands.

    Also options, and names of released models.

    bash: add `eval "$(transformers-beats completion bash)"` to ~/.bashrc; zsh: the same with zsh in ~/.zshrc; fish:
    write it to ~/.config/fish/completions/transformers-beats.fish.
    """
    typer.echo(get_completion_script(prog_name=NAME, complete_var=COMPLETE, shell=shell.value))
