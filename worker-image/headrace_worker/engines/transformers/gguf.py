"""GGUF files: unpacked once into the form that transformers loads at once, and kept.

Reading a GGUF file costs transformers tens of seconds, nearly all of it in parsing the vocabulary; the unpacked form loads in under
a second. It lies in the worker's cache folder. The tokeniser and the configuration come first, because preparing records needs no
weights.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from headrace_worker.cachefolder import cache_folder

WEIGHTS = "model.safetensors"


def unpacked(file: Path) -> Path:
    """A folder with the configuration and the tokeniser of a GGUF file."""
    root = cache_folder("gguf")
    folder = root / _key(file)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            part = Path(scratch, "model")
            AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(part)
            AutoConfig.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(part)
            _publish(part, folder)
    return folder


def unpack_weights(file: Path) -> None:
    """Put the weights into the folder, in float32, unless they are there."""
    folder = unpacked(file)
    if (folder / WEIGHTS).exists():
        return
    with torch.device("meta"):  # the names of the parameters are wanted, not their values
        shell = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    with redirect_stderr(StringIO()):  # its progress bar has no switch
        tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=shell)["tensors"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        part = Path(scratch, WEIGHTS)
        save_file(tensors, part, metadata={"format": "pt"})
        part.replace(folder / WEIGHTS)


def _publish(part: Path, folder: Path) -> None:
    """Let the folder appear whole. Another process may have been faster; its content is the same."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _key(file: Path) -> str:
    """A name that changes with the file and with the library that unpacks it."""
    stat = file.stat()
    text = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{transformers.__version__}"
    return f"{file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
