"""The transcripts of the report: what is written, and what a real browser makes of it, opened from disk without a network."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.report import CHANGE, RARE, build, shell
from benchmarks.report import make as make_many
from star1.errors import InputError
from star1.passport.address import Places, resolve
from star1.records import read_rows, write_rows
from star1.report import parts, transcripts
from tests import browsing
from tests.transcript_rows import BENCHMARKS, HOSTILE, HOSTILE_ROW, MODELS, Known, make, sources, trained

PAIR = ["base", "tuned"]
# Keys of all rows of the list, page after page.
KEYS = """async () => {
    const found = [];
    while (document.querySelector(".tr-status").textContent.includes("searching")) await new Promise((r) => setTimeout(r, 5));
    for (;;) {
        found.push(...[...document.querySelectorAll(".tr-open")].map((link) => link.textContent));
        const next = [...document.querySelectorAll(".pages button")].at(-1);
        if (next.disabled) return found;
        next.click();
    }
}"""
GO = """async (hash) => {
    const changed = new Promise((done) => addEventListener("hashchange", done, { once: true }));
    if (location.hash !== hash) { location.hash = hash; await changed; }
    while (document.querySelector("main").hasAttribute("aria-busy")) await new Promise((done) => setTimeout(done, 5));
}"""
TEXT = ".tr-prompt .tr-text"


def value_of(path: Path) -> Any:
    """What a data file hands to the page; strict JSON, or this fails."""
    found = re.fullmatch(rb'report\.put\("([^"]+)", ?(.*)\);\n', path.read_bytes(), re.S)
    assert found
    assert found[1].decode() == path.as_posix().split("/data/")[1].removesuffix(".js")
    return orjson.loads(found[2])


# ---- what is written ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, with its page in the folder `page`."""
    root = tmp_path_factory.mktemp("run")
    counts = transcripts.write(root / "page", make(root))
    assert counts == {"evaluation": 114, "scored": 70, "star1": 18, "benign": 15}
    shell(root / "page")
    return root


def test_texts_are_cut_into_parts_that_hold_every_row(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LIMIT", 1000)
    transcripts.write(tmp_path, sources(run))
    index = value_of(tmp_path / "data/transcripts/0/index.js")
    known = Known(run)
    assert [
        f"{group['benchmark']}/{one}"
        for group in index["groups"]
        for one in index["ids"][group["start"] :][: group["count"]]
    ] == [*known.tests]
    for kind, about in index["parts"].items():
        rows: list[Any] = []
        for number, start in enumerate(about["starts"]):
            path = tmp_path / f"data/{about['name']}-{number}.js"
            part = value_of(path)
            assert len(rows) == start
            assert path.stat().st_size < 1500 or len(part) == 1
            rows += part
        assert len(about["starts"]) > 3, kind
        assert len(rows) == len(known.tests)
        if kind == "prompts":
            assert [row["question"] for row in rows] == [row["question"] for row in known.tests.values()]
        if kind == "answers/tuned":
            for key, samples in zip(known.tests, rows, strict=True):
                there = known.answers["tuned", key]
                assert [one and one["answer"] for one in samples] == [
                    there[n]["answer"] if n in there else None for n in range(len(samples))
                ]


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    transcripts.write(tmp_path, sources(run))
    files = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.js")}
    assert len(files) > 10
    assert files == {name: (run / "page" / name).read_bytes() for name in files}


def test_nothing_in_a_data_file_can_end_a_script(run: Path) -> None:
    for path in (run / "page/data").rglob("*.js"):
        content = path.read_text("utf-8")
        assert "<" not in content
        assert "\u2028" not in content
        assert "\u2029" not in content


@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        ("results/generations/tuned/harm.jsonl", {"id": "foreign"}, "an answer to row 'foreign'"),
        ("results/judgements/tuned/harm.jsonl", {"sample": 5}, "a judgement of no answer"),
        ("data/benchmarks/harm.jsonl", {"id": "harm-0"}, "the id 'harm-0' twice"),
        ("data/scored.jsonl", {"id": "0"}, "the id '0' twice"),
        ("data/star1.jsonl", {"id": "99"}, "row '99'; expected rows of the set"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused(
    run: Path, tmp_path: Path, file: str, change: dict[str, Any], found: str
) -> None:
    for folder in ("data", "results"):
        shutil.copytree(run / folder, tmp_path / folder)
    rows = read_rows(tmp_path / file)
    write_rows(tmp_path / file, [*rows, {**rows[-1], **change}])
    with pytest.raises(InputError, match=re.escape(found)):
        transcripts.write(tmp_path / "page", sources(tmp_path))


# ---- in a browser ----


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.browser() as opened:
        yield opened


class Shown:
    """A page from disk: what it asked for, and what went wrong in it."""

    def __init__(self, browser: Any, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **settings})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "console", lambda line: self.faults.append(line.text) if line.type in ("error", "warning") else None
        )
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.goto(f"{(folder / 'page/index.html').as_uri()}#/transcripts")
        self.page.wait_for_selector(".tr-open")

    def go(self, hash: str) -> None:
        """Follow an address within the page."""
        self.page.evaluate(GO, hash)

    def set(self, name: str, value: object) -> None:
        """Change a control of the list."""
        self.page.evaluate(CHANGE, [name, value])

    def keys(self) -> list[str]:
        """All rows of the list."""
        found: list[str] = self.page.evaluate(KEYS)
        return found

    def search(self, query: str) -> list[str]:
        """Rows that a search finds."""
        self.page.fill('[name="q"]', query)
        self.page.press('[name="q"]', "Enter")
        return self.keys()

    def options(self, name: str) -> list[str]:
        """Values of a filter."""
        script = "(name) => [...document.querySelector(`[name='${name}']`).options].map((one) => one.value)"
        found: list[str] = self.page.evaluate(script, name)
        return found


