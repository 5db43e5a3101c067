"""Objects whole, as JSON or YAML."""

from __future__ import annotations

import yaml

from headrace.api.base import JsonObject
from headrace.cli.options import ObjectOutput
from headrace.cli.text import say, say_json


def dump(data: JsonObject, output: ObjectOutput) -> None:
    """Show an object in the form that was asked for."""
    if output == ObjectOutput.JSON:
        say_json(data)
    else:
        say(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120).rstrip())
