"""`star1 prefetch`: everything that params.yaml names and that lies on the network, into one folder (`star1.prefetched`)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from star1 import bases, checkpoints, prefetched
from star1.errors import SettingError
from star1.fetching import GITHUB, bring
from star1.params import HubModel, Params, used_files
from star1.sources import REMOTE, Located

CACHE = Path(".cache/downloads")


def wanted(params: Params) -> Iterator[tuple[str, str, Located | HubModel]]:
    """What the DAG fetches over the network: name in params.yaml, key in the folder, entry."""
    for name, entry in used_files(params):
        if entry.kind in REMOTE:
            yield name, prefetched.key_of(entry), entry
    bases_used = {run.base for run in params.finetune.runs.values()} | set(params.generate.models)
    for name, model in params.fetch.models.items():
        if isinstance(model, HubModel) and name in bases_used:
            yield f"fetch.models.{name}", prefetched.model_key(model.repository, model.revision), model


def missing(params: Params) -> list[str]:
    """The names of what is wanted and not there."""
    return [name for name, key, _ in wanted(params) if not prefetched.has(key)]


def prefetch(
    params: Params, names: Sequence[str], say: Callable[[str], None], *, github: str = GITHUB, pause_s: float = 1.0
) -> None:
    """Fetch what is not there yet, and what is not pinned anew; one line for each.

    Args:
        params: params.yaml.
        names: entries, such as fetch.sources.HarmBench or HarmBench; none means all.
        say: where lines go.
        github: address in place of GitHub's raw files.
        pause_s: first pause between attempts [s].

    Raises:
        SettingError: offline mode, a name that nothing wanted has, or no leave to fetch a set.
        InputError, CallError: something cannot be fetched; what came before is kept.
    """
    if prefetched.offline():
        raise SettingError("prefetch", "offline mode (HF_HUB_OFFLINE)", "a connection", "unset it here")
    chosen = _chosen(list(wanted(params)), names)
    total = 0
    for name, key, entry in chosen:
        fixed = getattr(entry, "pinned", True)
        if fixed and prefetched.has(key):
            say(f"{name}: there")
            continue
        count, size = _take(name, key, entry, github, pause_s)
        total += size
        say(f"{name}: {count} files, {size / 1e6:,.1f} MB")
    say(f"{prefetched.folder()}: {len(chosen)} entries, {total / 1e9:,.2f} GB fetched; run with HF_HUB_OFFLINE=1")


def _chosen(
    found: list[tuple[str, str, Located | HubModel]], names: Sequence[str]
) -> list[tuple[str, str, Located | HubModel]]:
    for name in names:
        if not any(_called(one[0], name) for one in found):
            known = ", ".join(one[0] for one in found) or "nothing (all of it lies here already)"
            raise SettingError("prefetch", repr(name), f"one of {known}")
    return [one for one in found if not names or any(_called(one[0], name) for name in names)]


def _called(whole: str, name: str) -> bool:
    return name == whole or whole.endswith(f".{name}")


def _take(name: str, key: str, entry: Located | HubModel, github: str, pause_s: float) -> tuple[int, int]:
    if isinstance(entry, HubModel):
        staging = checkpoints.staging("prefetch", name.rsplit(".", 1)[1])
        record = bases.download(entry.repository, entry.revision, staging)
        files = [(path.relative_to(staging).as_posix(), path) for path in sorted(staging.rglob("*")) if path.is_file()]
        told = prefetched.store(key, name, files, record)
        checkpoints.empty(staging)
        return told
    found = bring(entry, None, CACHE, github=github, pause_s=pause_s)
    return prefetched.store(key, name, [(path.name, path) for path in found])
