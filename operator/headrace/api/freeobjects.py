"""Objects whose fields are somebody else's names, and which of those names are known here all the same.

Nothing in them is checked and nothing is dropped. The known names serve two ends: `kubectl explain` shows them, and an API server
compares them properly. For it compares two such objects field by field, and passes over a field that it does not know and that
only one of the two has; a rule that forbids a change should therefore compare both ways, and each field that matters be known.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import WithJsonSchema

from headrace.api.base import FreeObject


def known_fields(description: str, **fields: str) -> WithJsonSchema:
    """Makes a `FreeObject` one that rules in CEL may name, with these fields known and all others let through."""
    anything = {"nullable": True, "x-kubernetes-preserve-unknown-fields": True}
    return WithJsonSchema(
        {
            "description": description,
            "type": "object",
            "properties": {name: {"description": text, **anything} for name, text in fields.items()},
            "x-kubernetes-preserve-unknown-fields": True,
        }
    )


Parameters = Annotated[
    FreeObject,
    known_fields(
        "Parameters of a request, as OpenAI's endpoints know them; an engine may take others too.",
        max_tokens="Most tokens to generate for one record.",
        max_completion_tokens="The newer name of max_tokens.",
        temperature="How freely to choose the next token; 0 always takes the likeliest.",
        top_p="Choose among the likeliest tokens that together have this probability.",
        top_k="Choose among so many of the likeliest tokens.",
        stop="A text, or a list of texts, that ends the answer.",
        seed="Makes random choices repeatable.",
        n="Answers to one record.",
        presence_penalty="Makes a token that was there already less likely.",
        frequency_penalty="Makes a token less likely the more often it was there.",
        logprobs="Whether to return the probabilities of the tokens.",
        top_logprobs="For how many of the likeliest tokens to return them.",
        response_format="The form that the answer must have.",
        encoding_format="How embeddings are written: float or base64.",
        dimensions="Length of the embeddings.",
    ),
]
InlineRecord = Annotated[
    FreeObject,
    known_fields(
        "A record, in the form that a line of the input would have.",
        custom_id="The name of the record, used once; its result has the same.",
        method="POST, for the format openai.",
        url="The endpoint of the task, for the format openai, such as /v1/chat/completions.",
        body="The request in OpenAI's names, for the format openai.",
    ),
]