@pytest.fixture(scope="module")
def shared(browser: Any, run: Path) -> Iterator[Shown]:
    """One page for all tests that leave it as they found it; at the end, nothing went wrong and nothing left it."""
    shown = Shown(browser, run)
    yield shown
    assert shown.faults == []
    assert all(url.startswith(((run / "page").as_uri(), "data:")) for url in shown.requests)
    assert len(shown.requests) > 10
    assert shown.page.evaluate("window.hacked") is None
    shown.context.close()


@pytest.fixture
def shown(shared: Shown) -> Shown:
    """The list without filters, of the base and a tuned model."""
    shared.go(f"#/transcripts?models={','.join(PAIR)}")
    return shared


@pytest.fixture(scope="module")
def known(run: Path) -> Known:
    return Known(run)


FILTERS = ["purpose", "benchmark", "category", "verdict", "changed"]
FLAGS = ["disagree", "unfinished", "cutoff", "unscored"]


@pytest.mark.parametrize("name", FILTERS)
def test_each_value_of_a_filter_shows_the_rows_that_have_it(shown: Shown, known: Known, name: str) -> None:
    values = shown.options(name)[1:]
    assert values
    for value in values:
        shown.set(name, value)
        expected = known.rows(PAIR, {name: value})
        assert shown.keys() == expected, value
        assert 0 < len(expected) < len(known.tests), value


def test_values_are_all_that_there_are(shown: Shown, known: Known) -> None:
    said = {
        (name, row["verdict"] or f"unscored: {row['unscored']}")
        for (model, _, _), judged in known.judged.items()
        if model in PAIR
        for name, row in judged.items()
    }
    assert {*shown.options("verdict")[1:]} == {f"{name}:{word}" for name, word in said} | {
        f":{word}" for _, word in said
    }
    changes = set[str]().union(*(known.changes(key, PAIR) for key in known.tests))
    assert {*shown.options("changed")[1:]} == changes
    assert {*shown.options("category")[1:]} == {row["category"] for row in known.tests.values() if "category" in row}


@pytest.mark.parametrize("name", FLAGS)
def test_each_mark_shows_the_rows_that_have_it(shown: Shown, known: Known, name: str) -> None:
    shown.set(name, True)
    expected = known.rows(PAIR, {name: "1"})
    assert shown.keys() == expected
    assert 0 < len(expected) < len(known.tests)
    shown.set(name, False)
    assert shown.keys() == [*known.tests]


