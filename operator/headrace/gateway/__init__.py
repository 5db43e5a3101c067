"""A second door onto the same objects, over HTTP.

OpenAI's Files and Batches, whose answers are decided in `headrace.core.openai`; and single requests that gather into batches, which is
decided in `headrace.core.asking`.
"""
