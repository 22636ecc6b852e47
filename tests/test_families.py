"""What is read and what is learnt of a row, for each family of models, with templates in the family's shape.

Templates and tokens are written for these tests: what counts is where the start token comes from, who opens the think
block, what becomes of earlier thinking, and which token ends a turn.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from star1 import chat, inspecting, sft
from star1.errors import InputError, SettingError
from star1.records import write_rows
from tests.micro import checkpoint, small_settings

pytest.importorskip("torch")
ROW = {"id": "7", "question": "What is tea?", "response": "<think>\nIt is a drink.\n</think>\n\nA drink."}

# Distilled models: start token in the template, generation prompt opens the think block, earlier thinking is deleted.
DISTILLED = """{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}{{ '<|User|>' + turn.content }}{% endif %}
{%- if turn.role == 'assistant' %}{% set said = turn.content %}
{%- if '</think>' in said %}{% set said = said.split('</think>')[-1].strip() %}{% endif %}{{ '<|Assistant|>' + said + eos_token }}
{%- endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"""
# Qwen2.5 instruct: no start token at all, a system turn that nobody asked for, marked turns.
QWEN_INSTRUCT = """{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nBe of help.<|im_end|>\\n' }}{% endif %}
{%- for turn in messages %}{{ '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
# Llama-3.1 instruct: the template and the tokenizer both give the start token, headers, turns that end with their own token.
LLAMA_INSTRUCT = """{{ bos_token }}{{ '<|head|>system<|/head|>\\n\\nDate: one day\\n\\n<|eot|>' }}
{%- for turn in messages %}{{ '<|head|>' + turn.role + '<|/head|>\\n\\n' + turn.content | trim + '<|eot|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}"""


@dataclass(frozen=True)
class Family:
    """A tokenizer's and template's manners, and what becomes of `ROW`.

    Attributes:
        adds: the tokenizer itself puts a start token before whatever it is given.
        read: what is masked.
        learnt: what is learnt.
        without: what is learnt without thinking.
    """

    template: str
    start: str | None
    end: str
    marks: tuple[str, ...]
    adds: bool
    read: str
    learnt: str
    without: str


FAMILIES = {
    "Qwen2 distill": Family(
        DISTILLED,
        "<|begin|>",
        "<|finish|>",
        ("<|User|>", "<|Assistant|>"),
        False,
        "<|begin|><|User|>What is tea?<|Assistant|><think>\n",
        "It is a drink.\n</think>\n\nA drink.<|finish|>",
        "\n</think>\n\nA drink.<|finish|>",
    ),
    "Llama distill": Family(
        DISTILLED,
        "<|begin|>",
        "<|finish|>",
        ("<|User|>", "<|Assistant|>"),
        True,
        "<|begin|><|User|>What is tea?<|Assistant|><think>\n",
        "It is a drink.\n</think>\n\nA drink.<|finish|>",
        "\n</think>\n\nA drink.<|finish|>",
    ),
    "Qwen2.5 instruct": Family(
        QWEN_INSTRUCT,
        None,
        "<|im_end|>",
        ("<|im_start|>",),
        False,
        "<|im_start|>system\nBe of help.<|im_end|>\n<|im_start|>user\nWhat is tea?<|im_end|>\n<|im_start|>assistant\n",
        "<think>\nIt is a drink.\n</think>\n\nA drink.<|im_end|>",
        "A drink.<|im_end|>",
    ),
    "Llama-3.1 instruct": Family(
        LLAMA_INSTRUCT,
        "<|text|>",
        "<|eot|>",
        ("<|head|>", "<|/head|>"),
        True,
        "<|text|><|head|>system<|/head|>\n\nDate: one day\n\n<|eot|><|head|>user<|/head|>\n\nWhat is tea?<|eot|>"
        "<|head|>assistant<|/head|>\n\n",
        "<think>\nIt is a drink.\n</think>\n\nA drink.<|eot|>",
        "A drink.<|eot|>",
    ),
}


def tokenizer_of(family: Family) -> Any:
    """A byte-level tokenizer with the family's special tokens and manner of starting a sequence."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [*filter(None, (family.start, family.end)), *family.marks]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        [ROW["question"], ROW["response"]] * 3,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if family.template == DISTILLED:
        bpe.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in (chat.OPEN, chat.CLOSE)])
    if family.adds and family.start:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{family.start} $A", special_tokens=[(family.start, bpe.token_to_id(family.start))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=family.start,
        eos_token=family.end,
        additional_special_tokens=list(family.marks),
        chat_template=family.template,
    )


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def tokenizer(family: Family) -> Any:
    return tokenizer_of(family)


def example_of(tokenizer: Any, **changes: Any) -> sft.Example:
    example = sft.render(tokenizer, ROW, small_settings(**changes))
    assert isinstance(example, sft.Example)
    return example


def texts(tokenizer: Any, example: sft.Example) -> list[tuple[bool, str]]:
    return [(learnt, tokenizer.decode(ids)) for learnt, ids in inspecting.parts_of(example)]


def test_prompt_is_read_and_thinking_answer_and_end_are_learnt(family: Family, tokenizer: Any) -> None:
    assert texts(tokenizer, example_of(tokenizer)) == [(False, family.read), (True, family.learnt)]


def test_without_thinking(family: Family, tokenizer: Any) -> None:
    """An empty block for a model that thinks, the answer alone for one that does not."""
    assert texts(tokenizer, example_of(tokenizer, think=False)) == [(False, family.read), (True, family.without)]


def test_one_start_token_or_none(family: Family, tokenizer: Any) -> None:
    """On Llama's tokenizers, a rendered template that is tokenised with the defaults starts twice."""
    ids = example_of(tokenizer).ids
    if family.start is None:
        assert tokenizer.bos_token_id is None
        assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    else:
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id
    twice = tokenizer(chat.prompt_text(tokenizer, "q"))["input_ids"]
    assert (twice[:2] == [tokenizer.bos_token_id] * 2) == family.adds  # so the case is a real one


def test_the_published_prompt_starts_exactly_twice_where_the_family_does_so(family: Family, tokenizer: Any) -> None:
    """`bos: doubled` is what the rendered text gives when it is tokenised again; elsewhere it is no other prompt."""
    one, doubled = (chat.prompt_ids(tokenizer, "q", bos) for bos in ("one", "doubled"))
    assert doubled == list(tokenizer(chat.prompt_text(tokenizer, "q"))["input_ids"])
    assert doubled == ([tokenizer.bos_token_id, *one] if family.adds else one)
    assert [chat.starts(tokenizer, ids) for ids in (one, doubled)] == (
        [0, 0] if family.start is None else [1, 2 if family.adds else 1]
    )


def test_doubling_that_adds_anything_else_is_an_error() -> None:
    """A tokenizer that also ends what it is given: the published prompt would be another one than is told."""
    from tokenizers import processors

    tokenizer = tokenizer_of(FAMILIES["Llama distill"])
    names = ("<|begin|>", "<|finish|>")
    tokens = [(name, tokenizer.convert_tokens_to_ids(name)) for name in names]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A <|finish|>", special_tokens=tokens
    )
    assert chat.starts(tokenizer, chat.prompt_ids(tokenizer, "q")) == 1
    with pytest.raises(SettingError, match=r"generate.bos: doubled: \d+ tokens .* expected one start token more"):
        chat.prompt_ids(tokenizer, "q", "doubled")


def test_the_end_of_the_turn_is_learnt_once_and_last(family: Family, tokenizer: Any) -> None:
    labels = example_of(tokenizer).labels
    assert labels[-1] == tokenizer.eos_token_id
    assert labels.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(labels[-1:]) == family.end


def test_the_training_prompt_is_the_generation_prompt(family: Family, tokenizer: Any) -> None:
    prompt = chat.prompt_ids(tokenizer, ROW["question"])
    example = example_of(tokenizer)
    assert example.ids[: len(prompt)] == prompt
    assert [label for label in example.labels if label != sft.IGNORED] == example.ids[len(prompt) :]
    assert tokenizer.decode(prompt) == chat.prompt_text(tokenizer, ROW["question"]) == family.read


def test_the_whole_template_agrees_where_it_deletes_nothing(family: Family, tokenizer: Any) -> None:
    """What the template makes of the whole conversation: our text, but for the thinking that the distilled ones delete."""
    turns = [{"role": "user", "content": ROW["question"]}, {"role": "assistant", "content": ROW["response"]}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
    if family.template == DISTILLED:
        assert "It is a drink." not in whole
        assert whole == family.read.removesuffix("<think>\n") + "A drink.<|finish|>"
    else:
        assert whole == family.read + family.learnt


def test_too_long_rows_are_dropped_with_a_reason_and_never_cut(family: Family, tokenizer: Any) -> None:
    size = len(example_of(tokenizer).ids)
    assert sft.render(tokenizer, ROW, small_settings(max_tokens=size)) == example_of(tokenizer)
    assert sft.render(tokenizer, ROW, small_settings(max_tokens=size - 1)) == f"longer than {size - 1} tokens"


def test_a_row_that_spells_out_a_start_or_end_is_dropped_with_a_reason(family: Family, tokenizer: Any) -> None:
    """The text of such a token is read as the token: a second start, or an end that was learnt in mid-sentence."""
    reason, settings = "sequence start or end within its text", small_settings()
    for token in filter(None, (family.start, family.end)):
        response = ROW["response"] + token + " And more."
        assert sft.render(tokenizer, ROW | {"response": response}, settings) == reason
        assert sft.render(tokenizer, ROW | {"question": f"What is {token} tea?"}, settings) == reason
    assert isinstance(sft.render(tokenizer, ROW | {"question": "What ends a turn?"}, settings), sft.Example)


# ---------------------------------------------------------------- star1 train inspect


def test_marked_text_says_what_is_learnt() -> None:
    tokenizer = tokenizer_of(FAMILIES["Llama-3.1 instruct"])
    lines = inspecting.one_row(tokenizer, [ROW], 0, small_settings())
    assert lines[0].startswith("row 0 (id 7): ")
    assert lines[0].endswith("BOS '<|text|>' x 1, 0 learnt; EOS '<|eot|>' x 3, 1 learnt")
    assert lines[1:] == [
        "read   | <|text|><|head|>system<|/head|>⏎",
        "read   | ⏎",
        "read   | Date: one day⏎",
        "read   | ⏎",
        "read   | <|eot|><|head|>user<|/head|>⏎",
        "read   | ⏎",
        "read   | What is tea?<|eot|><|head|>assistant<|/head|>⏎",
        "read   | ⏎",
        "learnt | <think>⏎",
        "learnt | It is a drink.⏎",
        "learnt | </think>⏎",
        "learnt | ⏎",
        "learnt | A drink.<|eot|>",
    ]


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The project's parameters, with a base model and three rows in place."""
    from tests.conftest import ROOT

    checkpoint(tmp_path / "models/base/tiny")
    broken = ROW | {"id": "8", "response": "no block"}
    write_rows(tmp_path / "data/star1.jsonl", [broken, ROW, ROW | {"id": "9", "question": "tea " * 600}])
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return found


def test_inspect_shows_a_runs_own_rows(values: dict[str, Any]) -> None:
    lines = inspecting.inspect(values, "star1", None, None)
    assert lines[0].startswith("3 rows, 1 used: ")
    assert lines[1] == "1 rows with BOS '<|start|>' x 1, 0 learnt; EOS '<|end|>' x 1, 1 learnt"
    assert lines[2:4] == [
        "1 dropped, longer than 512 tokens: rows 2",
        "1 dropped, no complete think block and answer: rows 0",
    ]
    assert lines[5].startswith("row 1 (id 7): ")
    assert "learnt | It is a drink.⏎" in lines
    assert inspecting.inspect(values, "star1", None, "7") == lines
    assert inspecting.inspect(values, "star1", 0, None)[-1] == (
        "row 0 (id 8): dropped, no complete think block and answer"
    )


def test_inspect_of_what_is_not_there(values: dict[str, Any]) -> None:
    for run, row, identity, message in (
        ("nobody", None, None, "not in finetune.runs; expected one of star1"),
        ("star1", 3, None, "--row: 3; expected 0 to 2"),
        ("star1", None, "77", "--id: 77; expected the id of one of the 3 rows"),
        ("star1+benign", None, None, r"benign\.jsonl: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            inspecting.inspect(values, run, row, identity)
    with pytest.raises(InputError, match=r"expected one of star1, star1\+benign\.$"):  # each was named twice
        inspecting.inspect(values, "nobody", None, None)
    write_rows("data/star1.jsonl", [])
    with pytest.raises(InputError, match="no training rows"):  # "expected 0 to -1"
        inspecting.inspect(values, "star1", None, None)
