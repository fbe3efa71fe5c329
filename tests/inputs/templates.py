"""Chat templates in the shapes of public models, written small, and a tokenizer that has their special tokens."""

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LLAMA_3 = """{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}\
{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% else %}{{ m['content'] | trim }}{% endif %}\
{{ '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

QWEN_2_5 = """{% if tools %}{{ '<|im_start|>system\nYou are Qwen.\n# Tools\n' }}\
{% for tool in tools %}{{ tool | tojson }}{{ '\n' }}{% endfor %}{{ '<|im_end|>\n' }}\
{% elif messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}{% endif %}\
{% for m in messages %}{% if m.role == 'tool' %}{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}\
{{ '<|im_start|>user' }}{% endif %}{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}\
{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}\
{% elif m.role == 'assistant' and m.tool_calls %}{{ '<|im_start|>assistant' }}\
{% if m.content %}{{ '\n' + m.content }}{% endif %}\
{% for call in m.tool_calls %}{% if call.function is defined %}{% set call = call.function %}{% endif %}\
{{ '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}{{ call.arguments | tojson }}\
{{ '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}\
{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# Answers after the last question keep what was thought before them, or an empty thought; earlier answers lose theirs.
QWEN_3 = """{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\n' }}\
{% endfor %}{{ '<|im_end|>\n' }}{% endif %}\
{% set ns = namespace(last=messages | length - 1, found=false) %}{% for m in messages[::-1] %}\
{% if not ns.found and m.role == 'user' %}{% set ns.found = true %}\
{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}{% endfor %}\
{% for m in messages %}{% if m.content is string %}{% set content = m.content %}{% else %}{% set content = '' %}\
{% endif %}{% if m.role == 'assistant' %}{% set thought = '' %}{% if '</think>' in content %}\
{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}\
{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ '<|im_start|>assistant\n' }}\
{% if loop.index0 > ns.last and (loop.last or thought) %}\
{{ '<think>\n' + thought + '\n</think>\n\n' + content.lstrip('\n') }}{% else %}{{ content }}{% endif %}\
{% if m.tool_calls %}{% for call in m.tool_calls %}{% if call.function %}{% set call = call.function %}{% endif %}\
{{ '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}{% if call.arguments is string %}{{ call.arguments }}\
{% else %}{{ call.arguments | tojson }}{% endif %}{{ '}\n</tool_call>' }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}\
{% elif m.role == 'tool' %}{{ '<|im_start|>user\n<tool_response>\n' + content + '\n</tool_response><|im_end|>\n' }}\
{% else %}{{ '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}\
{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"""

GEMMA_2 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}\
{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

GEMMA_3 = """{{ bos_token }}{% set first = '' %}{% set loop_messages = messages %}\
{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}\
{% set loop_messages = messages[1:] %}{% endif %}\
{% for m in loop_messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}\
{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}\
{% if m['content'] is string %}{{ m['content'] | trim }}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

MISTRAL = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}\
{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}\
{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate user and assistant') }}{% endif %}\
{% if m['role'] == 'user' %}{{ '[INST] ' + (system if loop.last else '') + m['content'] + ' [/INST]' }}\
{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"""

PHI_3 = """{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""

PHI_4 = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '<|im_sep|>' + m['content'] + '<|im_end|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"""

CHATML = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

ZEPHYR = """{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}\
{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""

DEEPSEEK_V3 = """{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}\
{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{% endif %}\
{% if m['role'] == 'assistant' %}{{ '<|Assistant|>' + m['content'] + eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}"""

# The generation prompt opens a thought that the rendered answer has lost.
DEEPSEEK_R1 = """{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% endif %}\
{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{% endif %}\
{% if m['role'] == 'assistant' %}{{ '<|Assistant|>' + m['content'].split('</think>')[-1] + eos_token }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"""

GLM_4 = """[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


@dataclass(frozen=True)
class Shape:
    """A public template, what ends a turn in it, and what an answer of "Sure." looks like to a model that says it."""

    template: str
    eos: str
    said: str
    takes_system: bool = True


SHAPES = {
    "llama 3": Shape(LLAMA_3, "<|eot_id|>", "Sure.<|eot_id|>"),
    "qwen 2.5": Shape(QWEN_2_5, "<|im_end|>", "Sure.<|im_end|>"),
    "qwen 3": Shape(QWEN_3, "<|im_end|>", "<think>\n\n</think>\n\nSure.<|im_end|>"),
    "gemma 2": Shape(GEMMA_2, "<eos>", "Sure.<end_of_turn>\n<eos>", takes_system=False),
    "gemma 3": Shape(GEMMA_3, "<eos>", "Sure.<end_of_turn>\n<eos>"),
    "mistral": Shape(MISTRAL, "</s>", " Sure.</s>"),
    "phi 3": Shape(PHI_3, "<|endoftext|>", "Sure.<|end|>\n<|endoftext|>"),
    "phi 4": Shape(PHI_4, "<|im_end|>", "Sure.<|im_end|>"),
    "chatml": Shape(CHATML, "<|im_end|>", "Sure.<|im_end|>"),
    "zephyr": Shape(ZEPHYR, "</s>", "Sure.</s>"),
    "deepseek v3": Shape(DEEPSEEK_V3, "<|end_of_sentence|>", "Sure.<|end_of_sentence|>"),
    "glm 4": Shape(GLM_4, "<|endoftext|>", "\nSure.<|endoftext|>"),
}
"""Each takes answers as they are; DEEPSEEK_R1 stands apart: its answers begin inside the generation prompt."""

SPECIAL_TOKENS = [
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"),
    *("<start_of_turn>", "<end_of_turn>", "<eos>", "<bos>", "</s>", "[INST]", "[/INST]", "<|end|>", "<|endoftext|>"),
    *(
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
        "<|User|>",
        "<|Assistant|>",
        "<|end_of_sentence|>",
        "[gMASK]",
        "<sop>",
    ),
    *("<think>", "</think>", "<pad>"),
]
_TEXTS = [
    "Sure. Yes, no. How are you?\n\nI am fine, thank you.\n<think>\n\n</think>\n\n",
    "The weather in Paris is sunny. assistant user system model\n\nWhat is it?\n",
]


def byte_level(template: str, eos: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer, whose merges cross line ends, with a template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _TEXTS * 3, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    return _with_template(backend, template, eos)


def metaspace(template: str, eos: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer that puts a space before the first word of a text, as Llama 2's and Mistral's do."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    backend.train_from_iterator(
        _TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=200,
            special_tokens=["<unk>"],
            initial_alphabet=[chr(code) for code in range(33, 127)] + ["\n"],
            show_progress=False,
        ),
    )
    return _with_template(backend, template, eos)


def _with_template(backend: Tokenizer, template: str, eos: str) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        bos_token="<bos>",
        eos_token=eos,
        pad_token="<pad>",
    )
    tokenizer.chat_template = template
    return tokenizer
