"""The report in a browser, opened from disk: numbers, links and filters; that nothing leaves it, and everybody can use it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from star1.params import read_yaml
from star1.records import Row, read_json, read_rows, write_rows
from star1.report.build import build
from star1.report.run import Run
from star1.tables import MEASURES
from tests.browsing import READY, Visit, browser
from tests.conftest import ROOT
from tests.reports import (
    DAY,
    HOSTILE,
    LADDER_STEPS,
    MARKED,
    add_ladder,
    add_published,
    hosted,
    made_again,
    make_run,
    question,
)

SECTIONS = ("overview", "funnel", "data", "results", "transcripts")
MOST_BYTES = 5_000_000
CELLS = """table => [...table.rows].map((row) =>
  [...row.cells].map((cell) => cell.innerText.replace(/\\s+/g, " ").trim()))"""
# What reaches beyond the right edge and cannot be scrolled to within its own box.
WIDER = """width => [...document.querySelectorAll("main *, header *")].filter((one) =>
  one.getBoundingClientRect().right > width + 1 && !one.closest(".scroll, nav, svg, details:not([open])"))
  .map((one) => one.outerHTML.slice(0, 80))"""
# How each choice of the page picks rows of the table of agreement.
PICKED: dict[str, Callable[[Row], bool]] = {
    "benchmark": lambda one: one["model"] == one["category"] == "all",
    "model": lambda one: one["model"] != "all",
    "category": lambda one: one["category"] != "all",
}


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: Run) -> Path:
    build(run, run.root / "results/report")
    return run.root / "results/report"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run in which nothing stands in for anything, with a ladder and a judge whose model ends."""
    params = read_yaml(ROOT / "params.yaml")
    run = make_run(tmp_path_factory.mktemp("real"), hosted(params))
    add_ladder(run.root)
    cells = read_json(run.root / "results/tables/main.json")
    for one in cells["cells"]:
        one["judges"] = ["Ending"] if one["purpose"] != "reasoning" else one["judges"]
    (run.root / "results/tables/main.json").write_text(json.dumps(cells))
    build(made_again(run), run.root / "results/report")
    return run.root / "results/report"


@pytest.fixture
def visit(opened: Any, report: Path) -> Iterator[Visit]:
    made = Visit(opened, report)
    yield made
    made.context.close()


def cells_of(page: Any, caption: str) -> list[list[str]]:
    """The table with an id, or that begins with a caption, as texts."""
    captioned = page.locator("table", has=page.locator("caption", has_text=caption))
    table = page.locator(caption) if caption.startswith("#") else captioned.first
    found: list[list[str]] = table.evaluate(CELLS)
    return found


def signed(share: float) -> str:
    return "0.0" if share == 0 else f"{'+' if share > 0 else '−'}{abs(100 * share):.1f}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def rate(one: Any) -> str:
    ends = "" if one["value"] is None else f" [{percent(one['low'])}, {percent(one['high'])}]"
    return f"{percent(one['value'])}{ends} {one['n']}/{one['total']} scored"


# --- from disk, and nowhere else ---


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_opens_from_disk_and_asks_for_nothing_else(visit: Visit, section: str) -> None:
    page = visit.go(section)
    visit.draw_all()
    assert page.locator("h1").inner_text().lower() == section
    assert page.locator(f'#nav a[data-id="{section}"]').get_attribute("aria-current") == "page"
    assert page.locator(".fault").count() == 0
    assert (visit.foreign(), visit.faults) == ([], [])


def test_every_link_of_the_page_leads_somewhere(visit: Visit) -> None:
    links: set[str] = set()
    for section in SECTIONS:
        links |= set(visit.go(section).eval_on_selector_all("a", "all => all.map((one) => one.getAttribute('href'))"))
    for link in sorted(links - {"#main"}):
        target, _, query = link.removeprefix("#/").partition("?")
        assert target in SECTIONS, link
        visit.page.evaluate("link => { location.hash = link; }", link)
        visit.page.wait_for_selector(f"main:not([aria-busy]) .section-{target}")
        place = parse_qs(query).get("at")
        assert not place or visit.page.locator(f"#{place[0]}").is_visible(), link
        assert not visit.page.locator("main .fault").count(), link
    assert (visit.foreign(), visit.faults) == ([], [])


