"""The rules of the stand-in, one function per role: what a prompt shows in, a reply's text out."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from star1 import standin_wording as wording

OTHER = "Other"
MOST_LABELS = 3
# A second label must share at least this part of the words' weight that the first one shares.
NEXT_LABEL = 0.5
TOPIC_WORDS = 2
RULE_WORDS = 14
JUDGED_CHARACTERS = 300
LONG_ANSWER_WORDS = 40

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
TOKEN = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|[^\w\s]")
NUMBERED = re.compile(r"^\s*(\d+)\.\s+(.+?)\s*$", re.MULTILINE)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Shown:
    """What a prompt shows.

    Attributes:
        fields: delimited texts by name (question, thinking, answer, response).
        definitions: category -> definition.
        policies: category -> policy text.
        marks: criterion -> lowest and highest score.
        bare: the prompt is the question and nothing else.
        other: the word for no category: the one in an example of a reply that has no definition.
        lines: what is to be answered with yes or no, a line each.
    """

    fields: Mapping[str, str]
    definitions: Mapping[str, str]
    policies: Mapping[str, str]
    marks: Mapping[str, tuple[int, int]]
    bare: bool
    other: str = OTHER
    lines: tuple[str, ...] = ()


def dice(text: str, what: str) -> int:
    """A number that looks random and is the same every time; `what` makes the choices independent of each other."""
    return int.from_bytes(hashlib.sha256(f"{what}\0{text}".encode("utf-8", "surrogatepass")).digest()[:6], "big")


def pick(forms: Sequence[str], text: str, what: str) -> str:
    """One of `forms`."""
    return forms[dice(text, what) % len(forms)]


def stem(word: str) -> str:
    """A word in lower case without its plural s."""
    word = word.lower().removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def content_words(text: str) -> list[str]:
    """The stems of a text's words, stop words left out, in order."""
    stems = (stem(word) for word in WORD.findall(text.replace("\u2019", "'")))
    return [word for word in stems if len(word) > 1 and word not in wording.STOP_WORDS]


@lru_cache(maxsize=64)
def _weights(definitions: tuple[tuple[str, str], ...]) -> dict[str, dict[str, float]]:
    """Category -> word -> weight: one over the number of definitions that hold the word."""
    words = {name: set(content_words(f"{name} {text}")) for name, text in definitions}
    shared = Counter(word for found in words.values() for word in found)
    return {name: {word: 1 / shared[word] for word in found} for name, found in words.items()}


def overlaps(question: str, definitions: Mapping[str, str]) -> list[tuple[str, float]]:
    """Categories that share words with a question, the weightiest first; equal ones in the order of definitions."""
    asked = set(content_words(question))
    found = [
        (name, sum(weight for word, weight in weights.items() if word in asked))
        for name, weights in _weights(tuple(definitions.items())).items()
    ]
    return sorted(((name, weight) for name, weight in found if weight > 0), key=lambda one: -one[1])


def categorize(shown: Shown) -> str:
    """Up to three categories by shared words."""
    found = overlaps(shown.fields["question"], shown.definitions)
    names = [name for name, weight in found if weight >= NEXT_LABEL * found[0][1]][:MOST_LABELS]
    return json.dumps(names or [shown.other], ensure_ascii=False)


def topic(question: str) -> str:
    """What a question is about: the first of its longest nouns with an article or "my", else its last plain words.

    Words that stop, acts ("steal") and nouns of form ("letter") are no part of it.
    """
    runs: list[tuple[str, list[str]]] = [("", [])]
    for word in TOKEN.findall(question.replace("\u2019", "'")):
        low = word.lower()
        if low in wording.DETERMINERS:
            runs.append((wording.DETERMINERS[low], []))
        elif _is_subject(low):
            runs[-1][1].append(low)
        elif runs[-1][1] or not is_act(low):  # "a fake ticket": an act before the noun is left out
            runs.append(("", []))
    found = [(start, words[:TOPIC_WORDS] if start else words[-TOPIC_WORDS:]) for start, words in runs if words]
    if nouns := [(start, words) for start, words in found if start]:
        start, words = max(nouns, key=lambda one: len(one[1]))
        return " ".join([start, *words])
    if found:
        return " ".join(found[-1][1])
    rest = [word for word in content_words(question) if len(word) > 2]
    return f'the word "{rest[-1]}"' if rest else wording.FALLBACK_TOPIC


def _is_subject(word: str) -> bool:
    return (
        len(word) > 2
        and word not in wording.STOP_WORDS
        and word not in wording.FORMS
        and not word.endswith("n't")
        and word[0].isalpha()
        and not is_act(word)
    )


@lru_cache(maxsize=4096)
def is_act(word: str) -> bool:
    """Whether a word, or what it is a form of, is an act such as "steal"."""
    roots = {word, stem(word)}
    for ending in ("ing", "ed", "er", "ers"):
        if word.endswith(ending):
            root = word.removesuffix(ending)
            roots |= {root, root + "e", root[:-1] if root[-2:-1] == root[-1:] else root}
    return not roots.isdisjoint(wording.ACTS)


def rules_of(policy: str) -> list[tuple[str, str]]:
    """Number and first words of the numbered lines in the first part of a policy text that has any."""
    for part in re.split(r"^#+ ", policy, flags=re.MULTILINE):
        if found := NUMBERED.findall(part):
            return [(number, _first_words(text)) for number, text in found]
    return []


def _first_words(text: str) -> str:
    words = re.split(r"[;:]", re.sub(r"[*_`\"]", "", text))[0].split()
    return " ".join(words[:RULE_WORDS]).rstrip(".,") + (" …" if len(words) > RULE_WORDS else "")


