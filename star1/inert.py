"""Control tokens of chat templates in a text that a model is shown: made inert, and back.

A server renders messages into one text and cuts that into tokens. Most tokenizers take `<|im_end|>` for the end of a turn
wherever it stands, so that a judged text could close its message and speak as somebody else. A word joiner behind the first
bracket keeps the token from being recognised; readers, people and models alike, still see what was written.
"""

import re

JOINER = "\u2060"
# Words between <…>, <<…>> or […] that are control tokens of some family; what is between bars always is.
_WORDS = (
    "s|bos|eos|pad|unk|mask|sys|inst|start_of_turn|end_of_turn|system_prompt|available_tools|tool_calls|tool_results"
    # What the chat templates of Llama Guard and Qwen3Guard put around their parts.
    "|(?:begin|end) (?:conversation|unsafe content categories|safety policy|refusal policy)"
)
TOKEN = re.compile(rf"(<<?|\[)({JOINER}*)(?=[|\uff5c]|/?(?:{_WORDS})(?:>>?|\]))", re.IGNORECASE)


def inert(text: str) -> str:
    """A text whose control tokens are none to a tokenizer."""
    return TOKEN.sub(rf"\1\2{JOINER}", text)


def revived(text: str) -> str:
    """What was made inert as it was; undoes `inert` exactly, also where the text held joiners before."""
    return TOKEN.sub(lambda match: match[1] + match[2][1:], text)
