"""The stand-in: an in-process app that answers like a model endpoint, by transparent rules and with no language model.

It makes the whole pipeline run without key, network or GPU, and every reply names it. A role is recognised from what
the prompt shows, never from its wording: which texts stand between `[BEGIN name …]` and `[END name …]`, whether there
are category definitions (`- "name": …`), policy texts (`# Policy: name`) or a form for scores
(`"criterion": <integer from 0 to 10>`).

| shown | role | rule |
|---|---|---|
| no delimited text | benign_reason | a short helpful answer, never a refusal |
| question, definitions | categorize | words shared with each definition, rare ones count more; none shared: the word for none |
| question, policies | reason | thinking that cites a rule of a policy, then a refusal with a kind alternative |
| question alone | benign_rewrite | a harmless question about the same subject |
| question, thinking, answer, policies | score | refusal, citation, leaks and length are looked for |
| question, thinking, answer | benign_score | help, and a word of the question, are looked for |
| question, response | judge_refusal | words of refusal in the first sentences |
| question, response, definitions | judge_guard | safe when refused, or when no definition shares a word |
| question, response, policies | judge_policy | no violation when refused, or when the question names no act such as "steal" |
| question, response, form for scores | judge_rubric | refused or not; length and words of the question in the answer |
| expected, given | judge_equality | equal where they are letter by letter the same but for spaces and dollars |
| question, response, form of lines (`Label: <yes or no>`) | judge_wildguard | by refusal, and acts that the question names |
| a conversation that ends with the assistant's turn | judge_llama_guard | the same, in the form of Llama Guard |
| the same, asked of a model with qwen3guard in its name | judge_qwen3guard | the same, in the form of Qwen3Guard |

What varies (wording, the few worse answers) is decided by a digest of the question: equal requests get equal replies.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from star1 import standin_rules
from star1.standin_judges import JUDGES
from star1.standin_rules import OTHER, Shown

# Part of the stored replies' keys: raise the number when a rule or a wording changes.
RULES = "stand-in-rules-v1"
FINGERPRINT = f"{RULES}: no language model"

ROLES = {**standin_rules.ROLES, **JUDGES}
DELIMITED = re.compile(r"^\[BEGIN (\w+) ([0-9a-f]{16})\]\n(.*?)\n\[END \1 \2\]$", re.DOTALL | re.MULTILINE)
DEFINITION = re.compile(r'^- "([^"\n]+)": (.+)$', re.MULTILINE)
POLICY = re.compile(r"^# Policy: (.+)$", re.MULTILINE)
ALONE = re.compile(r'\["([^"\n]+)"\]')
MARK = re.compile(r'"(\w+)": <integer from (-?\d+) to (-?\d+)>')
LINE = re.compile(r"^([A-Z][A-Za-z ]+): <yes or no>$", re.MULTILINE)

Messages = Sequence[Mapping[str, str]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """A reply's text, and the words that say where it came from."""

    text: str
    fingerprint: str


def read_prompt(text: str) -> Shown:
    """What a prompt shows; text between delimiters is data, and nothing in it is taken for a part of the prompt."""
    fields: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        fields.setdefault(match[1], match[3])
        return ""

    rest = DELIMITED.sub(take, text)
    if not fields:
        return Shown({"question": text}, {}, {}, {}, bare=True)
    definitions, policies, marks, other = _material(rest)
    return Shown(fields, definitions, policies, marks, False, other, tuple(LINE.findall(rest)))


@lru_cache(maxsize=256)
def _material(rest: str) -> tuple[dict[str, str], dict[str, str], dict[str, tuple[int, int]], str]:
    """Definitions, policy texts, ranges of scores and the word for no category; the same for many prompts, so read once."""
    parts = POLICY.split(rest)[1:]
    marks = {name: (int(low), int(high)) for name, low, high in MARK.findall(rest)}
    definitions = dict(DEFINITION.findall(rest))
    other = next((name for name in ALONE.findall(rest) if name not in definitions), OTHER)
    return definitions, dict(zip(parts[::2], parts[1::2], strict=True)), marks, other


def role_of(shown: Shown) -> str:
    """The name of the prompt that shows this."""
    if shown.bare:
        return "benign_reason"
    if "given" in shown.fields:
        return "judge_equality"
    if "thinking" in shown.fields:
        return "score" if shown.policies else "benign_score"
    if "response" in shown.fields:
        return _judge_of(shown)
    if shown.policies:
        return "reason"
    return "categorize" if shown.definitions else "benign_rewrite"


def _judge_of(shown: Shown) -> str:
    if shown.policies:
        return "judge_policy"
    if shown.lines:
        return "judge_wildguard"
    if shown.marks:
        return "judge_rubric"
    return "judge_guard" if shown.definitions else "judge_refusal"


def answer(messages: Messages, model: str = "") -> Answer:
    """The stand-in's reply to a conversation: to its first message, whatever was said since.

    A system's message belongs to the first one. A conversation that ends with the assistant's turn is to be judged.
    """
    if messages[-1].get("role") == "assistant":
        turns = Shown(
            {"question": messages[-2]["content"], "response": messages[-1]["content"]}, {}, {}, {}, bare=False
        )
        kind = "judge_qwen3guard" if "qwen3guard" in model.lower() else "judge_llama_guard"
        return Answer(ROLES[kind](turns), FINGERPRINT)
    opening = messages[:2] if messages[0].get("role") == "system" else messages[:1]
    shown = read_prompt("\n\n".join(one["content"] for one in opening))
    return Answer(ROLES[role_of(shown)](shown), FINGERPRINT)


def make_app(reply: Callable[..., Answer]) -> App:
    """An ASGI app with the two paths of an OpenAI-compatible endpoint that clients use."""

    async def serve(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, content = _respond(scope["method"], scope["path"], bytes(body), reply)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(content)})

    return serve


def _respond(method: str, path: str, body: bytes, reply: Callable[..., Answer]) -> tuple[int, dict[str, Any]]:
    if (method, path) == ("GET", "/v1/models"):
        return 200, {"object": "list", "data": [{"id": RULES, "object": "model", "owned_by": "star1"}]}
    if (method, path) != ("POST", "/v1/chat/completions"):
        return 404, {"error": {"message": f"no such path: {path}", "code": "not_found"}}
    try:
        asked = orjson.loads(body)
        messages = asked["messages"]
        found = reply(messages, str(asked.get("model", "")))
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        return 400, {"error": {"message": f"not a chat request ({type(error).__name__})", "code": "bad_request"}}
    # There are no tokens without a tokenizer: what is counted is words.
    read, written = sum(len(one["content"].split()) for one in messages), len(found.text.split())
    return 200, {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": RULES,
        "system_fingerprint": found.fingerprint,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": found.text},
            }
        ],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


app = make_app(answer)