def test_the_page_may_not_reach_a_network_nor_run_text_as_code(visit: Visit) -> None:
    page = visit.go("overview")
    tried = page.evaluate(
        """async () => {
          const tell = (promise) => promise.then(() => "let through", () => "refused");
          const image = new Promise((resolve, reject) => Object.assign(new Image(), {onload: resolve, onerror: reject, src: "http://127.0.0.1:9/x.png"}));
          const remote = new Promise((resolve, reject) => {
            const script = Object.assign(document.createElement("script"), {onload: resolve, onerror: reject, src: "http://127.0.0.1:9/x.js"});
            document.head.append(script);
          });
          const inline = document.createElement("script");
          inline.textContent = "window.harmed = 1";
          document.head.append(inline);
          const told = [await tell(fetch("http://127.0.0.1:9/")), await tell(image), await tell(remote)];
          let evaluated = "let through"; // after a pause: what the driver calls directly may evaluate
          try { (0, eval)("1"); } catch (error) { evaluated = "refused"; }
          return [...told, evaluated, window.harmed === undefined];
        }"""
    )
    assert tried == ["refused", "refused", "refused", "refused", True]
    assert sum("Content Security Policy" in fault for fault in visit.faults) >= 4


def test_a_missing_data_file_is_told(opened: Any, run: Run, tmp_path: Path) -> None:
    build(run, tmp_path / "report")
    (tmp_path / "report/data/funnel.js").unlink()
    made = Visit(opened, tmp_path / "report")
    page = made.go("funnel")
    assert "data/funnel.js is missing" in page.locator("[role=alert]").inner_text()
    page.click('#nav a[data-id="data"]')
    page.wait_for_selector("#set-charts figure")
    made.context.close()


def test_the_default_report_is_small(report: Path) -> None:
    assert sum(path.stat().st_size for path in report.rglob("*") if path.is_file()) < MOST_BYTES


# --- numbers ---


def test_rates_are_those_of_the_tables(visit: Visit, run: Run) -> None:
    main = run.json("results/tables/main.json")
    page = visit.go("results")
    for measure in dict.fromkeys(one["measure"] for one in main["cells"]):
        own = {(one["model"], one["benchmark"]): one for one in main["cells"] if one["measure"] == measure}
        names = list(dict.fromkeys(name for _, name in own))
        models = list(dict.fromkeys(model for model, _ in own))
        assert cells_of(page, measure) == [
            ["Model", *("all together" if name == "all" else name for name in names)],
            *([model, *(rate(own[model, name]) for name in names)] for model in models),
        ]
    for row in cells_of(page, "Averages over benchmarks")[1:]:
        own_averages = [one for one in main["averages"] if one["model"] == row[0]]
        assert row[1:] == [one["why"] if one["value"] is None else rate(one) for one in own_averages]


def test_pairs_and_agreement_are_those_of_the_tables(visit: Visit, run: Run) -> None:
    page = visit.go("results")
    paired = run.json("results/tables/paired.json")["comparisons"]
    rows = [row for row in cells_of(page, "Paired comparisons")[1:] if len(row) > 1]
    assert [row[3] for row in rows] == [
        f"{signed(one['value'])} [{signed(one['low'])}, {signed(one['high'])}]" for one in paired
    ]
    assert [row[-1] for row in rows] == [f"{one['n']}/{one['total']}" for one in paired]
    pairs = run.json("results/tables/agreement.json")["pairs"]
    for by, chosen in PICKED.items():
        page.select_option("label:has-text('Agreement') select", by)
        shown = cells_of(page, "Agreement of each two judges")[1:]
        kappas = [row[-3].split(" ")[0] for row in shown]
        assert kappas == ["–" if one["kappa"] is None else f"{one['kappa']:.2f}" for one in pairs if chosen(one)]


