"""What is wrong with an endpoint is seen before anything is paid for, and nothing that an endpoint says can stop that."""

import asyncio
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from star1 import cli, doctor, params, preflight
from star1.calls import Calls, ask_rows
from star1.doctor import command
from star1.endpoints import Endpoint, Sampling, connect
from star1.errors import CallError, SettingError
from star1.llm import Client, user_request
from star1.parsing import Parsed
from star1.records import Row
from tests.conftest import ROOT
from tests.loopback import Answer, completion, server, stand_in

KEY = "STAR1_DOCTOR_KEY"
SECRET = "sk-doctor-2f6b1c9d8e7a"
TODAY = date(2026, 6, 1)
NAMES = ["gpt-4o-2024-08-06", "gpt-4o", "gpt-4o-mini", "deepseek-r1", "o3"]


def listed(*names: str) -> Answer:
    """A list of models as servers send it."""
    return Answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def remote(url: str, **changes: Any) -> Endpoint:
    """An endpoint at a server of a test."""
    return Endpoint(**{"provider": "openai", "model": "deepseek-r1", "label": "m", "base_url": url, **changes})


def ask(endpoint: Endpoint, path: Path, questions: int = 3, *others: Endpoint) -> tuple[int, int]:
    """Ask some questions through a stage; gives how many were sent, and how many answered from the store."""

    async def handle(client: Client, row: Row) -> Row:
        request = user_request(row["id"], "reason", f"question {row['id']}", "t")
        return {"id": row["id"], "text": await client.read(request, lambda reply: Parsed(reply.content, "whole"))}

    rows = [{"id": str(number)} for number in range(questions)]
    outcome = ask_rows("reason", rows, handle, Calls(endpoint, Sampling(), path, others))
    return outcome.asked, outcome.answered


def answered(_: dict[str, Any], __: int) -> Answer:
    """A reply."""
    return Answer(completion("yes"))


def config(url: str, **changes: Any) -> params.Params:
    """The default parameters with an endpoint of a test as teacher."""
    values = params.load(ROOT / "params.yaml", ROOT)
    values["llm"]["endpoints"]["r1"] = remote(url, **changes).model_dump(mode="json", exclude_none=True)
    values["llm"]["roles"]["teacher"] = "r1"
    return params.Params.model_validate(values)


def examine(values: params.Params, *names: str, whole: bool = False, today: date | None = None) -> doctor.Report:
    """What the doctor says about endpoints."""
    about = doctor.About(
        values.model_dump(mode="json", exclude_unset=True), names=names, whole=whole, today=today or date.today()
    )
    return doctor.examine(about, [doctor.OF_ENDPOINTS])


def seen(report: doctor.Report) -> str:
    """What is well."""
    return "\n".join(one.found for one in report.checked)


def found(report: doctor.Report) -> dict[str, str]:
    """What is wrong, by kind."""
    return {one.id: f"{one.where}: {one.what}" for one in report.findings}


def test_a_model_that_is_not_listed_stops_a_stage_before_its_first_call(tmp_path: Path) -> None:
    """With the names that the endpoint gave, the nearest first; no question was sent, and none is lost."""
    with server(answered, listed(*NAMES)) as served, pytest.raises(CallError) as stopped:
        ask(remote(served.url, model="gpt-4-o", slots=2), tmp_path / "r.jsonl")
    assert (len(served.requests), served.listed) == (0, 1)
    assert str(stopped.value) == (
        f"model 'gpt-4-o' at {served.url}: no such model there; expected one of those it lists: gpt-4o, gpt-4o-mini, "
        "gpt-4o-2024-08-06, deepseek-r1, o3. Hint: correct the endpoint's model or base_url; no question was sent"
    )


