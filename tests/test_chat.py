"""Prompts rendered once with the model's own template; responses taken apart."""

from typing import Any

import pytest

from star1 import chat, tiny
from star1.errors import InputError, SettingError
from tests.micro import tokenizer_and_model


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_and_model()[0]


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>\na\n</think>\n\nb", False, ("a", "b")),
        ("<think>\na\n</think>\n\nb", True, ("a", "b")),
        ("a\n</think>\n\nb", True, ("a", "b")),
        ("a\n</think>\n\nb", False, ("a", "b")),
        ("<think>\n\n</think>\n\nb", False, ("", "b")),
        ("<think>a, and on", False, ("a, and on", None)),
        ("a, and on", True, ("a, and on", None)),
        ("Well. <think>a, and on", False, ("Well. <think>a, and on", None)),  # was taken as an answer
        ("just an answer", False, (None, "just an answer")),
        ("<think>a</think>b</think>c", False, ("a", "b</think>c")),
        ("", True, ("", None)),
        ("", False, (None, "")),
    ],
)
def test_split_thinking(text: str, opened: bool, expected: tuple[str | None, str | None]) -> None:
    assert chat.split_thinking(text, opened) == expected


def test_prompt_starts_once_and_opens_the_think_block(tokenizer: Any) -> None:
    ids = chat.prompt_ids(tokenizer, "What is tea?")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids) == "<|start|><|user|>What is tea?<|assistant|><think>\n"
    assert chat.opens_thinking(tokenizer)
    assert chat.knows_thinking(tokenizer)


def test_template_drops_old_thinking(tokenizer: Any) -> None:
    """As the distilled models' templates do: this is why training renders the response itself."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nt\n</think>\n\na"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<|start|><|user|>q<|assistant|>a<|end|>"


def test_think_tags_are_single_tokens_that_decoding_keeps(tokenizer: Any) -> None:
    for tag in (chat.OPEN, chat.CLOSE):
        (token,) = tokenizer(tag, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode([token], skip_special_tokens=True) == tag


def with_template(template: str) -> Any:
    made = tokenizer_and_model()[0]
    made.chat_template = template
    return made


def test_a_template_without_thinking_is_told_from_one_with() -> None:
    plain = with_template("{{ bos_token }}{{ messages[0]['content'] }}<|assistant|>")
    assert not chat.opens_thinking(plain)
    assert not chat.knows_thinking(plain)


def test_two_start_tokens_are_an_error() -> None:
    with pytest.raises(SettingError, match="two sequence start tokens"):
        chat.prompt_ids(with_template("{{ bos_token }}{{ bos_token }}{{ messages[0]['content'] }}"), "q")


def test_start_token_is_added_where_only_the_tokenizer_adds_it() -> None:
    """Llama's way: its tokenizer adds the token, its template may or may not."""
    from tokenizers.processors import TemplateProcessing

    made = with_template("{{ messages[0]['content'] }}<|assistant|>")
    assert chat.prompt_ids(made, "q")[0] != made.bos_token_id
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tiny.START} $A", special_tokens=[(tiny.START, made.bos_token_id)]
    )
    for template in (made.chat_template, "{{ bos_token }}" + made.chat_template):
        made.chat_template = template
        ids = chat.prompt_ids(made, "q")
        assert ids[0] == made.bos_token_id
        assert ids.count(made.bos_token_id) == 1


def test_a_folder_without_tokenizer_is_told_in_one_line(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="tokenizer not readable") as caught:
        chat.load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_template_is_refused(tmp_path: Any) -> None:
    made = tokenizer_and_model()[0]
    made.chat_template = None
    made.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no chat template"):
        chat.load_tokenizer(str(tmp_path))
