"""Where the records of a batch or a fan-out come from, and where their results go."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from headrace.api.base import ApiModel, LongText, Name, Rule
from headrace.api.common import exactly_one
from headrace.api.fileformats import Compression, OutputFormat
from headrace.api.freeobjects import InlineRecord
from headrace.api.media import Media
from headrace.api.splitting import Split
from headrace.api.window import DataWindow, Objects

WINDOW_KNOWN = Rule(
    cel="self.spec.input.objects == 'All' || has(self.spec.input.window)",
    message="input.window must be set when input.objects is ModifiedInWindow; a ScheduledGeneration sets it by itself",
    check=lambda it: it.spec.input.objects == Objects.ALL or it.spec.input.window is not None,
    field="spec.input.objects",
)
"""Of an object that reads an input itself. The template of a schedule has no window yet."""


class InputFormat(StrEnum):
    """How the input is cut into records."""

    OPENAI = "openai"
    """OpenAI's batch file: one request object a line, with `custom_id`, `method`, `url` and `body`."""
    JSONL = "jsonl"
    """One JSON object a line; `prompt` makes a request of it."""
    CSV = "csv"
    """One row a record, as fields with the names in the first line; `prompt` makes a request of it."""
    PARQUET = "parquet"
    """The same of the rows of Parquet files."""
    TEXT = "text"
    """Each file is one record; `prompt` makes a request of its `text`; its path is the `custom_id`."""


class Prompt(ApiModel):
    """How a record that is not yet a request becomes one."""

    template: Annotated[str, Field(min_length=1, max_length=32768)] = "{{ text }}"
    """Jinja template of the prompt; the record's fields are its variables. A variable that is missing is an error of the record."""
    system: LongText | None = None
    """System message, for the task `chat`."""


When = Annotated[str, Field(min_length=1, max_length=1024)]
"""A condition in CEL on a record (`headrace.api.routing`)."""


class ConfigMapRef(ApiModel):
    """Input kept in a ConfigMap of the object's namespace: each key is one file."""

    name: Name
    """The ConfigMap."""
    key: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """One key; by default all of them, in the order of their names."""


INPUT_SCHEMES = "file|claim|package|s3|gs|az"
OUTPUT_SCHEMES = "file|claim|s3|gs|az"


class Input(ApiModel):
    """Where the records come from."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("uri", "inline", "config_map_ref"),
        Rule(
            cel="!has(self.prompt) || self.format != 'openai'",
            message="prompt may not be set when format is openai, as it is unless it is said: its lines are requests already",
            check=lambda it: it.prompt is None or it.format != InputFormat.OPENAI,
        ),
        Rule(
            cel="!has(self.inline) || self.format in ['openai', 'jsonl']",
            message="inline records are objects: format must be openai or jsonl",
            check=lambda it: it.inline is None or it.format in (InputFormat.OPENAI, InputFormat.JSONL),
        ),
        Rule(
            cel="!has(self.split) || self.format != 'openai'",
            message="split may not be set when format is openai: its lines are requests already, and have no text to split",
            check=lambda it: it.split is None or it.format != InputFormat.OPENAI,
            field="split",
        ),
        Rule(
            cel="!has(self.split) || !(self.split.by in ['tiles', 'frames']) || !(self.format in ['text', 'csv'])",
            message="tiles and frames are of the images in content: format must be jsonl or parquet",
            check=lambda it: (
                it.split is None or not it.split.by.of_images or it.format not in (InputFormat.TEXT, InputFormat.CSV)
            ),
            field="format",
        ),
        Rule(
            cel="self.objects == 'All' || (has(self.uri) && !self.uri.startsWith('package://'))",
            message="ModifiedInWindow is about files and objects: uri must name them, and not a package",
            check=lambda it: it.objects == Objects.ALL or (it.uri is not None and not it.uri.startswith("package://")),
            field="objects",
        ),
        Rule(
            cel="!has(self.carriedFrom) || (has(self.uri) && !has(self.split))",
            message="carriedFrom is about records that lie at a URI, and whole: uri must be set, and split must not",
            check=lambda it: it.carried_from is None or (it.uri is not None and it.split is None),
            field="carriedFrom",
        ),
    )

    uri: Annotated[str, Field(max_length=4096, pattern=rf"^({INPUT_SCHEMES})://.+")] | None = None
    """A file, a folder or a glob: `s3://bucket/key`, `gs://`, `az://`, `claim://NAME/PATH`, `file:///PATH`,
    `package://MODULE/PATH` (a file in an installed Python package) or `package://MODULE:NAME` (a mapping of names to texts there)."""
    inline: Annotated[tuple[InlineRecord, ...], Field(min_length=1, max_length=1000)] | None = None
    """The records themselves, at most 1,000 and 256 KiB."""
    config_map_ref: ConfigMapRef | None = None
    """A ConfigMap that holds the records."""
    format: InputFormat = InputFormat.OPENAI
    """How the input is cut into records. Files whose names end in `.gz` or `.zst` are unpacked as they are read."""
    prompt: Prompt | None = None
    """How a record becomes a request, for all formats but openai."""
    limit: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Take only the first so many records: a trial run of a large input."""
    split: Split | None = None
    """Split each record into parts, which are worked on as records of their own; `limit` counts whole records, all else the parts."""
    when: When | None = None
    """Of these, take only the records for which this CEL expression is true, as in `size(record.text) < 2000`. The others are passed
    over, but must have a custom_id of their own all the same."""
    objects: Objects = Objects.ALL
    """All, or ModifiedInWindow: only what was last modified within `window`. When there is nothing, the batch is complete without a pod
    of its own having been started for the work."""
    window: DataWindow | None = None
    """The time whose data this is about, for `objects`, for prompts (`{{ window.start }}`, `{{ window.end }}`) and for the environment of
    workers. A ScheduledGeneration says it for each of its runs."""
    carried_from: Annotated[str, Field(max_length=4096, pattern=rf"^({OUTPUT_SCHEMES})://.+")] | None = None
    """The output folder of an earlier batch or fan-out that has read records of this format: those without a result are taken up here,
    before those of `uri`. They are read where they lay then. A ScheduledGeneration says it for its runs."""
    media: Media | None = None
    """Where images and sounds that records name by a URL may be fetched from, and how much; by default from public addresses."""


class Output(ApiModel):
    """Where results and errors go."""

    uri: Annotated[str, Field(max_length=4096, pattern=rf"^({OUTPUT_SCHEMES})://.+")] | None = None
    """A folder of this batch alone; by default one below the place that the installation is set up with."""
    format: OutputFormat = OutputFormat.JSONL
    """In which form results and errors are written, in the order of the input either way."""
    compression: Compression = Compression.NONE
    """How the files are compressed; those of Parquet inside, page by page."""