def test_of_a_pool_only_the_endpoint_without_the_model_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one answers all; a name of its own under which it serves the model is looked for."""
    with server(answered, listed("a", "b")) as without, server(answered, listed("r1")) as served:
        endpoint, other = remote(without.url, slots=2), remote(served.url, slots=2, served_as="r1")
        assert ask(endpoint, tmp_path / "r.jsonl", 8, other) == (8, 0)
        assert (len(without.requests), len(served.requests)) == (0, 8)
    told = capsys.readouterr().err
    assert f"left out, while 1 endpoint goes on: model 'deepseek-r1' at {without.url}: no such model there" in told


def test_the_list_is_asked_for_once_and_not_when_the_store_answers(tmp_path: Path) -> None:
    """One question about models for a run of many slots, and no connection at all for a second run."""
    with server(answered, listed(*NAMES)) as served:
        endpoint = remote(served.url, slots=16)
        assert ask(endpoint, tmp_path / "r.jsonl", 20) == (20, 0)
        assert (len(served.requests), served.listed) == (20, 1)
        assert ask(endpoint, tmp_path / "r.jsonl", 20) == (0, 20)
        assert served.listed == 1
    assert ask(remote("http://127.0.0.1:9/v1"), tmp_path / "r.jsonl", 20) == (0, 20)


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"error": {"message": "no"}}, 404),
        Answer(b"", 405),
        Answer(b"nobody may list", 401),
        Answer(b"busy", 503),
        Answer(b"<html>welcome</html>"),
        Answer(b'{"data": [{"id": "oth'),
        Answer(b"\xff\xfe\x00"),
        Answer(completion("a completion, whatever is asked")),
        Answer({"data": []}),
        Answer({"data": [1, None, {"id": 7}, {"name": ["x"]}]}),
        Answer([[["deep"]]]),
        Answer({"data": {"id": "x"}}),
        Answer(b"x" * 3_000_000),
        Answer(b"{}", headers={"content-type": "text/plain; charset=no-such"}),
        Answer({"data": [{"id": "other"}]}, cut=True),
    ],
)
def test_whatever_else_is_answered_is_no_reason_to_stop(answer: Answer, tmp_path: Path) -> None:
    """No list, no harm: whether the model is there is seen at the first call, as ever."""
    with server(answered, answer) as served:
        assert ask(remote(served.url, slots=2), tmp_path / "r.jsonl") == (3, 0)
        assert served.listed == 1


def test_a_server_that_never_lists_costs_the_time_limit_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LIST_S", 0.2)
    with server(answered, Answer({}, wait_s=5)) as served:
        assert ask(remote(served.url), tmp_path / "r.jsonl") == (3, 0)


def test_nothing_is_asked_of_answers_from_this_process() -> None:
    """The stand-in has no list, and would count the question as a call."""

    class NoClient:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(name)

    asyncio.run(preflight.Preflight(stand_in()).passed(NoClient()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "names", "known"),
    [
        ("m", ["m"], True),
        ("m", ["n", "m-large"], False),
        ("gemini-2.5-pro", ["models/gemini-2.5-pro"], True),
        ("llama3", ["llama3:latest"], True),
        ("llama3:70b", ["llama3:latest", "llama3"], False),
        ("deepseek/deepseek-r1:nitro", ["deepseek/deepseek-r1"], True),
        ("openai/gpt-4o", ["openai/*"], True),
        ("claude-sonnet-4", ["claude-sonnet-4-20250514"], True),
        ("claude-3-5-sonnet-latest", ["claude-3-5-sonnet-20241022"], True),
        ("gpt-4", ["gpt-4o", "gpt-4-turbo"], False),
    ],
)
def test_names_are_known_in_the_forms_that_servers_use(model: str, names: list[str], known: bool) -> None:
    endpoint = remote("http://x/v1", model=model)
    if known:
        preflight.check_known(endpoint, names)
    else:
        with pytest.raises(CallError, match="no such model there"):
            preflight.check_known(endpoint, names)


@pytest.mark.parametrize(
    ("model", "names", "hint"),
    [
        ("gpt-4o", NAMES, "gpt-4o-2024-08-06"),
        ("gpt-4", ["gpt-4-0613", "gpt-4-32k"], "gpt-4-0613"),
        ("gemini-1.5-pro", ["models/gemini-1.5-pro-002"], "gemini-1.5-pro-002"),
        ("mistral-large-latest", ["mistral-large-2411"], "mistral-large-2411"),
        ("deepseek-chat", [], "one with a date or version"),
        ("deepseek/deepseek-chat", [], "one with a date or version"),
        ("llama3:latest", [], "one with a date or version"),
        ("gpt-4o-2024-08-06", NAMES, None),
        ("deepseek-r1", NAMES, None),
        ("gpt-4o-mini", NAMES, None),
    ],
)
def test_a_name_that_may_come_to_mean_another_model_is_told(model: str, names: list[str], hint: str | None) -> None:
    warning = preflight.alias_warning(remote("http://x/v1", model=model), names)
    assert (warning is None) == (hint is None)
    assert hint is None or hint in str(warning)


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("2026-05-31", "retired on 2026-05-31"),
        ("2026-06-01", "retires on 2026-06-01, today"),
        ("2026-07-30", "retires on 2026-07-30, in 59 days"),
        ("2026-07-31", None),
    ],
)
def test_an_announced_end_is_told_when_near_and_stops_when_past(end: str, says: str | None) -> None:
    endpoint = remote("http://x/v1", retires=end)
    if end < TODAY.isoformat():
        with pytest.raises(CallError, match=f"{says}.*Hint: name another model, or correct the date"):
            preflight.end_warning(endpoint, TODAY)
    elif says is None:
        assert preflight.end_warning(endpoint, TODAY) is None
    else:
        assert says in str(preflight.end_warning(endpoint, TODAY))


def test_a_stage_warns_once_and_goes_on_and_ends_with_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, before the first call; after the announced end nothing is asked, not even for the list."""
    with server(answered, listed(*NAMES)) as served:
        endpoint = remote(served.url, model="gpt-4o", retires=date.today().isoformat())
        assert ask(endpoint, tmp_path / "r.jsonl") == (3, 0)
        warnings = capsys.readouterr().err
        assert warnings.count("warning: model 'gpt-4o'") == 2
        assert "expected one that stays the same" in warnings
        assert ", today; what is to be asked" in warnings
        with pytest.raises(CallError, match="retired on 2020-01-01"):
            ask(remote(served.url, model="gpt-4o", label="n", retires="2020-01-01"), tmp_path / "r.jsonl")
        assert served.listed == 1