COMBINED: list[tuple[list[str], dict[str, str]]] = [
    (PAIR, {"purpose": "harmful", "disagree": "1"}),
    (PAIR, {"benchmark": "mild", "changed": "any", "category": "Ink"}),
    (PAIR, {"verdict": "refusal:full_compliance", "of": "tuned", "changed": "full_refusal > full_compliance"}),
    (PAIR, {"verdict": ":unscored: judge: unknown_verdict", "unscored": "1"}),
    (PAIR, {"verdict": "grader:incorrect", "cutoff": "1"}),
    (PAIR, {"unfinished": "1", "of": "base"}),
    (PAIR, {"unfinished": "1", "cutoff": "1"}),
    (PAIR, {"disagree": "1", "cutoff": "1", "benchmark": "mild"}),
    (MODELS, {"changed": "any", "q": "kettle"}),
    (MODELS, {"disagree": "1", "of": "tuned+benign", "purpose": "benign"}),
    (MODELS, {"verdict": "guard:unsafe", "q": "violin ladder", "thinking": "1"}),
    (["tuned+benign"], {"unscored": "1", "category": "Stairs <b>"}),
    (["tuned", "tuned+benign"], {"changed": "correct > incorrect"}),
    (PAIR, {"category": "no_such", "purpose": "harmful"}),
    (PAIR, {"verdict": "refusal:no_such"}),
]


@pytest.mark.parametrize(("models", "filters"), COMBINED)
def test_filters_together_by_address(shown: Shown, known: Known, models: list[str], filters: dict[str, str]) -> None:
    from urllib.parse import urlencode

    shown.go("#/transcripts?" + urlencode({"models": ",".join(models), **filters}))
    expected = known.rows(models, filters)
    assert shown.keys() == expected
    assert len(expected) < len(known.tests)
    assert bool(expected) != any("no_such" in value for value in filters.values())
    # The controls say what is asked for, and the address stays as it is.
    for name, value in filters.items():
        control = f'[name="{name}"]'
        assert (
            shown.page.evaluate(
                f"((one) => one.type === 'checkbox' ? (one.checked ? '1' : '') : one.value)(document.querySelector('{control}'))"
            )
            == value
        )


def test_filters_together_by_hand(shown: Shown, known: Known) -> None:
    steps = [("purpose", "harmful"), ("verdict", "guard:safe"), ("disagree", True), ("of", "base"), ("category", "Ink")]
    filters: dict[str, str] = {}
    for name, value in steps:
        shown.set(name, value)
        filters[name] = "1" if value is True else str(value)
        assert shown.keys() == known.rows(PAIR, filters)
    told = shown.page.inner_text(".tr-status")
    assert told == f"{len(known.rows(PAIR, filters))} of 114 rows"
    again = shown.page.evaluate("location.hash")
    shown.go("#/transcripts")
    shown.go(again)
    assert shown.keys() == known.rows(PAIR, filters)


def test_models_are_chosen(shown: Shown, known: Known) -> None:
    shown.page.check('[data-title="tuned+benign"]')
    shown.page.uncheck('[data-title="base"]')
    shown.page.wait_for_function("() => location.hash.includes('tuned%2Ctuned%2Bbenign')")
    assert shown.page.inner_text(".tr-heads").split("\n")[1:] == ["tuned", "tuned+benign"]
    assert shown.page.evaluate("document.activeElement.dataset.title") == "base"
    shown.set("verdict", "refusal:full_refusal")
    assert shown.keys() == known.rows(["tuned", "tuned+benign"], {"verdict": "refusal:full_refusal"})
    shown.page.uncheck('[data-title="tuned+benign"]')
    shown.page.wait_for_function("() => !location.hash.includes('benign')")
    shown.page.click('[data-title="tuned"]')  # the last one stays
    assert shown.page.is_checked('[data-title="tuned"]')


# ---- search ----

QUERIES = [
    "kettle",
    "KETTLE ärmel",
    "straße",
    "violin marble thistle",
    "base says",
    "<script>",
    "{{7*7}}",
    "\\back",
    "no-such-word",
    "x" * 500,
]
QUERIES += ["مرحبا", "\u202e001", "&lt;", "ladder ladder", "."]


@pytest.mark.parametrize("thinking", [False, True])
def test_search_finds_what_a_plain_look_finds(shown: Shown, known: Known, thinking: bool) -> None:
    shown.set("thinking", thinking)
    found = set()
    for query in QUERIES:
        filters = {"q": query, "thinking": "1" if thinking else ""}
        expected = known.rows(PAIR, filters)
        assert shown.search(query) == expected, query
        found.add(len(expected))
    assert len(found) > 5
    shown.set("thinking", False)