def test_published_figures_are_all_there(visit: Visit, run: Run) -> None:
    page = visit.go("results")
    page.select_option("label:has-text('Rows') select", "all")
    for name in ("published", "quality", "think"):
        table = run.json(f"results/tables/{name}.json")
        page.select_option("label:has-text('Table') select", table["title"])
        rows = [row for row in cells_of(page, table["title"])[1:] if len(row) > 1]
        assert [(row[0], row[1], row[4]) for row in rows] == [
            (one["model"], one["benchmark"], percent(one["published"])) for one in table["comparisons"]
        ]
    visit.go("results?" + page.url.partition("?")[2])  # a link to what was chosen
    assert page.locator("#published-table caption").inner_text().startswith(table["title"])


def test_overview_tells_what_was_run_and_what_it_cost(visit: Visit, run: Run) -> None:
    page = visit.go("overview")
    text = page.locator("main").inner_text()
    for told in (
        *run.params["collect"]["sources"],
        *run.params["generate"]["benchmarks"],
        "0123456789abcdef",
        "stand-in (no language model)",
        "3.75 USD",
    ):
        assert told in text
    main = run.json("results/tables/main.json")["cells"]
    better = {one["measure"]: "higher is better" for one in main} | {
        MEASURES["benign"]["refusal"][0]: "lower is better"
    }
    pooled = {
        (one["model"], f"{one['measure']} {better[one['measure']]}"): rate(one)
        for one in main
        if one["benchmark"] == "all"
    }
    head, *rows = cells_of(page, "Rates over all benchmarks")
    assert {(row[0], measure): cell for row in rows for measure, cell in zip(head[1:], row[1:], strict=True)} == pooled
    single = [one for one in main if one["benchmark"] != "all"]
    figures = dict(line.split("\n", 1) for line in page.locator(".figures > div").all_inner_texts())
    assert {name.removesuffix(" stand-in"): told.split("\n")[0] for name, told in figures.items()} == {
        "Prompts read": str(sum(one["read"] for one in run.json("results/metrics/funnel.json")["fetched"].values())),
        "Rows chosen": str(run.json("results/metrics/quality.json")["star1"]["rows"]),
        "Look-alikes": str(run.json("results/metrics/quality.json")["benign"]["rows"]),
        "Models": str(len({one["model"] for one in main})),
        "Answers": str(sum(one["total"] for one in single)),
    }
    assert f"{sum(one['n'] for one in single)} with a verdict" in text
    page.click("summary:has-text('curate')")
    assert '"size": 160' in page.locator("details[open] pre").inner_text()


