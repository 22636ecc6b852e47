"""Sheets for Label Studio: its tasks, its labelling configuration, and its exports as JSON and JSON-MIN.

Source: labelstud.io/guide/task_format and /guide/export, /tags/choices. The item's id is in a field of its own, since `id` is
that of the task.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from star1.auditing.questions import QUESTIONS, UNCLEAR
from star1.auditing.sheets import ANNOTATOR, ITEM, QUESTION, Given, Sheet
from star1.records import write_json, write_text

# Texts keep their lines; nothing of them is taken for markup in a `Text`.
STYLE = ".htx-text { white-space: pre-wrap; }"


def write(tasks: Path, config: Path, sheet: Sheet) -> None:
    """Write tasks to import, and the configuration to paste into the project's settings."""
    write_json(tasks, [{"data": dict(row)} for row in sheet.rows])
    write_text(config, configuration(sheet))


def configuration(sheet: Sheet) -> str:
    """The labelling configuration of a sheet, as XML."""
    lines = ["<View>", f"  <Style>{STYLE}</Style>"]
    for name in (QUESTION, *sheet.shown):
        lines += [f"  <Header value={quoteattr(name.capitalize())}/>", f'  <Text name="{name}" value="${name}"/>']
    for name in sheet.asked:
        question = QUESTIONS[name]
        lines.append(f"  <Header value={quoteattr(question.title)}/>")
        lines.append(f'  <Choices name="{name}" toName="{sheet.shown[0]}" choice="single-radio" required="true">')
        lines += [_choice(label, f"{label}: {told}") for label, told in question.labels.items()]
        lines += [_choice(UNCLEAR, f"{UNCLEAR}: cannot be told"), "  </Choices>"]
    return "\n".join([*lines, "</View>", ""])


def _choice(label: str, told: str) -> str:
    # The alias is what the export has.
    return f"    <Choice value={quoteattr(told)} alias={quoteattr(label)}/>"


def is_export(content: Any) -> bool:
    """Whether a JSON document is an export of Label Studio."""
    return isinstance(content, list) and all(
        isinstance(one, dict) and ("annotations" in one or "annotation_id" in one) for one in content
    )


def read(path: Path, content: Sequence[Mapping[str, Any]], asked: Sequence[str]) -> Iterator[Given]:
    """Read an export; skipped annotations (`was_cancelled`) count as not given."""
    for number, task in enumerate(content):
        where = f"{path}, task {task.get('id', number)}"
        if "annotations" not in task:
            yield _minimal(where, task, asked)
            continue
        data = task.get("data") or {}
        done = [one for one in task["annotations"] or () if not one.get("was_cancelled")]
        for one in done:
            labels = dict.fromkeys(asked, "")
            for part in one.get("result") or ():
                if part.get("from_name") in labels:
                    labels[part["from_name"]] = _label((part.get("value") or {}).get("choices"))
            present = {name: label for name, label in labels.items() if label}
            yield Given(where, str(data.get(ITEM, "")), _who(one.get("completed_by")), present, data.get(QUESTION))


def _minimal(where: str, task: Mapping[str, Any], asked: Sequence[str]) -> Given:
    labels = {name: _label(task[name]) for name in asked if name in task}
    return Given(where, str(task.get(ITEM, "")), _who(task.get(ANNOTATOR)), labels, task.get(QUESTION))


def _label(choices: Any) -> str:
    """One label; several, which the configuration does not let pass, are no label that there is."""
    return " and ".join(map(str, choices)) if isinstance(choices, list) else str(choices or "")


def _who(person: Any) -> str:
    if isinstance(person, dict):
        person = person.get("email") or person.get("id")
    return "unknown" if person is None else str(person)