def test_a_bare_date_is_refused_since_dvc_cannot_keep_one(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text("utf-8")
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("slots: 16}", "slots: 16, retires: 2026-07-24}"))
    with pytest.raises(params.ParamsError, match=r"retires: .*expected a date in quotes \('2026-07-24'\)"):
        params.load(file, ROOT)
    file.write_text(text.replace("slots: 16}", "slots: 16, retires: '2026-07-24'}"))
    assert params.load(file, ROOT)["llm"]["endpoints"]["stand-in"]["retires"] == "2026-07-24"


def test_the_doctor_finds_all_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, address and model of the endpoint with a role; the one without is looked at with --all alone."""
    monkeypatch.setenv(KEY, SECRET)
    with server(answered, listed(*NAMES)) as served:
        report = examine(config(served.url, key=KEY, retires="2027-01-01"), today=TODAY)
        lines = seen(report)
        assert f"endpoint r1 (teacher): environment variable {KEY} is set" in lines
        assert f"model 'deepseek-r1' at {served.url}: answers" in lines
        assert "model 'deepseek-r1' is one of the 5 that the endpoint offers" in lines
        assert "served until 2027-01-01" in lines
        assert (
            "endpoint stand-in (classifier, scorer, rewriter, judge refusal, judge guard): 'stand-in (no language model)'"
            in lines
        )
        assert report.findings == []
        assert not served.requests
        assert "r1" not in seen(examine(config(served.url), "stand-in"))
    with pytest.raises(SettingError, match=r"'r2'; expected an endpoint of params\.yaml: stand-in, r1"):
        examine(config(served.url), "r2")


def test_the_doctor_knows_no_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Snakemake, it took it for one without settings, and found all well."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        SettingError, match=r"no profiles/slrum/config\.yaml; expected .* profiles/default, profiles/slurm"
    ):
        command.run(cli.parser().parse_args(["doctor", "--profile", "profiles/slrum"]))


def test_the_doctor_looks_at_endpoints_without_a_role_when_asked() -> None:
    with server(answered, listed(*NAMES)) as served:
        values = config(served.url)
        values.llm.roles.teacher = "stand-in"
        examine(values)
        assert served.listed == 0
        assert "endpoint r1 (no role)" in seen(examine(values, whole=True))


@pytest.mark.parametrize(
    ("models", "changes", "kind", "says"),
    [
        (listed("a", "b"), {}, "endpoint-model", "no such model there; expected one of those it lists: a, b"),
        (listed("deepseek-r1"), {"key": KEY}, "endpoint-key", f"environment variable {KEY} is not set"),
        (listed("deepseek-r1"), {"retires": "2026-05-01"}, "endpoint-retired", "retired on 2026-05-01"),
    ],
)
def test_the_doctor_finds_an_error(models: Answer, changes: dict[str, Any], kind: str, says: str) -> None:
    with server(answered, models) as served:
        report = examine(config(served.url, **changes), today=TODAY)
    assert list(found(report)) == [kind]
    assert says in found(report)[kind]
    assert report.status == 2
    assert "answers" in seen(report)


def test_the_doctor_warns() -> None:
    with server(answered, listed(*NAMES)) as served:
        report = examine(config(served.url, model="gpt-4o", retires="2026-06-30"), today=TODAY)
    alias, ends = report.findings
    assert (alias.id, alias.fix) == ("endpoint-alias", "star1 preset --set llm.endpoints.r1.model=gpt-4o-2024-08-06")
    assert "retires on 2026-06-30, in 29 days" in ends.what
    assert report.status == 1


def test_where_no_models_are_listed_is_no_error() -> None:
    with server(answered) as served:
        report = examine(config(served.url))
    (unknown,) = report.not_checked
    assert "endpoint r1 (teacher): not listed: whether there is a model 'deepseek-r1'" in unknown.reason
    assert report.findings == []


def test_nobody_at_the_address_is_an_error() -> None:
    (one,) = examine(config("http://127.0.0.1:9/v1")).findings
    assert "model 'deepseek-r1' at http://127.0.0.1:9/v1: connection refused" in one.what
    assert one.fix == "vllm serve deepseek-r1 --port 9"


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An endpoint that repeats it wherever it can: in its refusal, in the names of its models."""
    monkeypatch.setenv(KEY, SECRET)
    for answer in (
        Answer({"error": {"message": f"Incorrect API key provided: {SECRET[:9]}***"}}, 401),
        Answer({"error": {"message": f"who is {SECRET}?"}}, 500),
        listed(f"model-of-{SECRET}", "b\x1b[31m"),
    ):
        with server(answered, answer) as served:
            report = examine(config(served.url, key=KEY))
            lines = "\n".join(doctor.lines(report)) + json.dumps(report.as_json())
            assert SECRET not in lines
            assert SECRET[:9] not in lines
            assert "\x1b" not in lines
            if answer.status == 401:
                assert f"status 401, the key in {KEY} is not accepted" in lines
            if answer.status == 200:
                assert "[key]" in lines
                with pytest.raises(CallError) as stopped:
                    ask(remote(served.url, key=KEY), tmp_path / "r.jsonl")
                assert SECRET not in str(stopped.value)


