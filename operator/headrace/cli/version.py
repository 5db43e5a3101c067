"""`headrace version`."""

from __future__ import annotations

import json

from headrace import __version__
from headrace.api.labels import API_VERSION
from headrace.cli.options import JsonOutput
from headrace.cli.text import say


def version(output: JsonOutput) -> int:
    """Print the version of the program and of the API that it speaks."""
    if output == JsonOutput.JSON:
        say(json.dumps({"version": __version__, "apiVersion": API_VERSION}))
    else:
        say(f"headrace {__version__} ({API_VERSION})")
    return 0