def test_search_for_words_in_their_order(shown: Shown, known: Known) -> None:
    for words in ("kettle ladder", "violin pebble"):
        expected = [key for key in known.tests if any(words in text.lower() for text in known.texts(key, PAIR, False))]
        assert shown.search(f'"{words}"') == expected
        assert 0 < len(expected) < len(known.rows(PAIR, {"q": words}))


def test_search_of_a_large_set_shows_progress_and_can_be_changed(
    browser: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More parts than stay in memory, so that those that are read for the search alone are let go of again."""
    monkeypatch.setattr(parts, "LIMIT", 400)
    shell(tmp_path / "page")
    transcripts.write(tmp_path / "page", sources(run))
    shown, known = Shown(browser, tmp_path), Known(run)
    states = shown.page.evaluate(
        """async () => {
            const states = new Set(), input = document.querySelector('[name="q"]'), bar = document.querySelector("progress");
            new MutationObserver(() => states.add(`${bar.hidden} ${bar.value > 0}`)).observe(bar, { attributes: true });
            input.value = "ladder";
            input.form.requestSubmit();
            states.add(document.querySelector(".tr-status").textContent.includes("searching"));
            input.value = "kettle";
            input.form.requestSubmit();
            const status = document.querySelector(".tr-status");
            while (status.textContent.includes("searching")) await new Promise((done) => setTimeout(done, 5));
            return [...states];
        }"""
    )
    assert True in states
    assert "false true" in states
    assert shown.keys() == known.rows(PAIR, {"q": "kettle"})
    assert shown.search("kettle violin") == known.rows(PAIR, {"q": "kettle violin"})
    # Of what is looked at, the last parts stay in memory, and the first are read anew.
    names = [
        path.relative_to(tmp_path / "page/data").with_suffix("").as_posix()
        for path in (tmp_path / "page/data").glob("*/0/answers*")
    ]
    assert len(names) > 70
    shown.requests.clear()
    read = "async (names) => { for (const name of names) await transcriptData.part(name); }"
    shown.page.evaluate(read, [*names, names[-1], names[0]])
    assert [sum(url.endswith(f"/{name}.js") for url in shown.requests) for name in (names[0], names[-1])] == [2, 1]
    assert shown.faults == []
    shown.context.close()


# ---- a row ----


def visible(text: str) -> str:
    """A text as the page shows it: control characters by their numbers."""
    hidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200f\u2028-\u202e\u2060-\u2069]"
    hidden += "|(?<=[ -~])[\u200c\u200d]|[\u200c\u200d](?=[ -~])"

    return re.sub(hidden, lambda found: f"U+{ord(found[0]):04X}", text)


def test_a_row_shows_prompt_answers_and_verdicts_side_by_side(shown: Shown, known: Known) -> None:
    key = next(
        key
        for key in known.rows(PAIR, {"disagree": "1", "purpose": "harmful"})
        if known.answers["base", key][0]["answer"]
    )
    shown.go(f"#/transcripts?row={key}&models=base,tuned")
    page = shown.page
    assert page.text_content(TEXT) == known.tests[key]["question"]
    columns = page.query_selector_all("article")
    assert [one.get_attribute("aria-label") for one in columns] == PAIR
    boxes = [one.bounding_box() for one in columns]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] < boxes[1]["x"]
    for model, column in zip(PAIR, columns, strict=True):
        judged = known.judged[model, key, 0]
        told = [" ".join(one.inner_text().split()) for one in column.query_selector_all(".tr-judges li")]
        assert len(told) == len(judged)
        for line, (name, row) in zip(told, judged.items(), strict=True):
            word = (row["verdict"] or f"unscored: {row['unscored']}").replace("_", " ")
            assert line.startswith(name)
            assert f" {word} " in line
            every = [
                one[name] for (who, where, _), one in known.judged.items() if who == model and where.startswith("harm/")
            ]
            scored = sum(one["verdict"] is not None for one in every)
            assert f"{name} 1.0 as {row['kind']} judge, shown the answer; " in line
            assert f"has a verdict on {scored} of {len(every)} answers to harm" in line
            assert ("2027-01-31" in line) == (name == "guard")
        differ = (model, key, 0) in known.disagreed
        assert ("The judges disagree." in column.inner_text()) == differ


def test_thinking_is_folded_and_read_when_it_is_opened(browser: Any, run: Path, known: Known) -> None:
    key = next(key for key in known.tests if key.startswith("sums") and known.answers["base", key][0]["answer"])
    shown = Shown(browser, run)
    shown.go(f"#/transcripts?row={key}&models=base")
    assert shown.page.query_selector(".tr-thinking .tr-text") is None
    assert not any("thinking" in url for url in shown.requests)
    shown.page.click(".tr-thinking summary")
    shown.page.wait_for_selector(".tr-thinking .tr-text")
    assert shown.page.text_content(".tr-thinking .tr-text") == known.answers["base", key][0]["thinking"]
    shown.context.close()


def test_unfinished_thinking_is_shown_and_said(shown: Shown, known: Known) -> None:
    for key in known.rows(["base"], {"unfinished": "1", "benchmark": "sums"})[:4]:
        sample, row = next((n, row) for n, row in known.answers["base", key].items() if row["answer"] is None)
        shown.go(f"#/transcripts?row={key}&models=base&sample={sample}")
        assert "None: the thinking did not end." in shown.page.inner_text("article")
        shown.page.wait_for_selector(".tr-thinking .tr-text")
        assert shown.page.text_content(".tr-thinking .tr-text") == (row["thinking"] or row["response"])
        assert "unscored: unfinished thinking" in shown.page.inner_text("article")


def test_samples_can_be_walked_through(shown: Shown, known: Known) -> None:
    key = "sums/sums-2"
    shown.go(f"#/transcripts?row={key}&models=base,tuned%2Bbenign")
    assert shown.page.locator(".tr-samples a").count() == 3
    shown.page.click('.tr-samples a[aria-label="Sample 3"]')
    shown.page.wait_for_selector('.tr-samples a[aria-label="Sample 3"][aria-current]')
    assert "sample=2" in shown.page.url
    commands = [one.text_content() for one in shown.page.query_selector_all(".tr-commands code")]
    asked = [shlex.split(one)[2] for one in commands if " answer:" in one]
    # Without a number it would be the first; the other model has no third one.
    assert asked == [f"answer:base/{key}@2", f"answer:tuned+benign/{key}"]
    answer = known.answers["base", key][2]["answer"]
    assert shown.page.text_content("article:first-of-type > .tr-text") == answer if answer else True
    assert "There is no sample 3." in shown.page.inner_text('article[aria-label="tuned+benign"]')


@pytest.mark.parametrize("name", HOSTILE)
def test_texts_of_others_stay_text(shown: Shown, known: Known, name: str) -> None:
    key = f"mild/mild-{list(HOSTILE).index(name)}"
    shown.go(f"#/transcripts?row={key}&models=base,tuned")
    shown.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    shown.page.wait_for_function("() => !document.querySelector('article').innerText.includes('Reading')")
    assert shown.page.text_content(TEXT) == visible(HOSTILE[name])
    for model in PAIR:
        row = known.answers[model, key][0]
        texts = [one.text_content() for one in shown.page.query_selector_all(f'article[aria-label="{model}"] .tr-text')]
        unended = row["thinking"] or (row["response"] if row["answer"] is None else None)
        assert texts == [visible(text) for text in (unended, row["answer"]) if text]
    assert shown.page.evaluate("window.hacked") is None
    assert shown.page.locator("main img, main script, main svg, main textarea, main iframe").count() == 0
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert shown.page.evaluate(f"document.querySelector('{TEXT}').getBoundingClientRect().height") < 500


def test_direction_of_text_does_not_leak(shown: Shown) -> None:
    shown.go("#/transcripts?row=mild/mild-4")
    assert shown.page.evaluate(f"getComputedStyle(document.querySelector('{TEXT}')).direction") == "rtl"
    assert shown.page.evaluate("getComputedStyle(document.querySelector('article')).direction") == "ltr"


# ---- addresses ----


def test_a_row_opens_from_the_list_and_back_leads_there(shown: Shown, known: Known) -> None:
    shown.set("purpose", "benign")
    expected = known.rows(PAIR, {"purpose": "benign"})
    shown.page.click(f".tr-open >> text={expected[4]}")
    shown.page.wait_for_selector(".tr-title")
    assert shown.page.inner_text(".tr-title") == expected[4]
    assert f"row 5 of {len(expected)}" in shown.page.inner_text(".tr-steps")
    shown.page.click("text=Next")
    shown.page.wait_for_function("(key) => document.querySelector('.tr-title')?.textContent === key", arg=expected[5])
    shown.page.go_back()
    shown.page.wait_for_function("(key) => document.querySelector('.tr-title')?.textContent === key", arg=expected[4])
    shown.page.go_back()
    shown.page.wait_for_selector(".tr-list")
    assert shown.keys() == expected
    assert shown.page.input_value('[name="purpose"]') == "benign"
    shown.page.click(f".tr-open >> text={expected[-1]}")
    shown.page.click("text=All rows")
    shown.page.wait_for_selector(".tr-list")
    assert shown.keys() == expected


def test_the_link_of_a_row_holds_when_the_report_is_made_anew(browser: Any, run: Path, tmp_path: Path) -> None:
    """With more rows before it, another order of benchmarks and one more model."""
    shown = Shown(browser, run)
    shown.go("#/transcripts?row=sums/sums-3&models=base,tuned")
    link, text = shown.page.url, shown.page.text_content(TEXT)
    shown.context.close()
    for folder in ("data", "results"):
        shutil.copytree(run / folder, tmp_path / folder)
    tests = tmp_path / "data/benchmarks/sums.jsonl"
    write_rows(tests, [{**read_rows(tests)[0], "id": "new"}, *read_rows(tests)])
    about = sources(tmp_path)
    transcripts.write(
        tmp_path / "page",
        transcripts.Sources(**{**vars(about), "benchmarks": [*BENCHMARKS][::-1], "models": MODELS[::-1]}),
    )
    shell(tmp_path / "page")
    again = Shown(browser, tmp_path)
    again.go("#" + link.partition("#")[2])
    assert again.page.text_content(TEXT) == text
    assert again.faults == []
    again.context.close()


def test_a_strange_id_has_its_address(shown: Shown, known: Known) -> None:
    key = f"mild/{HOSTILE_ROW}"
    assert shown.search("zzz") == []
    shown.search("")
    shown.set("benchmark", "mild")
    shown.page.get_by_text(key, exact=True).click()
    shown.page.wait_for_selector(".tr-title")
    assert shown.page.text_content(".tr-title") == key
    assert shown.page.text_content(TEXT) == known.tests[key]["question"]
    shown.go(shown.page.evaluate("location.hash"))
    assert shown.page.text_content(".tr-title") == key


def test_an_unknown_row_is_said_to_be_unknown(shown: Shown) -> None:
    shown.go("#/transcripts?row=harm/<b>nothing</b>")
    assert shown.page.inner_text(".fault") == "No row harm/<b>nothing</b> in evaluation."
    shown.go("#/transcripts?row=sums-1")  # an id that only one benchmark has
    assert shown.page.inner_text(".tr-title") == "sums/sums-1"


# ---- passports ----


def test_commands_name_passports_that_there_are(shown: Shown, run: Path) -> None:
    for key in ("harm/harm-1", f"mild/{HOSTILE_ROW}"):
        shown.go(
            "#/transcripts?"
            + shown.page.evaluate(
                "(row) => new URLSearchParams({ row, models: 'base,tuned', passport: 1 }).toString()", key
            )
        )
        assert shown.page.evaluate("document.querySelector('.tr-passport').open")
        commands = [one.text_content() for one in shown.page.query_selector_all(".tr-commands code")]
        words = [shlex.split(command) for command in commands]
        assert all(line[:2] == ["star1", "passport"] and len(line) == 3 for line in words)
        asked = [line[2] for line in words]
        assert asked == [f"test:{key}", f"answer:base/{key}", "model:base", f"answer:tuned/{key}", "model:tuned"]
        assert [str(resolve(one, Places(run))) for one in asked] == asked
    facts = dict(line.split("\t") for line in shown.page.inner_text(".tr-passport table").split("\n"))
    assert facts["Generations"] == "results/generations/base/mild.jsonl"
    assert facts["Template digest"] == "aa" * 32
    assert facts["Sampling"] == "temperature 0, max_tokens 64"


def test_commands_and_links_are_copied(browser: Any, run: Path) -> None:
    shown = Shown(browser, run, permissions=["clipboard-read", "clipboard-write"])
    shown.go("#/transcripts?row=harm/harm-1&models=base,tuned&passport=1")
    for button, expected in (
        (".tr-commands .tr-copy", "star1 passport test:harm/harm-1"),
        (".tr-tools .tr-copy", "?row=harm%2Fharm-1&models=base%2Ctuned"),
    ):
        shown.page.click(button)
        shown.page.wait_for_function("(button) => document.querySelector(button).textContent === 'Copied'", arg=button)
        assert shown.page.evaluate("navigator.clipboard.readText()").endswith(expected)
    shown.context.close()


# ---- the veil ----


def veiled(shown: Shown) -> tuple[int, int]:
    """How many texts are behind the veil, and how many could be."""
    return shown.page.locator(".tr-veiled").count(), shown.page.locator(".tr-veil").count()


def test_harmful_text_is_blurred_until_asked_for(browser: Any, run: Path) -> None:
    shown = Shown(browser, run)
    shown.go("#/transcripts?models=base,tuned&purpose=harmful")
    assert veiled(shown) == (50, 50)
    assert "blur" in shown.page.evaluate("getComputedStyle(document.querySelector('.tr-veiled .tr-head')).filter")
    assert shown.page.evaluate("document.querySelector('.tr-veiled .tr-head').inert")
    shown.page.click("li:nth-child(3) .tr-unveil")
    assert veiled(shown) == (49, 50)
    assert shown.page.evaluate("getComputedStyle(document.querySelector('li:nth-child(3) .tr-head')).filter") == "none"
    # A row that was asked for stays open where it is opened, with all its texts; another one does not.
    shown.page.click("li:nth-child(3) .tr-open")
    shown.page.wait_for_selector(".tr-title")
    assert veiled(shown)[0] == 0
    shown.page.click("text=Next")
    shown.page.wait_for_function("() => document.querySelector('.tr-title').textContent === 'harm/harm-3'")
    assert veiled(shown)[0] == veiled(shown)[1] >= 2
    shown.page.click(".tr-unveil >> nth=0")
    assert veiled(shown)[0] == 0
    shown.go("#/transcripts?models=base,tuned&purpose=benign")
    assert veiled(shown) == (0, 0)
    # The switch for all holds on the way about the page, and is forgotten with it.
    shown.go("#/transcripts?models=base,tuned&purpose=harmful")
    assert veiled(shown) == (48, 50)
    shown.page.click(".tr-harm")
    assert veiled(shown) == (0, 50)
    shown.go("#/transcripts?row=harm/harm-9")
    assert veiled(shown)[0] == 0
    shown.page.click(".tr-harm")
    assert veiled(shown)[0] >= 2
    shown.page.click(".tr-harm")
    shown.page.reload()
    shown.page.wait_for_selector(".tr-title")
    assert veiled(shown)[0] >= 2
    assert shown.faults == []
    shown.context.close()


def test_an_unsafe_answer_to_a_harmless_prompt_is_blurred(shown: Shown, known: Known) -> None:
    for word in ("unsafe", "safe"):
        key = next(
            key
            for key in known.rows(["tuned"], {"verdict": f"wild:{word}"})
            if known.answers["tuned", key][0]["answer"]
        )
        shown.go(f"#/transcripts?row={key}&models=tuned")
        assert veiled(shown)[0] == (1 if word == "unsafe" else 0)


# ---- training rows ----


def test_training_rows_and_their_filters(shown: Shown, run: Path) -> None:
    for name in ("scored", "star1", "benign"):
        shown.go(f"#/transcripts?set={name}")
        assert shown.keys() == trained(run, name, {})
        for control in ("category", "source", "mark", *(["outcome"] if name == "scored" else [])):
            values = shown.options(control)[1:]
            assert values
            for value in values:
                shown.set(control, value)
                assert shown.keys() == trained(run, name, {control: value}), (name, control, value)
            shown.set(control, "")
        for query in ("kettle", "thinks violin"):
            for thinking in (False, True):
                shown.set("thinking", thinking)
                assert shown.search(query) == trained(run, name, {"q": query, "thinking": thinking})
            shown.set("thinking", False)
    shown.go("#/transcripts?set=scored&category=Ink&source=pond&mark=4&q=pebble")
    assert (
        shown.keys() == trained(run, "scored", {"category": "Ink", "source": "pond", "mark": "4", "q": "pebble"}) != []
    )


def test_a_training_row_shows_all_that_is_known(shown: Shown, run: Path) -> None:
    row = read_rows(run / "data/scored.jsonl")[5]
    shown.go("#/transcripts?set=scored&row=5")
    assert shown.page.text_content(TEXT) == row["question"]
    assert veiled(shown)[0] == 2
    facts = dict(line.split("\t") for line in shown.page.inner_text("table.facts").split("\n"))
    assert facts == {
        "Source": row["source"],
        "Categories": ", ".join(row["category"]),
        "One": str(row["score"]["One"]),
        "Two": str(row["score"]["Two"]),
        "Left out because": "balanced out at step 5 (source pond)",
    }
    assert shown.page.text_content(".tr-commands code") == "star1 passport row:5"
    shown.go("#/transcripts?set=star1&row=4")
    assert "Chosen for\tstar1" in shown.page.inner_text("table.facts")
    shown.page.click("text=Next")
    shown.page.wait_for_function("() => document.querySelector('.tr-title').textContent === 'Row 8 of star1'")
    benign = read_rows(run / "data/benign/benign.jsonl")[5]
    shown.go("#/transcripts?set=benign&row=5")
    assert veiled(shown) == (1, 1)  # the question that it was made from
    assert [one.text_content() for one in shown.page.query_selector_all(TEXT)] == [
        benign["question"],
        benign["original"],
    ]
    assert shown.page.get_attribute(".tr-prompt a", "href") == "#/transcripts?set=scored&row=5"
    assert shown.page.text_content(".tr-commands code") == "star1 passport benign:5"


# ---- keyboard, width, colours, accessibility ----


def test_the_keyboard_is_enough(shown: Shown) -> None:
    focused = "document.activeElement.textContent"
    shown.page.focus(".tr-open")
    for key, expected in (
        ("ArrowDown", "harm/harm-1"),
        ("End", "harm/harm-49"),
        ("PageDown", "harm/harm-50"),
        ("PageUp", "harm/harm-0"),
        ("ArrowDown", "harm/harm-1"),
    ):
        shown.page.keyboard.press(key)
        assert shown.page.evaluate(focused) == expected
    shown.page.keyboard.press("Enter")
    shown.page.wait_for_selector(".tr-title")
    assert shown.page.evaluate(focused) == "harm/harm-1"
    shown.page.keyboard.press("Escape")
    shown.page.wait_for_selector(".tr-list")
    shown.page.wait_for_function(f"() => {focused} === 'harm/harm-1'")


VIEWS = [
    "#/transcripts?models=base,tuned,tuned%2Bbenign",
    "#/transcripts?row=harm/harm-3&models=base,tuned&passport=1",
    "#/transcripts?row=mild/mild-6&models=base,tuned,tuned%2Bbenign",
    "#/transcripts?row=sums/sums-3&models=base,tuned",
    "#/transcripts?set=scored",
    "#/transcripts?set=benign&row=5&passport=1",
    "#/transcripts?q=nothing-like-it",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_every_view_fits_and_has_no_serious_fault(browser: Any, run: Path, width: int, scheme: str) -> None:
    # Contrast is a matter of the colours, layout one of the width: every value of both is looked at once.
    looked_at = (width, scheme) in ((375, "light"), (1440, "dark"))
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe() if looked_at else None
    shown = Shown(browser, run, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for view in VIEWS:
        shown.go(view)
        shown.page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
        shown.page.wait_for_function("() => !document.querySelector('main').innerText.includes('Reading')")
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width, view
        found = axe.run(shown.page).response["violations"] if axe else []
        serious = [
            (one["id"], [node["target"] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], view
    shown.context.close()


def test_the_benchmark_runs(browser: Any, tmp_path: Path) -> None:
    make_many(tmp_path, 300, 200, 100)
    shell(tmp_path / "page")
    assert len(list(build(tmp_path, tmp_path / "page"))) == 2
    shown = Shown(browser, tmp_path)
    assert len(shown.keys()) == 300
    assert shown.search(RARE) == shown.keys()
    assert shown.faults == []
    shown.context.close()
