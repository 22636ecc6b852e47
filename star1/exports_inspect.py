"""Judged answers as logs of Inspect, written through its own library."""

from pathlib import Path
from typing import Any

import star1
from star1.errors import SettingError
from star1.exports import Answer, Answers, sha256, stamp, target
from star1.records import Row
from star1.tasks import prompt_of

STOP = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter"}


def inspect_log(found: Answers, folder: Path) -> list[Path]:
    """A model's answers to a benchmark as an `.eval` log; samples of a row are its epochs, an unscored one is unscored there too.

    Raises:
        SettingError: Inspect is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError:
        hint = "pip install 'star1[inspect]'"
        raise SettingError("export --format inspect", "no inspect_ai", "the optional dependency", hint) from None
    path = folder / found.model / f"{found.benchmark}.eval"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_eval_log(_log(found), str(path), format="eval")
    return [path]


def _log(found: Answers) -> Any:
    from inspect_ai.log import EvalLog, EvalStats

    samples = [_sample(found, name, one) for name, answers in found.samples.items() for one in answers]
    when = stamp(found.made)
    return EvalLog(
        status="success",
        eval=_spec(found, when),
        results=_results(found),
        stats=EvalStats(started_at=when, completed_at=when),
        samples=samples,
    )


def _spec(found: Answers, when: str) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

    names = list(found.tests)
    place = found.entry.get("repository") or found.entry.get("path")
    judged = {"judged": found.result["judged"], "measure": found.result["measure"]}
    return EvalSpec(
        created=when,
        # The same answers have the same names, whenever they are exported.
        eval_id=_name("eval", found),
        run_id=_name("run", found),
        task_id=_name("task", found),
        task=found.benchmark,
        dataset=EvalDataset(
            name=found.benchmark, location=str(place) if place else None, samples=len(names), sample_ids=names
        ),
        model=f"star1/{found.model}",
        model_generate_config=_decoding(found),
        config=EvalConfig(epochs=found.result["samples"]),
        packages={"star1": star1.__version__},
        metadata=judged,
    )


def _name(kind: str, found: Answers) -> str:
    return sha256(f"{kind}/{found.model}/{found.benchmark}")[:22]


def _decoding(found: Answers) -> Any:
    from inspect_ai.model import GenerateConfig

    first = next((one for answers in found.samples.values() for one in answers), None)
    sampling = first.generation["sampling"] if first else {}
    return GenerateConfig(**{name: sampling.get(name) for name in ("temperature", "top_p", "max_tokens", "seed")})


def _sample(found: Answers, name: str, one: Answer) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageUser, ModelUsage

    test, written = found.tests[name], one.generation
    output = _output(found, written)
    tokens = (written["prompt_tokens"], written["completion_tokens"])
    usage = ModelUsage(input_tokens=tokens[0], output_tokens=tokens[1], total_tokens=sum(tokens))
    number = one.judgement.get("sample") or 0
    more = {key: test[key] for key in ("category", "purpose") if key in test}
    return EvalSample(
        id=name,
        epoch=1 + number,
        uuid=sha256(f"{found.model}/{found.benchmark}/{name}/{number}")[:22],
        input=prompt_of(test),
        choices=test.get("choices"),
        target=target(test),
        messages=[ChatMessageUser(content=prompt_of(test), id=f"{name}/{number}"), output.choices[0].message],
        output=output,
        model_usage={f"star1/{found.model}": usage},
        scores={one.judgement["kind"]: _score(found, one)},
        metadata=more,
    )


def _output(found: Answers, written: Row) -> Any:
    from inspect_ai.model import ContentReasoning, ContentText, ModelOutput

    parts: list[Any] = [ContentReasoning(reasoning=written["thinking"])] if written.get("thinking") else []
    parts.append(ContentText(text=written["answer"] or ""))
    reason = STOP.get(written["finish_reason"], "unknown")
    return ModelOutput.from_content(f"star1/{found.model}", parts, stop_reason=reason)


def _score(found: Answers, one: Answer) -> Any:
    from inspect_ai.scorer import Score

    judged, mark = one.judgement, found.mark(one)
    more = {"judge": judged["judge"], "view": judged.get("view", "answer"), "verdict": judged["verdict"]}
    if mark is None:
        return Score.unscored(reason=judged["unscored"], answer=one.text, metadata=more)
    return Score(value=mark, answer=one.text, explanation=judged["verdict"], metadata=more)


def _results(found: Answers) -> Any:
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    shown = found.result
    kind = next(iter(shown["kinds"]))
    figures = {name: shown[name] for name in ("value", "low", "high", "coverage") if shown[name] is not None}
    metrics = {name: EvalMetric(name=name, value=value) for name, value in figures.items()}
    unscored = shown["total"] - shown["n"]
    score = EvalScore(name=kind, scorer=kind, scored_samples=shown["n"], unscored_samples=unscored, metrics=metrics)
    return EvalResults(total_samples=shown["total"], completed_samples=shown["total"], scores=[score])
