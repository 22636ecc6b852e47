"""What all passports share: the project's books, its policy pack, and what one passport has to say besides its facts."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from star1.errors import InputError
from star1.passport.address import Places
from star1.passport.books import Books
from star1.passport.finding import row_of
from star1.records import Row, file_digest, text_digest

if TYPE_CHECKING:  # slow to load; only what traces calls needs them
    from star1.judge_settings import Judge
    from star1.passport.asked import Asked, Found, Trace
    from star1.policies import Pack

FIRST_LINE = 100


@dataclass
class Page:
    """One passport in the making.

    Attributes:
        problems: what contradicts something else.
        missing: artifacts that are not there, with what brings them.
    """

    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class Desk:
    """Where passports are made.

    Args:
        root: the project's folder.
        replies: whether stored replies are shown in full.
        everything: whether long lists are.
    """

    def __init__(self, root: Path, *, replies: bool = False, everything: bool = False) -> None:
        self.root, self.replies, self.everything = root, replies, everything
        self.books, self.places = Books(root), Places(root)
        self.page = Page()
        self._faults: dict[str, str | None] = {}

    @cached_property
    def pack(self) -> "Pack":
        """The policy pack that the run names."""
        from star1.policies import load_pack

        return load_pack(self.pack_folder)

    @property
    def pack_folder(self) -> Path:
        """Where the policy pack is."""
        return self.root / "policies" / str(self.books.setting("data/categorized.jsonl", "policy.pack"))

    def there(self, path: str) -> bool:
        """Whether an artifact is there; notes it where it is not, and where it is not the recorded one."""
        if not (self.root / path).is_file():
            # By its path: a rule that makes several things is no target.
            line = f"{path}: not there; `snakemake {shlex.quote(path)}` or `dvc pull` brings it"
            if line not in self.page.missing:
                self.page.missing.append(line)
            return False
        if path not in self._faults:
            self._faults[path] = self.books.fault(path)
        if (fault := self._faults[path]) and fault not in self.page.problems:
            self.page.problems.append(fault)
        return True

    def row(self, path: str, name: str) -> Row | None:
        """A row of an artifact by its id; None where it is not in it, or there is none."""
        return row_of(self.root / path, name) if self.there(path) else None

    def some(self, links: Sequence[Any], most: int = 5) -> list[Any]:
        """The first of a list, or with `everything` all of it."""
        return list(links) if self.everything else list(links[:most])

    def file(self, path: str) -> Row:
        """A file with its digest."""
        return {"path": path, "sha256": file_digest(self.root / path)}

    def training_files(self) -> dict[str, list[str]]:
        """The data files of each fine-tuned checkpoint that is there."""
        made = sorted(path.parent.name for path in self.root.glob("models/*/manifest.json"))
        return {run: self.files_of(run) for run in made}

    def files_of(self, run: str) -> list[str]:
        """The data files of one run."""
        inputs = self.books.inputs(f"models/{run}")
        if found := [path for path in inputs if path.startswith("data/") and path.endswith(".jsonl")]:
            return found
        from star1.datasets import data_file  # slow to load, and seldom needed
        from star1.runs import by_model

        own = by_model(self.books.setting(f"models/{run}", "finetune.runs") or {})
        names = self.books.setting(f"models/{run}", f"finetune.runs.{own.get(run, run)}") or {}
        selections = self.books.setting(f"models/{run}", "curate.selections") or {}
        return [data_file(name, selections) for name in names.get("data") or ()]

    def trained(self, name: str, question: str) -> Iterator[Row]:
        """The runs with a data file that holds a row: by its id and its text, since benign rows have the same ids."""
        for run, files in self.training_files().items():
            for file in files:
                row = row_of(self.root / file, name)
                if row and row.get("question") == question:
                    yield {"passport": f"model:{run}", "file": file}

    # --- model calls -------------------------------------------------------------------------------------------------

    def trace(self, stage: str, output: str, section: str, role: str) -> "Trace":
        """How a stage asked: endpoint and sampling as it was run with.

        Raises:
            InputError: neither dvc.lock nor params.yaml tells.
        """
        from star1.endpoints import Endpoint, Sampling
        from star1.passport.asked import Trace

        recorded = self.books.recorded(output)
        start = "llm.endpoints."
        found = [value for name, value in recorded.items() if name.startswith(start)]
        if not found:
            names = self.books.setting(output, f"llm.roles.{role}")
            known = self.books.setting(output, "llm.endpoints") or {}
            found = [known[name] for name in ([names] if isinstance(names, str) else names or ()) if name in known]
        if not found:
            raise InputError(f"stage {stage}", "no endpoint", "one in dvc.lock or params.yaml (llm.roles)")
        endpoint, *others = (Endpoint.model_validate(one) for one in found)
        sampling = Sampling.model_validate(self.books.setting(output, f"{section}.sampling") or {})
        return Trace(endpoint, sampling, self.root / "data/replies" / f"{stage}.jsonl", tuple(others))

    def judge(self, output: str, name: str) -> "Judge":
        """A judge as it was when it made an output.

        Raises:
            InputError: neither dvc.lock nor params.yaml has one of this name.
        """
        from star1.judge_settings import Judge

        judges = self.books.setting(output, "judge.judges") or {}
        if name not in judges:
            raise InputError(output, f"judge {name!r}", "one in dvc.lock or params.yaml (judge.judges)")
        return Judge.model_validate(judges[name])

    def judge_trace(self, stage: str, output: str, name: str, how: "Judge") -> "Trace":
        """How a judge was asked: endpoint and sampling as it was run with.

        Raises:
            InputError: neither dvc.lock nor params.yaml has its endpoint.
        """
        from star1.endpoints import Endpoint
        from star1.passport.asked import Trace

        known = self.books.setting(output, "llm.endpoints") or {}
        found = [self.books.setting(output, f"llm.endpoints.{one}") or known.get(one) for one in how.endpoints]
        if None in found:
            raise InputError(f"judge {name}", f"no endpoint {how.endpoint!r}", "one in dvc.lock or params.yaml")
        endpoint, *others = (Endpoint.model_validate(one) for one in found)
        return Trace(endpoint, how.sampling, self.root / "data/replies" / f"{stage}.jsonl", tuple(others))

    def calls(self, stage: str, output: str, found: "Found", value: Any) -> list[Row]:
        """The calls behind a value in `output`, or behind there being none, and whether they give it."""
        told = [self._call(stage, one, found.sampling) for one in found.trail]
        if found.value == value or (value is None and not found.complete):
            return told
        if found.complete:
            read = _short(found.reason if found.value is None else found.value)
            self.page.problems.append(f"{stage}: the stored replies read as {read}, not as {_short(value)}")
        else:
            changed = self.books.changed(output)
            since = f" (changed since: {', '.join(changed)})" if changed else ""
            self.page.problems.append(f"{stage}: no stored reply to what would be asked now{since}")
        return told

    def _call(self, stage: str, one: "Asked", sampling: Mapping[str, Any]) -> Row:
        request, failed = one.request, [record for record in one.records if record is not one.answer]
        told: Row = {"stage": stage, "role": request.role, "key": one.key, "item": request.item}
        told |= {"turn": len(request.messages) // 2 + 1, "sample": request.sample, "sampling": dict(sampling)}
        told |= {"templates": self._templates(one)}
        told |= {"prompt_digest": text_digest("\0".join(turn["content"] for turn in request.messages))}
        told |= {"store": f"data/replies/{stage}.jsonl", "attempts": len(one.records)}
        if failed:
            told["other_attempts"] = [str(record.get("reason") or record.get("status")) for record in failed]
        if one.answer is not None:
            return told | self._answer(one.answer)
        return told | {"reply": None, "records_of_its_id": [self._other(record) for record in one.others]}

    def _other(self, record: Row) -> Row:
        """A record of the same row under another key: it was asked with other templates, policies or settings."""
        about = picked(record, "key", "status", "reason", "model", "time")
        return about | (self._answer(record) if isinstance(record.get("reply"), dict) else {})

    def _answer(self, record: Row) -> Row:
        from star1.replies import usage_tokens

        reply = record["reply"]
        text = str(reply.get("content") or reply.get("reasoning_content") or "")
        told: Row = {
            name: record[name]
            for name in ("label", "model", "served_model", "fingerprint", "endpoint", "attempt", "seconds", "time")
            if record.get(name) is not None
        }
        if tokens := usage_tokens(record.get("usage")):
            told |= {"prompt_tokens": tokens[0], "reply_tokens": tokens[1]}
        told |= {"reply_digest": text_digest(text), "finish_reason": reply.get("finish_reason")}
        return told | ({"reply": reply} if self.replies else {"first_line": _short(text)})

    def _templates(self, one: "Asked") -> list[Row]:
        """The prompt's file, and those of the turns that asked for the reply again."""
        roles = [one.request.role, *["repair"] * (one.request.template.count("+"))]
        folder = self.pack_folder.relative_to(self.root)
        digests = one.request.template.split("+")
        return [
            {"path": f"{folder}/prompts/{role}.md", "sha256": digest}
            for role, digest in zip(roles, digests, strict=True)
        ]

    def policies(self, names: Sequence[str]) -> list[Row]:
        """The policy texts of categories."""
        folder = self.pack_folder.relative_to(self.root)
        slugs = {name: one.slug for name, one in self.pack.categories.items()}
        return [
            {"category": name} | self.file(f"{folder}/policies/{slugs[name]}.md") for name in names if name in slugs
        ]

    def stages(self, *outputs: str) -> list[Row]:
        """The records of the stages that made artifacts."""
        return [self.books.told(output) for output in outputs]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    line = next(iter(text.strip().splitlines()), "")
    return line if len(line) <= FIRST_LINE else f"{line[:FIRST_LINE]}…"


def picked(row: Mapping[str, Any], *names: str) -> Row:
    """Some fields of a row, those that it has."""
    return {name: row[name] for name in names if name in row}