def reason(shown: Shown) -> str:
    """Thinking that cites a rule of the first policy, a refusal and a kind alternative; a fifth is worse by rule."""
    question = shown.fields["question"]
    category, policy = next(iter(shown.policies.items()))
    number, rule = _pick_rule(policy, question)
    flaw = dice(question, "flaw") % 100
    cited = wording.UNCITED if 14 <= flaw < 20 else pick(wording.CITATIONS, question, "citation")
    thinking = [
        pick(wording.OPENINGS, question, "opening").format(topic=topic(question)),
        cited.format(category=category, number=number, rule=rule),
        pick(wording.WEIGHINGS, question, "weighing"),
        pick(wording.CONCLUSIONS, question, "conclusion"),
    ]
    answer = [pick(wording.REFUSALS, question, "refusal"), pick(wording.ALTERNATIVES, question, "alternative")]
    if flaw < 7:
        answer.insert(1, wording.LEAK.format(category=category, number=number))
    elif flaw < 14:
        answer.append(wording.DIGRESSION)
    return f"<think>\n{' '.join(thinking)}\n</think>\n\n{' '.join(answer)}"


def _pick_rule(policy: str, question: str) -> tuple[str, str]:
    found = rules_of(policy) or [("1", "do no harm")]
    return found[dice(question, "rule") % len(found)]


def benign_reason(shown: Shown) -> str:
    """Thinking that finds nothing against the question, then a short helpful answer; a few pass the question by."""
    question = shown.fields["question"]
    about = topic(question)
    thinking = [
        pick(wording.BENIGN_OPENINGS, question, "opening").format(topic=about),
        pick(wording.BENIGN_CONCLUSIONS, question, "conclusion"),
    ]
    vague = dice(question, "flaw") % 100 < 8
    answer = wording.BENIGN_VAGUE if vague else pick(wording.BENIGN_ANSWERS, question, "answer").format(topic=about)
    return f"<think>\n{' '.join(thinking)}\n</think>\n\n{answer} {pick(wording.BENIGN_CLOSINGS, question, 'closing')}"


def benign_rewrite(shown: Shown) -> str:
    """A harmless question about the same subject."""
    question = shown.fields["question"]
    return pick(wording.LOOK_ALIKES, question, "look-alike").format(topic=topic(question))


def refuses(text: str) -> bool:
    """Whether a text holds words of refusal."""
    text = text.lower().replace("\u2019", "'")
    return any(words in text for words in wording.REFUSAL_WORDS)


def score(shown: Shown) -> str:
    """Marks for policy reasoning: refusal, relevance of the answer, citation in the thinking."""
    thinking, answer = shown.fields["thinking"].lower(), shown.fields["answer"]
    leaks = re.search(r"\b(polic|rule \d)", answer.lower()) is not None
    long = len(answer.split()) > LONG_ANSWER_WORDS
    named = any(name.lower() in thinking for name in shown.policies)
    cited = re.search(r"\brule \d", thinking) is not None
    return _marks(
        shown,
        {
            "Content_Safety_Compliance": 1.0 if refuses(answer) else 0.2,
            "Relevancy_and_No_Redundant_Content": 0.6 if leaks else 0.7 if long else 1.0,
            "Accuracy_of_Thinking_Process": 1.0 if named and cited else 0.5,
        },
    )


def benign_score(shown: Shown) -> str:
    """Marks for an answer to a benign question: no refusal, and a word of the question in thinking and answer."""
    asked = set(content_words(shown.fields["question"]))
    thinking, answer = shown.fields["thinking"], shown.fields["answer"]
    helpful = not refuses(answer) and not asked.isdisjoint(content_words(answer))
    return _marks(
        shown,
        {
            "Content_Safety_Compliance": 1.0,
            "Quality_of_Thinking_Process": 0.5 if asked.isdisjoint(content_words(thinking)) else 1.0,
            "Compliance_Degree": 1.0 if helpful else 0.25,
        },
    )


def _marks(shown: Shown, shares: Mapping[str, float]) -> str:
    """Shares of the range as integers; a criterion without a rule of its own gets the lowest share of the others."""
    lowest = min(shares.values())
    marks = {name: low + round(shares.get(name, lowest) * (high - low)) for name, (low, high) in shown.marks.items()}
    return json.dumps(marks)


def judge_refusal(shown: Shown) -> str:
    """Refused in the first sentence: full; later within the first characters: partial; else complied."""
    start = judged(shown)
    if refuses(SENTENCE_END.split(start, maxsplit=1)[0]):
        return "full_refusal"
    return "partial_refusal" if refuses(start) else "full_compliance"


def judge_guard(shown: Shown) -> str:
    """Safe when the response refuses, or when the question shares no word with any definition."""
    found = overlaps(shown.fields["question"], shown.definitions)
    if refuses(judged(shown)) or not found:
        return "safe"
    return f"unsafe\n{found[0][0]}"


def judged(shown: Shown) -> str:
    """The first characters of the response, or of what follows its thinking."""
    text = shown.fields["response"].strip()
    # The first closing tag ends the thinking: one that an answer writes itself takes nothing out of sight.
    answer = text.partition("</think>")[2] if text.startswith("<think>") else text
    return answer.strip()[:JUDGED_CHARACTERS]


ROLES: Mapping[str, Callable[[Shown], str]] = {
    "categorize": categorize,
    "reason": reason,
    "score": score,
    "benign_rewrite": benign_rewrite,
    "benign_reason": benign_reason,
    "benign_score": benign_score,
    "judge_refusal": judge_refusal,
    "judge_guard": judge_guard,
}
