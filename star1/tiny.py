"""A tiny base model made on the spot: Qwen2 architecture, BPE tokenizer and pre-training on text found on the machine.

It stands in for a distilled reasoning model where none can be fetched: it writes `<think>` blocks, closes them, and
answers everything. It knows nothing; it is there so that the whole pipeline runs as it would for 32B parameters.
"""

import ast
import dataclasses
import random
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from star1 import chat, checkpoints, sft
from star1.dialogues import dialogues
from star1.records import Row, text_digest

START, END, USER, ASSISTANT, PAD = "<|start|>", "<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"

# In the manner of the distilled reasoning models: the generation prompt opens the think block, and the thinking of
# earlier assistant turns is dropped. The pipeline's template handling meets here what it meets there.
TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{{- message['content'] -}}
{%- elif message['role'] == 'user' -%}{{- '<|user|>' + message['content'] -}}
{%- elif message['role'] == 'assistant' -%}
{%- set said = message['content'] -%}
{%- if '</think>' in said -%}{%- set said = said.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}
{{- '<|assistant|>' + said + eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|><think>\\n' -}}{%- endif -%}
"""


@dataclasses.dataclass(frozen=True)
class Settings(sft.Optimisation):
    """Settings of the tiny model; the defaults take about a minute of one core.

    Attributes:
        hidden_size: width [features].
        intermediate_size: width of the feed-forward layers [features].
        layers: number of decoder layers.
        heads: query heads.
        kv_heads: key and value heads.
        vocabulary: tokens of the tokenizer, special ones included.
        context: longest sequence [tokens].
        docstring_characters: at most so much text from docstrings.
        dialogues: number of template dialogues.
        update_tokens: tokens per update, about.
        epochs: passes over the text.
        seed: of weights, dialogues and order.
    """

    hidden_size: int = 128
    intermediate_size: int = 384
    layers: int = 4
    heads: int = 2
    kv_heads: int = 1
    vocabulary: int = 2048
    context: int = 1024
    docstring_characters: int = 40_000
    dialogues: int = 7000
    update_tokens: int = 512
    epochs: int = 1
    seed: int = 2002
    learning_rate: float = 3e-3
    pack_tokens: int = 1024


# ---------------------------------------------------------------- text


def module_files() -> list[Path]:
    """Source files of the standard library's modules, sorted; no tests, no installed packages, nothing is imported."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
    files = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in sorted(files) if not skipped & set(path.parts) and not path.name.startswith("_")]


def docstrings_of(source: str) -> Iterator[str]:
    """Docstrings of a module, its classes and functions, cleaned, in the order of the syntax tree."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= 80:
                yield text


def docstrings(characters: int, longest: int = 1500) -> list[str]:
    """Docstrings of the standard library: up to `characters` in all, `longest` characters each, none twice."""
    found: dict[str, None] = {}
    total = 0
    for path in module_files():
        for text in docstrings_of(path.read_text(encoding="utf-8", errors="replace")):
            if total + len(text[:longest]) > characters:
                return list(found)
            if text[:longest] not in found:
                found[text[:longest]] = None
                total += len(text[:longest])
    return list(found)


# ---------------------------------------------------------------- tokenizer and model


def make_tokenizer(texts: Sequence[str], settings: Settings) -> Any:
    """A byte-level BPE tokenizer trained on `texts`, with marks, think tags and the chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    special = [START, END, PAD, USER, ASSISTANT]
    bpe = Tokenizer(models.BPE())
    # Loading goes by the model's type and brings Qwen2's way to split text, whatever was saved: so train with it.
    like = Qwen2Tokenizer().backend_tokenizer
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = like.normalizer, like.pre_tokenizer, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary - 2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # As in the distilled models, the think tags are single tokens but no special ones: decoding keeps them.
    bpe.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in (chat.OPEN, chat.CLOSE)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=TEMPLATE,
        model_max_length=settings.context,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: Any, settings: Settings) -> Any:
    """A Qwen2 model with random weights drawn from the seed; input and output embeddings are one matrix."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(settings.seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.kv_heads,
            max_position_embeddings=settings.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


# ---------------------------------------------------------------- pre-training


def examples_from(tokenizer: Any, texts: Sequence[str], rows: Sequence[Row], settings: Settings) -> list[sft.Example]:
    """Every text and dialogue as one sequence of at most `context` tokens in which all tokens are learnt."""
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    cut = {"add_special_tokens": False, "truncation": True, "max_length": settings.context}
    sequences = [[start, *tokenizer(text, **cut)["input_ids"], end] for text in texts]
    for row in rows:
        text = row["response"].removeprefix(f"{chat.OPEN}\n")
        reply = tokenizer(text, add_special_tokens=False)["input_ids"]
        sequences.append([*chat.prompt_ids(tokenizer, row["question"]), *reply, end])
    return [sft.Example(ids[: settings.context], ids[: settings.context]) for ids in sequences]


def updates_from(examples: Sequence[sft.Example], settings: Settings) -> list[list[sft.Example]]:
    """Shuffled examples of all epochs in groups of about `update_tokens` tokens."""
    updates: list[list[sft.Example]] = [[]]
    for epoch in range(settings.epochs):
        order = list(examples)
        random.Random(f"{settings.seed}-{epoch}").shuffle(order)
        for example in order:
            if sum(len(other.ids) for other in updates[-1]) >= settings.update_tokens:
                updates.append([])
            updates[-1].append(example)
    return updates


def make(settings: Settings, staging: str | Path) -> dict[str, Any]:
    """Make tokenizer and model, pre-train, and leave a complete checkpoint in `staging`.

    Returns:
        record: facts for the manifest, equal for equal runs.
        history: one entry per update.
    """
    texts, rows = docstrings(settings.docstring_characters), dialogues(settings.dialogues, settings.seed)
    corpus = texts + [f"{row['question']}\n{row['response']}" for row in rows]
    checkpoints.empty(staging)
    trained_tokenizer = make_tokenizer(corpus, settings)
    trained_tokenizer.save_pretrained(staging)
    model = make_model(trained_tokenizer, settings)
    model.config.save_pretrained(staging)
    # From here on as every later stage reads it.
    tokenizer = chat.load_tokenizer(str(staging))
    updates = updates_from(examples_from(tokenizer, texts, rows, settings), settings)
    trained, history = sft.train(model, updates, settings, "fetch tiny")
    sft.save(trained, staging)
    record = {
        "text": {"docstrings": len(texts), "dialogues": len(rows), "digest": text_digest("\0".join(corpus))},
        "settings": dataclasses.asdict(settings),
        "updates": len(updates),
        "tokens": sum(len(example.ids) for update in updates for example in update),
        "loss": {"first": round(history[0]["loss"], 4), "last": round(history[-1]["loss"], 4)},
        "versions": checkpoints.versions(("torch", "transformers", "tokenizers")),
    }
    return {"record": record, "history": history}