def test_data_section_shows_the_counts_of_each_set(visit: Visit, run: Run) -> None:
    quality = run.json("results/metrics/quality.json")
    page = visit.go("data?set=benign")
    head, *rows = cells_of(page, "Sets of this run")
    assert head[1:] == list(quality)
    assert {row[0]: row[1:] for row in rows}["Rows"] == [str(one["rows"]) for one in quality.values()]
    page.select_option("label:has-text('Set') select", "scored")
    page.wait_for_selector("text=Categories by prompt set: scored")
    page.locator("#set-charts summary").first.click()
    labels = {row[0]: row[-1] for row in cells_of(page, "Labels by category and prompt set: scored")[1:]}
    assert labels == {name: str(count) for name, count in quality["scored"]["labels"].items()}
    assert page.url.endswith("#/data?set=scored")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that has fetched a data set of others."""
    run = add_published(make_run(tmp_path_factory.mktemp("released")), "Theirs", 12)
    build(run, run.root / "results/report")
    return run.root / "results/report"


def test_rows_that_others_released_are_shown_as_theirs(opened: Any, released: Path) -> None:
    made = Visit(opened, released)
    page = made.go("transcripts?set=Theirs")
    assert page.locator("select[name=set] option:checked").inner_text() == "published rows: Theirs (12)"
    assert page.locator(".tr-status").inner_text() == "12 of 12 rows"
    assert "published" in page.locator(".tr-heads").text_content()
    assert page.locator("main .stand-in").count() == 0
    page.select_option("select[name=mark]", "7")
    assert page.locator(".tr-open").all_inner_texts() == ["r0"]
    page = made.go("transcripts?set=Theirs&row=r3")
    assert page.locator(".tr-veiled").count()
    assert page.locator(".tr-commands code").text_content() == "star1 passport published:Theirs/r3"
    assert "published" in page.locator("main table.facts").inner_text()
    page = made.go("data?set=Theirs")
    made.draw_all()
    sets = cells_of(page, "Sets of this run")
    place = sets[0].index("Theirs published")
    facts = {row[0]: row[place] for row in sets[1:]}
    assert (facts["What it is"], facts["Rows"]) == ("released by others", "12")
    assert facts[f"Mean mark, {MARKED[0].replace('_', ' ')}"] == "9.75 of 10"
    assert page.locator("#set-charts .stand-in").count() == 0
    assert "Stand-in" not in page.locator("#set-charts").inner_text()
    assert (made.foreign(), made.faults) == ([], [])
    made.context.close()


# --- the funnel's filters ---


def test_reasons_can_be_filtered_and_opened_and_linked_to(visit: Visit, run: Run) -> None:
    funnel = run.json("results/metrics/funnel.json")
    page = visit.go("funnel")
    rows = cells_of(page, "#reasons-table")[1:]
    for counts in funnel["reasons"].values():
        assert {(reason, str(count)) for reason, count in counts.items()} <= {tuple(row[:2]) for row in rows}
    page.select_option("label:has-text('Step') select", "pool_ngram")
    page.select_option("label:has-text('Prompt set') select", "online")
    shown = cells_of(page, "#reasons-table")[1:]
    lost = funnel["sources"]["online"]["self_ngram"] - funnel["sources"]["online"]["pool_ngram"]
    assert shown[0] == [f"Pool, n-grams: {lost} rows"]
    assert sum(int(row[1]) for row in shown[1:]) == lost
    page.click(f'button[aria-label="Examples of: {shown[1][0]}"]')
    page.wait_for_selector("#examples .pair")
    assert shown[1][0] in page.locator("#examples-title").inner_text()
    seen, address = page.locator("#examples").inner_text(), page.url.partition("#/")[2]
    assert visit.go(address).locator("#examples").inner_text() == seen
    assert page.locator("label:has-text('Step') select").input_value() == "pool_ngram"


def test_a_bar_of_the_funnel_and_its_number_lead_to_why_rows_went(visit: Visit, run: Run) -> None:
    lost = run.json("results/metrics/funnel.json")["total"]
    page = visit.go("funnel")
    visit.draw_all()
    page.locator("#left svg .mark-rect path").nth(4).click()  # read, usable, own set, pool by n-grams, pool by TF-IDF
    page.wait_for_selector(f"#reasons-table:has-text('Pool, TF-IDF: {lost['pool_ngram'] - lost['pool_tfidf']} rows')")
    assert page.url.endswith("#/funnel?step=pool_tfidf")
    assert page.evaluate("document.activeElement.id") == "reasons-title"
    page.click("#left summary")
    page.click('button[data-step="full marks"]')  # for the keyboard
    page.wait_for_selector("#reasons-table:has-text('Full marks: 20 rows')")
    page.click("#reasons-table button[data-reason]")
    link = page.locator("#examples .pair a").first.get_attribute("href")
    assert link == f"#/transcripts?set=scored&row={run.rows('data/curate_dropped.jsonl')[0]['id']}"
    assert visit.go(link.removeprefix("#/")).locator(".tr-title").inner_text().endswith(" of scored")
    assert visit.faults == []


def test_a_row_that_left_has_the_command_that_tells_about_it(visit: Visit) -> None:
    shown = visit.go("funnel?reason=0").locator("#examples .pair code").first.inner_text()
    assert re.fullmatch(r"star1 passport fetched:[a-z]+-\d+", shown)


def test_examples_are_paged(opened: Any, run: Run, tmp_path: Path) -> None:
    many = make_run(tmp_path)
    rows = read_rows(many.path("data/dropped.jsonl"))
    write_rows(many.path("data/dropped.jsonl"), [*rows, *rows[:1] * 299])
    build(many, tmp_path / "report")
    made = Visit(opened, tmp_path / "report")
    page = made.go("funnel?reason=0&page=7")
    group = page.locator("#examples")
    assert f"Rows 176 to 200 of 200 shown, examples spread evenly over {299 + 2} rows" in group.inner_text()
    assert group.locator(".pair").count() == 25
    assert page.locator("#examples button:has-text('Next')").is_disabled()
    page.click("#examples button:has-text('Previous')")
    page.wait_for_selector("text=Rows 151 to 175")
    assert page.url.endswith("reason=0&page=6")
    assert sum("funnel/dropped-0-" in url for url in made.requests) == 2  # pages are loaded as they are asked for
    made.context.close()


def test_a_near_duplicate_stands_beside_its_match_with_the_difference_marked(visit: Visit) -> None:
    page = visit.go("funnel?reason=0")
    page.wait_for_selector("#examples .pair")
    pair = page.locator("#examples .pair").first
    sides = pair.locator(".text").all_inner_texts()
    assert len(sides) == 2
    assert sides[0] != sides[1]
    assert pair.locator("mark").count() > 0
    assert all(
        word not in sides[1].split() for word in pair.locator(".text >> nth=0").locator("mark").all_inner_texts()
    )


def test_harmful_rows_are_blurred_until_they_are_asked_for(visit: Visit) -> None:
    page = visit.go("funnel?reason=0")
    page.wait_for_selector("#examples .tr-veiled")
    pairs = page.locator("#examples .pair").count()
    assert page.locator("#examples .tr-veiled .sides").count() == pairs > 1
    page.locator("#examples .tr-unveil").first.click()
    assert page.locator("#examples .tr-veiled").count() == pairs - 1
    assert page.evaluate("document.activeElement.className") == "sides"
    page.click("#examples .tr-harm")
    assert page.locator("#examples .tr-veiled").count() == 0
    page.click("#examples .tr-harm")
    assert page.locator("#examples .tr-veiled").count() == pairs
    (mild,) = page.locator("#reasons-table tr", has_text="score 2 on Help").locator("button").all()
    mild.click()
    page.wait_for_selector("#examples-title:has-text('score 2 on Help') ~ ul .pair")
    assert page.locator("#examples .tr-veil, #examples .tr-harm").count() == 0


def test_a_cell_of_the_contamination_matrix_opens_its_pairs(visit: Visit, run: Run) -> None:
    matrix = run.json("results/metrics/contamination.json")
    page = visit.go("funnel")
    head, *rows = cells_of(page, "Training rows near a benchmark")
    assert {(row[0], name): int(count) for row in rows for name, count in zip(head[1:], row[1:], strict=True)} == {
        (f"{training} of {counts['rows']} rows", name): counts["any"]
        for training, benchmarks in matrix.items()
        for name, counts in benchmarks.items()
    }
    page.click('#matrix button[aria-label*="neighbourhood near strongreject"]')
    page.wait_for_selector("#near .pair")
    assert page.locator("#near .pair").count() == matrix["neighbourhood"]["strongreject"]["any"]
    assert question("strongreject", 0) in page.locator("#near").inner_text()


# --- text is text ---


def test_hostile_texts_are_shown_as_they_are(visit: Visit) -> None:
    page = visit.go("funnel")
    seen: list[str] = []
    for button in page.locator("#reasons-table button[data-reason]").all():
        button.click()
        reason = button.get_attribute("aria-label").removeprefix("Examples of: ")
        page.wait_for_selector(f"#examples-title:has-text({json.dumps(reason)}) ~ ul .pair")
        shown = "all => all.map((one) => one.textContent)"
        seen += page.eval_on_selector_all("#examples .text, #examples .pair > p", shown)
    for text in HOSTILE:
        assert any(text[:3000] in one for one in seen), text[:40]
    assert page.evaluate("window.harmed") is None
    assert page.locator("main script, main img, main textarea, main b, main i").count() == 0
    assert (visit.foreign(), visit.faults) == ([], [])


def test_markup_in_labels_is_shown_as_it_is(opened: Any, real: Path) -> None:
    made = Visit(opened, real)
    text = made.go("overview").locator("main").inner_text()
    assert "Some <i>model</i>" in text
    assert "Model <b>M</b>" in text
    made.context.close()


@pytest.mark.parametrize("tells_idle", [True, False])
def test_charts_that_nobody_scrolls_to_are_drawn_as_well(opened: Any, report: Path, tells_idle: bool) -> None:
    """What is printed shows all; also in browsers that cannot tell when nothing is to be done."""
    made = Visit(opened, report)
    if not tells_idle:
        made.context.add_init_script("delete window.requestIdleCallback")
    page = made.go("data")
    assert page.evaluate("typeof requestIdleCallback") == ("function" if tells_idle else "undefined")
    assert page.locator(".chart").count() > 2
    made.until("[...document.querySelectorAll('.chart')].every((one) => one.dataset.drawn || !one.clientWidth)")
    assert page.evaluate("scrollY") == 0
    assert not made.faults


def test_a_tooltip_shows_names_as_text(visit: Visit) -> None:
    page = visit.go("data")
    visit.draw_all()
    page.locator("#set-charts .mark-text text").first.hover()
    page.wait_for_selector("#tip:not([hidden]) dd")
    assert "category" in page.locator("#tip").inner_text()


# --- stand-ins ---


@pytest.mark.parametrize("section", SECTIONS)
def test_stand_ins_are_marked_wherever_a_number_stands(visit: Visit, section: str) -> None:
    page = visit.go(section)
    visit.draw_all()
    assert page.locator("#banner").is_visible()
    assert "No figure on this page says anything" in page.locator("#banner").inner_text()
    assert page.locator("figure").count() == page.locator("figure > figcaption .stand-in").count()
    assert page.locator(".chart").count() == page.locator(".chart svg text:has-text('Stand-in')").count()
    if section != "overview":  # there, tables tell who did what
        bare = page.locator(".section table:not(details table)").filter(has_not=page.locator("caption .stand-in"))
        assert bare.count() == 0


def test_a_run_of_real_models_has_no_marks(opened: Any, real: Path) -> None:
    made = Visit(opened, real)
    for section in SECTIONS:
        page = made.go(section)
        assert page.locator("#banner").is_hidden()
        assert page.locator(".stand-in").count() == 0
    made.draw_all()
    assert page.locator("svg text:has-text('Stand-in')").count() == 0
    made.context.close()


# --- judges that end, ladder ---


@pytest.mark.parametrize(("today", "said"), [("2031-05-01", "ends"), ("2031-06-01", "ended")])
def test_a_judge_whose_model_ends_is_told_with_its_columns(opened: Any, real: Path, today: str, said: str) -> None:
    made = Visit(opened, real)
    made.page.clock.set_fixed_time(f"{today}T12:00:00Z")
    page = made.go("results")
    warning = page.locator(".warn").first.inner_text()
    assert (DAY in warning, "cannot be made again" in warning) == (True, True)
    assert ("was served until" in warning) == (said == "ended")
    head = cells_of(page, "Refusal of harmful prompts")[0]
    assert all(f"Ending {said} {DAY}" in name for name in head[1:])
    assert not any("Ending" in name for name in cells_of(page, "Reasoning, correct")[0])
    made.context.close()


def test_the_ladder_is_shown_where_there_is_one(opened: Any, real: Path, visit: Visit) -> None:
    assert "Not run" in visit.go("results").locator("#ladder").inner_text()
    made = Visit(opened, real)
    page = made.go("results?at=ladder")
    rows = [row for row in cells_of(page, "Protocol ladder")[1:] if len(row) > 1]
    assert [row[0] for row in rows] == list(LADDER_STEPS) * 2
    assert rows[1][2:5] == ["−25.0 [−40.0, −10.0]", "0.0120", "20/24"]
    made.draw_all()
    assert made.faults == []
    made.context.close()


# --- for everybody ---


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_page(opened: Any, report: Path, width: int, scheme: str) -> None:
    made = Visit(opened, report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for section in (SECTIONS[0], "funnel?reason=0&near=0", *SECTIONS[2:]):
        page = made.go(section)
        made.draw_all()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, section
        assert page.evaluate(WIDER, width) == [], section
    made.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(opened: Any, report: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe").Axe()
    # The page lets nothing be evaluated as code; the checker is put into it with the policy set aside.
    made = Visit(opened, report, color_scheme=scheme, bypass_csp=True)
    for section in (SECTIONS[0], "funnel?reason=0&near=0", *SECTIONS[2:]):
        page = made.go(section)
        made.draw_all()
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        # What does not hang on colours is the same in both.
        options = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
        found = axe.run(page, options=options).response["violations"]
        grave = [
            (one["id"], one["impact"], [node["target"] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert grave == [], section
    made.context.close()


def test_light_and_dark_by_the_system_and_by_the_button(opened: Any, report: Path) -> None:
    made = Visit(opened, report, color_scheme="dark")
    page = made.go("data")
    made.draw_all()
    ground = "getComputedStyle(document.body).backgroundColor"
    fill = "getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill"
    dark, dark_text = page.evaluate(ground), page.evaluate(fill)
    page.click("#theme")
    assert page.locator("#theme").inner_text() == "Theme: light"
    made.until(f"{fill} !== {json.dumps(dark_text)}")
    light = page.evaluate(ground)
    assert light != dark
    page = made.go("overview")  # kept for the next time
    assert page.evaluate(ground) == light
    page.click("#theme")
    assert page.evaluate(ground) == dark
    made.context.close()


def test_by_keyboard_alone(visit: Visit) -> None:
    page = visit.go("overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.focus('#nav a[data-id="results"]')
    page.keyboard.press("Enter")
    page.wait_for_selector(READY + " #rates")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.title().startswith("Results")
    page.focus(".anchors a >> nth=2")
    page.keyboard.press("Enter")
    assert re.fullmatch(r"paired-title", page.evaluate("document.activeElement.id"))
    page.go_back()
    page.wait_for_selector(READY + " #headline")


def test_tables_are_sorted_on_request(visit: Visit) -> None:
    page = visit.go("funnel")
    page.click("#reasons-table th button")
    numbers = [int(row[1]) for row in cells_of(page, "#reasons-table")[1:]]
    assert numbers == sorted(numbers)
    assert page.locator("#reasons-table th[aria-sort=ascending]").count() == 1
    page.click("#reasons-table th button")
    assert [int(row[1]) for row in cells_of(page, "#reasons-table")[1:]] == sorted(numbers, reverse=True)


# Row headings that are too narrow for words, and texts of charts that reach beyond the chart, where they cannot be seen.
SQUEEZED = """[...document.querySelectorAll("table:not(.facts) tbody th[scope=row]")]
  .filter((one) => one.offsetParent && one.offsetWidth < 120).map((one) => one.textContent)"""
CUT_OFF = """[...document.querySelectorAll(".chart")].flatMap((chart) => {
  const box = chart.getBoundingClientRect();
  return [...chart.querySelectorAll("svg text")].filter((one) => {
    const own = one.getBoundingClientRect();
    return own.width && (own.left < box.left - 1 || own.right > box.right + 1);
  }).map((one) => one.textContent);
})"""


@pytest.mark.parametrize("section", ["overview", "funnel", "data", "results"])
def test_nothing_is_squeezed_or_cut_off_on_a_narrow_screen(opened: Any, report: Path, section: str) -> None:
    made = Visit(opened, report, viewport={"width": 375, "height": 800})
    page = made.go(section)
    made.draw_all()
    assert (page.evaluate(SQUEEZED), page.evaluate(CUT_OFF)) == ([], [])
    if section == "funnel":  # what opens the rows is in sight
        assert page.locator("#reasons-table button[data-reason]").first.bounding_box()["x"] < 375 - 30
    made.context.close()
