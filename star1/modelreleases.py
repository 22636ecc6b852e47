"""The models that a run releases, each a card beside the names and digests of the checkpoint's files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from star1 import cards, checkpoints, licences, modelcards, tables
from star1.records import file_digest, read_json, write_text
from star1.seals import seal, version


def release_model(
    run: str, data: Sequence[str], paths: tuple[Path, Path, Path], released: Sequence[Path], licence: str, out: Path
) -> str:
    """Release a model: its card, and the names and digests of the checkpoint's files, which stay where they are.

    Args:
        run: name of the run.
        data: names of its training sets.
        paths: manifest of its checkpoint, manifest of the base model, and the main table.
        released: `release.json` of the released data sets that its own training rows are in.
        licence: of the weights, where the base model sets no terms.
        out: folder of the release.
    """
    checkpoint, base, result = paths
    manifest, made, table = (*map(checkpoints.read_manifest, (checkpoint.parent, base.parent)), read_json(result))
    sets = [read_json(path) for path in released]
    reasons = [f"trained on {one['name']}, where {why}" for one in sets for why in one["stand_in"]]
    reasons += _toys(base.parent.name, made, run, table)
    facts = modelcards.ModelFacts(
        run=run,
        manifest=manifest,
        base=(base.parent.name, made),
        licence=_model_licence(made, licence),
        data=data,
        result=table,
        stand_in=reasons,
    )
    write_text(out / "README.md", modelcards.model_card(facts))
    about = {
        "kind": "model",
        "name": run,
        "version": version(),
        "stand_in": reasons,
        "checkpoint": {"folder": checkpoint.parent.as_posix(), "manifest_sha256": file_digest(checkpoint)},
        "weights": manifest["files"],
    }
    seal(out, about, ["README.md"])
    return f"{run}: {len(manifest['files'])} files of {checkpoint.parent}"


def _toys(base: str, made: Mapping[str, Any], run: str, result: Mapping[str, Any]) -> list[str]:
    judges = sorted({name for one in result["cells"] if one["model"] == run for name in one["judges"]})
    told = [f"verdicts by {name}" for name in judges if tables.STAND_IN in name]
    return told + ([f"{base} is a toy, pre-trained on the spot"] if made["kind"] == "tiny" else [])


def _model_licence(made: Mapping[str, Any], licence: str) -> dict[str, str]:
    """The licence fields of a model card: those of the base model, which a fine-tuned one cannot set aside.

    Where params.yaml does not name its licence, or the table does not know it, the card links to the base model.
    """
    record = made.get("record", {})
    repository, own = record.get("repository"), record.get("licence")
    if made["kind"] == "tiny" or (own and licences.known(own)):
        return cards.licence_fields([own or licence])
    link = f"https://huggingface.co/{repository}" if repository else "README.md"
    return {"license": "other", "license_name": "as-the-base-model", "license_link": link}