def test_azure_lists_models_and_is_asked_for_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list says nothing about the name that requests carry."""
    with server(answered, listed("gpt-4o")) as served:
        endpoint = remote("https://mine.openai.azure.com/openai/v1/", model="my-deployment")
        api = connect(remote(served.url))

        async def look() -> preflight.Listing:
            try:
                return await preflight.listing(api, endpoint)
            finally:
                await api.close()

        assert asyncio.run(look()).names is None


def test_the_generation_server_is_looked_at_where_there_is_one() -> None:
    with server(answered, listed("served-star1")) as served:
        values = config(served.url, model="served-star1")
        values.generate.engine = "openai"
        values.generate.options = {"base_url": served.url, "served_model": "served-star1"}
        assert "generate.options (served-star1): model 'served-star1' is one of the 1" in seen(examine(values))
        values.generate.options["served_model"] = "other"
        report = examine(values)
    assert "generate.options (other): model 'other'" in found(report)["endpoint-model"]
    assert report.findings[0].fix == "star1 preset --set generate.options.served_model=served-star1"


def test_a_reply_is_the_same_with_and_without_a_list(tmp_path: Path) -> None:
    """The list decides nothing about keys: what was answered before it could be had is found afterwards."""
    with server(answered) as served:
        ask(remote(served.url), tmp_path / "r.jsonl")
    with server(answered, listed("deepseek-r1")) as served:
        assert ask(remote(served.url), tmp_path / "r.jsonl") == (0, 3)
