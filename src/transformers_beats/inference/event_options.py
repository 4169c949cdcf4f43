# Copyright 2026 The transformers-beats authors. Licensed under the Apache License, Version 2.0.
"""Options of sound events among the parameters of a pipeline, and whether they ask for events."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from transformers_beats.utils.errors import UsageError

from .events import EventSettings


EVENT_WINDOW_PARAMETERS = ("event_window_seconds", "event_hop_seconds")
# Fields of `EventSettings` by their names in a pipeline, where `threshold` is that of the labels.
EVENT_PARAMETERS = {"event_threshold": "threshold"} | {
    field.name: field.name for field in fields(EventSettings) if field.name != "threshold"
}


def given_event_settings(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Picks the fields of [`EventSettings`] among the parameters of a pipeline; `None` stands for the default."""
    given = {field: parameters.get(name) for name, field in EVENT_PARAMETERS.items()}
    return {field: value for field, value in given.items() if value is not None}


def event_settings(parameters: Mapping[str, Any]) -> EventSettings:
    """Returns the settings of events among the parameters of a pipeline."""
    try:
        return EventSettings(**given_event_settings(parameters))
    except UsageError as error:
        raise UsageError(str(error).replace("`threshold`", "`event_threshold`")) from None


def given_event_options(parameters: Mapping[str, Any]) -> list[str]:
    """Returns the names of the options of events among the parameters of a pipeline that are not `None`."""
    names = (*EVENT_PARAMETERS, *EVENT_WINDOW_PARAMETERS)
    return [name for name in names if parameters.get(name) is not None]


def wants_events(parameters: Mapping[str, Any]) -> bool:
    """
    Returns whether the parameters of a pipeline ask for events: as `return_events` says and, without it, if any option
    of events is given, which would change nothing otherwise.
    """
    asked = parameters.get("return_events")
    return bool(given_event_options(parameters)) if asked is None else bool(asked)


def check_event_options(parameters: Mapping[str, Any]) -> None:
    """Raises a [`UsageError`] for options of events that stand beside `return_events=False`."""
    given = given_event_options(parameters)
    if given and not wants_events(parameters):
        raise UsageError(
            f"`{given[0]}` is of events, which `return_events=False` leaves out: leave out the option, or pass "
            "`return_events=True`."
        )
