"""Keys that this process knows, struck out of all that is told."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from star1.doctor.about import About
from star1.doctor.findings import Outcome
from star1.endpoints import redact

KNOWN = ("HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY")
IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")


def secrets(about: About) -> Iterator[str]:
    """The values of variables that hold keys."""
    keys = [one.key for one in about.params.llm.endpoints.values()] + [
        about.params.generate.options.get("key_variable")
    ]
    for name in dict.fromkeys([*KNOWN, *(str(key) for key in keys if key)]):
        if value := about.environment.get(name, "").strip():
            yield value


def strike(outcome: Outcome, about: About) -> Outcome:
    """The outcome without keys, without names and passwords in addresses, and on one line."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(outcome):
        text = getattr(outcome, field.name)
        for secret in secrets(about):
            text = redact(text, secret)
        changed[field.name] = " ".join("".join(c if c.isprintable() else " " for c in IN_ADDRESS.sub("", text)).split())
    return dataclasses.replace(outcome, **changed)
