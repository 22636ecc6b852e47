"""Raw files become rows: every layout, and for whatever is malformed the rule in docs/data.md, each row accounted for."""

import gzip
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from star1.errors import InputError
from star1.reading import REASONS, Counts, read_benchmark, read_published, read_source, summary
from star1.records import Row, write_rows
from star1.sources import Benchmark, Published, Source, Top

TERMS = {"licence": "MIT", "attribution": "someone"}


def source(format_: str = "jsonl", **fields: Any) -> Source:
    base: dict[str, Any] = {"kind": "mirror", "path": "file", "format": format_, "ngram": 8, "question": "q", **TERMS}
    return Source(**base | fields)


def benchmark(format_: str = "jsonl", **fields: Any) -> Benchmark:
    base: dict[str, Any] = {"kind": "mirror", "path": "file", "format": format_, "question": "q", "purpose": "harmful"}
    return Benchmark(**base | TERMS | fields)


def read(tmp_path: Path, content: str | bytes, entry: Source, name: str = "set") -> tuple[list[Row], Counts]:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source("set", entry, [file])


def questions(result: tuple[list[Row], Counts]) -> list[str]:
    return [row["question"] for row in result[0]]


def tally(counts: Counts) -> dict[str, Any]:
    """The counts that are not nothing, and that they fit together."""
    assert counts["read"] == counts["filtered"] + counts["not_chosen"] + counts["kept"] + sum(
        counts[reason] for reason in REASONS
    )
    assert {reason: len(rows) for reason, rows in counts["dropped"].items()} == {
        reason: counts[reason] for reason in REASONS if counts[reason]
    }
    return {key: value for key, value in counts.items() if value and key != "dropped"}


# --- layouts ----------------------------------------------------------------------------------------------------------

PLAIN = ["None", "two, with comma", None, "  ", "null", 'say "five"']
LINES = "\n".join(json.dumps({"q": text}) for text in PLAIN)


def as_csv(delimiter: str) -> str:
    cells = ["" if text is None else '"' + text.replace('"', '""') + '"' for text in PLAIN]
    return "".join(f"{left}{delimiter}{right}\r\n" for left, right in zip(["q", *cells], "n123456", strict=True))


@pytest.mark.parametrize(
    ("format_", "name", "content"),
    [
        ("jsonl", "a.jsonl", LINES),
        ("jsonl", "crlf.jsonl", LINES.replace("\n", "\r\n") + "\r\n"),
        ("jsonl", "mark.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("jsonl", "wide.jsonl", LINES.encode("utf-16")),
        ("json", "a.json", json.dumps([{"q": text} for text in PLAIN])),
        ("json", "indented.json", json.dumps([{"q": text} for text in PLAIN], indent=2)),
        ("json", "mark.json", b"\xef\xbb\xbf" + json.dumps([{"q": text} for text in PLAIN]).encode()),
        ("json", "wide.json", json.dumps([{"q": text} for text in PLAIN]).encode("utf-16-be").join((b"\xfe\xff", b""))),
        ("json", "columns.json", json.dumps({"q": PLAIN, "inputs": [], "version": 1})),
        ("json", "lines.json", LINES),
        ("csv", "a.csv", as_csv(",")),
        ("csv", "lf.csv", as_csv(",").replace("\r\n", "\n").removesuffix("\n")),
        ("csv", "cr.csv", as_csv(",").replace("\r\n", "\r")),
        ("tsv", "a.tsv", as_csv("\t")),
        ("csv", "mark.csv", b"\xef\xbb\xbf" + as_csv(",").encode()),
        ("csv", "wide.csv", as_csv(",").encode("utf-16")),
        ("csv", "wider.csv", as_csv(",").encode("utf-32")),
        ("jsonl", "a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("csv", "a.csv.xz", lzma.compress(as_csv(",").encode())),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_every_layout_gives_the_same_rows(tmp_path: Path, format_: str, name: str, content: str | bytes) -> None:
    rows, counts = read(tmp_path, content, source(format_), name)
    assert tally(counts) == {"read": 6, "empty": 2, "kept": 4}
    assert counts["dropped"] == {"empty": [2, 3]}
    assert rows == [
        {"question": PLAIN[row], "source": "set", "licence": "MIT", "row": row} for row in (0, 1, 4, 5)
    ]  # "None" and "null" are questions like any other


def test_parquet(tmp_path: Path) -> None:
    polars.DataFrame({"q": PLAIN, "safe": [False] * 5 + [True], "more": range(6)}).write_parquet(tmp_path / "a")
    rows, counts = read_source("set", source("parquet", keep={"safe": False}), [tmp_path / "a"])
    assert tally(counts) == {"read": 6, "filtered": 1, "empty": 2, "kept": 3}
    assert [row["row"] for row in rows] == [0, 1, 4]
    with pytest.raises(InputError, match="columns q, safe, more; expected a column 'prompt'"):
        read_source("set", source("parquet", question="prompt"), [tmp_path / "a"])


def test_parquet_in_batches_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("star1.layouts.BATCH_ROWS", 7)
    polars.DataFrame({"q": [f"q{n}" for n in range(100)]}).write_parquet(tmp_path / "a", row_group_size=30)
    rows, _ = read_source("set", source("parquet"), [tmp_path / "a"])
    assert [(row["row"], row["question"]) for row in rows] == [(n, f"q{n}") for n in range(100)]


def test_plain_text_is_a_question_a_line(tmp_path: Path) -> None:
    # U+2028 ends a line for str.splitlines, but not in a file.
    rows, counts = read(tmp_path, "one\r\n\ntwo\u2028three\n", source("txt", question=None))
    assert [(row["row"], row["question"]) for row in rows] == [(0, "one"), (2, "two\u2028three")]
    assert counts["dropped"] == {"empty": [1]}


def test_a_json_list_of_strings(tmp_path: Path) -> None:
    assert questions(read(tmp_path, '["one", "two"]', source("json", question=None))) == ["one", "two"]


def test_a_csv_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    result = read(tmp_path, 'first\n"second, too"\n', source("csv", question="0", header=False))
    assert questions(result) == ["first", "second, too"]


def test_a_csv_field_may_have_lines_and_a_row_may_be_short(tmp_path: Path) -> None:
    rows, counts = read(tmp_path, 'n,q\n1,"two\r\nlines"\n2\n\n3,three\n', source("csv"))
    assert [(row["row"], row["question"]) for row in rows] == [(0, "two\r\nlines"), (2, "three")]
    assert counts["dropped"] == {"absent": [1]}


def test_several_files_are_numbered_through(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f'{{"q": "{name}0"}}\n{{"q": ""}}\n')
    rows, counts = read_source("set", source(), [tmp_path / "a", tmp_path / "b"])
    assert [(row["row"], row["question"]) for row in rows] == [(0, "a0"), (2, "b0")]
    assert counts["dropped"] == {"empty": [1, 3]}


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ({"kind": "a"}, ["1", "4"]),
        ({"kind": ["a", "b"]}, ["1", "2", "4"]),
        ({"not kind": "a"}, ["2", "3"]),
        ({"not kind": ["a", None]}, ["2"]),
        ({"safe": False}, ["1", "2"]),
        ({"safe": 0}, ["4"]),  # in Python False == 0
        ({"kind": "a", "not safe": 0}, ["1"]),
    ],
)
def test_keep(tmp_path: Path, keep: dict[str, Any], kept: list[str]) -> None:
    values: list[tuple[str, str | None, object]] = [
        ("1", "a", False),
        ("2", "b", False),
        ("3", None, True),
        ("4", "a", 0),
    ]
    content = "\n".join(json.dumps(dict(zip(("q", "kind", "safe"), line, strict=True))) for line in values)
    assert questions(read(tmp_path, content, source(keep=keep))) == kept


def test_keep_reads_truth_values_and_numbers_from_csv(tmp_path: Path) -> None:
    content = "q,safe,level\none,False,2\ntwo,True,2\nthree,false,3\n"
    assert questions(read(tmp_path, content, source("csv", keep={"safe": False, "level": 2}))) == ["one"]


def test_strip_takes_markers_off(tmp_path: Path) -> None:
    content = json.dumps({"q": "### Instruction:\n how? \n### Response:\n"})
    entry = source(strip=["### Instruction:", "### Response:"])
    assert questions(read(tmp_path, content, entry)) == ["how?"]
    assert questions(read(tmp_path, json.dumps({"q": " as it is "}), source())) == [" as it is "]
    with pytest.raises(InputError, match=r"no question in 1 rows \(1 empty\)"):
        read(tmp_path, json.dumps({"q": "### Instruction:\n\n### Response:\n"}), entry)


DEEP = [
    {"talk": [{"content": "first"}, {"content": "second"}], "marks": [{"bad": False}, {"bad": True}], "a.b": "flat"},
    {"talk": [], "marks": [{"bad": True}], "a.b": "other"},
    {"talk": [{"content": "third"}], "marks": [{"bad": True}], "a.b": None},
    {"talk": None, "marks": None, "a.b": None},
]


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_a_field_may_be_a_path(tmp_path: Path, format_: str) -> None:
    file = tmp_path / "a"
    if format_ == "parquet":
        polars.DataFrame(DEEP).write_parquet(file)
    else:
        file.write_text("\n".join(map(json.dumps, DEEP)))
    entry = source(format_, question="talk.0.content", keep={"marks.-1.bad": True})
    rows, counts = read_source("set", entry, [file])
    assert [(row["row"], row["question"]) for row in rows] == [(0, "first"), (2, "third")]
    assert tally(counts) == {"read": 4, "filtered": 1, "absent": 1, "kept": 2}
    # A column of just that name goes first.
    assert questions(read_source("set", source(format_, question="a.b"), [file])) == ["flat", "other"]
    with pytest.raises(InputError, match=r"expected a column 'chat\.0\.content'"):
        read_source("set", source(format_, question="chat.0.content"), [file])


# --- malformed rows: dropped, and counted -----------------------------------------------------------------------------


def lines(*values: object) -> str:
    return "\n".join(json.dumps({"q": value}) for value in values)


def test_no_question_in_all_its_forms(tmp_path: Path) -> None:
    content = lines("one", None, "", " \t\u00a0\n", float("nan")) + '\n{"other": 1}\n{"q": "two"}'
    rows, counts = read(tmp_path, content, source())
    assert [row["row"] for row in rows] == [0, 6]
    assert counts["dropped"] == {"empty": [1, 2, 3, 4], "absent": [5]}


def test_rows_without_the_field_are_not_taken_for_empty_ones(tmp_path: Path) -> None:
    _, counts = read(tmp_path, '{"q": "one"}\n{"Q": "two"}\n{"q": null}', source())
    assert counts["dropped"] == {"absent": [1], "empty": [2]}
    assert summary("set", counts) == "fetch: set: 3 rows read, 1 kept (0 filtered out, 1 empty, 1 absent)"
    with pytest.raises(InputError, match="columns Q; expected a column 'q'"):
        read(tmp_path, '{"Q": "two"}', source())


def test_a_question_that_is_no_text(tmp_path: Path) -> None:
    rows, counts = read(tmp_path, lines(5, "one", True, ["a"], {"a": 1}, 0.5), source())
    assert [row["row"] for row in rows] == [1]
    assert counts["dropped"] == {"not_text": [0, 2, 3, 4, 5]}
    assert questions(read(tmp_path, '["one", null, 7]', source("json", question=None))) == ["one"]


@pytest.mark.parametrize(("format_", "content"), [("jsonl", '{"q": 5}'), ("json", '[{"q": 5}]'), ("json", "[5, 6]")])
def test_questions_that_are_no_text_in_any_row(tmp_path: Path, format_: str, content: str) -> None:
    with pytest.raises(InputError, match=r"set row 0: a question of type int, as in all rows; expected text"):
        read(tmp_path, content, source(format_))


def test_no_row_with_a_question_tells_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question in 3 rows \(2 not_text, 1 empty\)"):
        read(tmp_path, lines(5, None, 6), source())


LATIN = "na\xefve".encode("latin-1")


@pytest.mark.parametrize(
    ("format_", "name", "content"),
    [
        ("txt", "a", b"fine\n" + LATIN + b"\nagain\n"),
        ("csv", "a", b"text\nfine\n" + LATIN + b"\nagain\n"),
        ("tsv", "a", b'text\nfine\n"' + LATIN + b'"\nagain\n'),
        ("jsonl", "a", b'{"text": "fine"}\n{"text": "' + LATIN + b'"}\n{"text": "again"}\n'),
        ("jsonl", "a", b'{"text": "fine"}\n{"text": "\\ud83d"}\n{"text": "again"}\n'),  # half of an emoji
        ("json", "a", b'["fine", "' + LATIN + b'", "again"]'),
        ("json", "a", b'["fine", "\\udc00 first", "again"]'),
        ("jsonl", "a.gz", gzip.compress(b'{"text": "fine"}\n{"text": "' + LATIN + b'"}\n{"text": "again"}\n', mtime=0)),
        ("txt", "a", "fine\nbad \ud800 half\nagain".encode("utf-16", "surrogatepass")),
    ],
    ids=str,
)
def test_a_row_that_is_not_utf8_goes_and_the_others_stay(
    tmp_path: Path, format_: str, name: str, content: bytes
) -> None:
    rows, counts = read(tmp_path, content, source(format_, question="text"), name)
    assert [(row["row"], row["question"]) for row in rows] == [(0, "fine"), (2, "again")]
    assert counts["dropped"] == {"not_utf8": [1]}
    assert write_rows(tmp_path / "out", rows) == 2


def test_bytes_that_are_not_utf8_matter_only_where_they_are_needed(tmp_path: Path) -> None:
    content = b"q,kind,note\none,a," + LATIN + b"\ntwo," + LATIN + b",x\nthree,b," + LATIN + b"\n"
    rows, counts = read(tmp_path, content, source("csv", keep={"kind": "a"}))
    assert [row["row"] for row in rows] == [0]
    assert tally(counts) == {"read": 3, "filtered": 1, "not_utf8": 1, "kept": 1}
    (tmp_path / "a").write_bytes(content)
    rows, counts = read_benchmark("exam", benchmark("csv", category="kind"), [tmp_path / "a"])
    assert [row["category"] for row in rows] == ["a", "b"]


def test_good_characters_of_all_planes_stay(tmp_path: Path) -> None:
    text = "é 漢字 😀 \u2028 \x00 \ufeff mark"
    for format_ in ("jsonl", "json"):
        for ascii_only in (True, False):
            content = json.dumps({"q": text} if format_ == "jsonl" else [{"q": text}], ensure_ascii=ascii_only)
            assert questions(read(tmp_path, content, source(format_))) == [text]
    assert questions(read(tmp_path, f"q,n\n{text},1\n", source("csv"))) == [text]


def test_long_questions(tmp_path: Path) -> None:
    content = lines("x" * 100_000, "x" * 100_001, "x" * 1_000_000)
    rows, counts = read(tmp_path, content, source())
    assert [row["row"] for row in rows] == [0]
    assert counts["dropped"] == {"too_long": [1, 2]}
    assert questions(read(tmp_path, lines("four", "fifth"), source(longest=4))) == ["four"]
    megabyte = "word " * 200_000
    assert questions(read(tmp_path, f'q,n\n"{megabyte}",1\n', source("csv", longest=2_000_000))) == [megabyte]


def test_csv_rows_with_too_many_fields(tmp_path: Path) -> None:
    content = "q,n\none,1\nan, unquoted comma,2\ntwo,2,,\nthree,3,\nfour\n"
    rows, counts = read(tmp_path, content, source("csv"))
    assert [(row["row"], row["question"]) for row in rows] == [(0, "one"), (2, "two"), (3, "three"), (4, "four")]
    assert counts["dropped"] == {"long_row": [1]}


def test_duplicates_stay_and_are_counted(tmp_path: Path) -> None:
    rows, counts = read(tmp_path, lines("one", "two", "one", "One", "one", "one ", ""), source())
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert (counts["duplicates"], counts["kept"]) == (2, 6)


def test_all_reasons_at_once(tmp_path: Path) -> None:
    content = lines("one", None, 5, "\ud800", "too long", "one") + '\n{"q": "no", "k": 1}'
    rows, counts = read(tmp_path, content.replace("}", ', "k": 0}', 6), source(keep={"k": 0}, longest=5))
    assert [row["row"] for row in rows] == [0, 5]
    assert counts == {
        **{"read": 7, "filtered": 1, "empty": 1, "not_text": 1, "not_utf8": 1, "too_long": 1, "long_row": 0},
        **{"absent": 0, "not_chosen": 0, "duplicates": 1, "kept": 2},
        "dropped": {"empty": [1], "not_text": [2], "not_utf8": [3], "too_long": [4]},
    }
    assert summary("set", counts) == (
        "fetch: set: 7 rows read, 2 kept"
        " (1 filtered out, 1 empty, 1 not text, 1 not utf8, 1 too long, 1 of the kept are duplicates)"
    )


# --- malformed files: told before anything is written ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "content", "told"),
    [
        ("jsonl", '{"q": "one"}\n{"q": \n', r"set:2: not JSON .*Hint: is the file cut off"),
        ("jsonl", '{"q": "one"}\n{"q": "tw', r"set:2: not JSON .*Hint: is the file cut off"),
        ("jsonl", '["one"]\n', r"set:1: a list; expected a JSON object"),
        ("json", '[{"q": "one"}, {"q": "tw', r"set: not JSON .*Hint: is the file cut off"),
        ("json", '{"q": "one"}\n{"q": "tw', r"set:2: not JSON"),
        ("json", '[{"q": "one"}] trailing', r"set: not JSON"),
        ("json", '"text"', r"a JSON str; expected a list of rows"),
        ("json", "5", r"a JSON int; expected a list of rows"),
        ("csv", 'q,n\none,1\n"two,2\nthree,3\n', r"set:3: a quote that is never closed; expected well-quoted fields"),
        ("tsv", 'q\tn\none\t1\ntwo\t"2', r"set:3: a quote that is never closed"),
        ("csv", '"q,n\none,1\n', r"set:1: a quote that is never closed"),
        ("csv", "q,n\none,1,extra\n", r"no question in 1 rows \(1 long_row\)"),
        ("csv", "prompt,kind\none,a\n", r"columns prompt, kind; expected a column 'q'"),
        ("json", '{"prompt": ["one"]}', r"columns prompt; expected a column 'q'"),
        ("jsonl", '{"prompt": "one"}\n{"text": "two"}\n', r"columns prompt, text; expected a column 'q'"),
        ("csv", "q,n\n", r"a header and no rows"),
        ("csv", "", r"columns \(none\); expected a column 'q'"),
        ("jsonl", "", r"columns \(none\); expected a column 'q'"),
        ("json", "", r"not JSON"),
        ("json", "[]", r"columns \(none\)"),
        ("txt", "\n\n", r"no question in 2 rows \(2 empty\)"),
        ("txt", b"\xff\xfea\x00b", r"bytes that are not utf-16"),
        ("json", b"\xff\xfe[\x00]", r"bytes that are not utf-16"),
        ("parquet", "no", r"not Parquet"),
        ("jsonl", "<!DOCTYPE html>\n<html>log in</html>", r"an HTML page; expected data. Hint: log in there"),
        ("csv", "\n <!-- a login -->\n<HTML lang='en'>", r"an HTML page; expected data"),
        ("parquet", "<html><body>404</body></html>", r"an HTML page; expected data"),
        ("json", "<html>\n", r"an HTML page; expected data"),
        ("csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", r"a Git LFS pointer"),
    ],
)
def test_a_faulty_file_is_told(tmp_path: Path, format_: str, content: str | bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, content, source(format_, question="text" if format_ == "txt" else "q"))


def test_a_question_about_html_is_no_page(tmp_path: Path) -> None:
    assert questions(read(tmp_path, "<htmlx> is no tag\n", source("txt", question=None))) == ["<htmlx> is no tag"]
    assert questions(read(tmp_path, "q\nwhat is\n<html>?\n", source("csv"))) == ["what is", "<html>?"]


BIG = "\n".join(json.dumps({"q": f"question number {n}", "k": str(n) * 9}) for n in range(3000)).encode()


@pytest.mark.parametrize("name", ["a.gz", "a.xz"])
@pytest.mark.parametrize("left", [0.01, 0.3, 0.999])
@pytest.mark.parametrize("format_", ["jsonl", "json"])
def test_a_cut_off_archive_is_told(tmp_path: Path, name: str, left: float, format_: str) -> None:
    packed = gzip.compress(BIG, mtime=0) if name == "a.gz" else lzma.compress(BIG)
    with pytest.raises(InputError, match=r"it cannot be unpacked .*Hint: fetch it again"):
        read(tmp_path, packed[: int(left * len(packed))], source(format_), name)


@pytest.mark.parametrize("name", ["a.gz", "a.xz"])
def test_a_damaged_archive_is_told(tmp_path: Path, name: str) -> None:
    packed = bytearray(gzip.compress(BIG, mtime=0) if name == "a.gz" else lzma.compress(BIG))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"cannot be unpacked|not JSON"):
        read(tmp_path, bytes(packed), source(), name)


@pytest.mark.parametrize(("name", "content"), [("a.gz", b"plain text"), ("a.xz", b"plain text")])
def test_a_file_that_is_not_packed_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(InputError, match=rf"{name}: it cannot be unpacked .*expected a whole \{name[1:]} file"):
        read(tmp_path, content, source(), name)


def test_a_login_page_under_the_name_of_an_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an HTML page"):
        read(tmp_path, b"<!doctype html><html></html>", source(), "a.jsonl.gz")


def test_a_cut_off_parquet_file_is_told(tmp_path: Path) -> None:
    polars.DataFrame({"q": [f"q{n}" for n in range(1000)]}).write_parquet(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    for length in (0, 3, len(content) // 2, len(content) - 1):
        (tmp_path / "b").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"not Parquet .*expected a whole Parquet file"):
            read_source("set", source("parquet"), [tmp_path / "b"])


def test_a_missing_keep_column_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a column 'safe'"):
        read(tmp_path, '{"q": "one"}', source(keep={"not safe": True}))


@pytest.mark.parametrize(
    ("content", "format_", "hint"),
    [
        ("Q,other\n1,2\n", "csv", "columns Q, other; expected a column 'q'. Hint: did you mean 'Q'?"),
        (
            "q,other\n1,2\n",
            "tsv",
            "columns q,other; expected a column 'q'. Hint: all columns stand in one; is `format` right?",
        ),
        ("a,b\n1,2\n", "csv", "columns a, b; expected a column 'q'."),
        ("", "csv", "columns (none); expected a column 'q'. Hint: is it empty?"),
        ("q,other\n1,2\n", "jsonl", "Hint: is `format` right?"),
        ('{"q": 1}\n{"q": ', "jsonl", "Hint: is the file cut off?"),
    ],
)
def test_what_was_probably_meant_is_told(tmp_path: Path, content: str, format_: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, source(format_))
    assert str(caught.value).endswith(hint)


def test_keep_that_fits_no_row_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question in 1 rows \(1 filtered\)"):
        read(tmp_path, '{"q": "one"}', source(keep={"q": "two"}))


def test_expected_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path, '{"q": "one"}\n{"q": ""}', source(rows=1))[0]) == 1
    with pytest.raises(InputError, match=r"set: 1 rows \(dropped: 1 empty\); expected 2"):
        read(tmp_path, '{"q": "one"}\n{"q": ""}', source(rows=2))


# --- whatever comes -------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.sampled_from(
                [
                    b"q",
                    b",",
                    b'"',
                    b"\n",
                    b"\r\n",
                    b"\t",
                    b"\xff",
                    b"{",
                    b"}",
                    b'{"q": ',
                    b'"a"',
                    b"null",
                    b"[",
                    b"]",
                    b"\x00",
                ]
            ),
            max_size=25,
        ).map(b"".join),
    ),
    format_=st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "parquet"]),
    ending=st.sampled_from(["", ".gz", ".xz"]),
    packed=st.booleans(),
    header=st.booleans(),
)
def test_any_bytes_give_rows_that_add_up_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, format_: str, ending: str, packed: bool, header: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    if packed and ending:
        content = gzip.compress(content, mtime=0) if ending == ".gz" else lzma.compress(content)
    (folder / f"f{ending}").write_bytes(content)
    field = "text" if format_ == "txt" else "q" if header else "0"
    try:
        rows, counts = read_source("set", source(format_, question=field, header=header), [folder / f"f{ending}"])
    except InputError:
        return
    tally(counts)
    assert counts["kept"] == len(rows) > 0
    assert write_rows(folder / "out", rows) == len(rows)


def test_memory_stays_with_the_rows_that_are_kept(tmp_path: Path) -> None:
    """Rows of long answers are read for their short questions: what is not needed must not pile up."""
    row = json.dumps({"q": "a short question", "k": 0, "answer": "long " * 400}) + "\n"
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", compresslevel=1) as file:
        for _ in range(100):
            file.write(row * 100)
        file.write(row.replace('"k": 0', '"k": 1'))
    tracemalloc.start()
    rows, counts = read_source("set", source(keep={"k": 1}), [tmp_path / "a.jsonl.gz"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(rows), counts["read"]) == (1, 10_001)
    assert peak < 2e6  # of 20 MB of text


# --- benchmarks -----------------------------------------------------------------------------------------------------


def write_lines(path: Path, rows: list[Row]) -> list[Path]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [path]


def test_benchmark_rows(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "a", [{"q": "1+1?", "key": 7, "is": 2, "of": "sums"}, {"q": "", "key": 8, "is": 0}])
    rows, counts = read_benchmark("exam", benchmark(id="key", answer="is", category="of"), files)
    assert rows == [
        {"id": "7", "question": "1+1?", "benchmark": "exam", "purpose": "harmful", "answer": "2", "category": "sums"}
    ]
    assert tally(counts) == {"read": 2, "empty": 1, "kept": 1}


def test_benchmark_rows_without_id_are_named_by_their_place_in_the_file(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "a", [{"q": "x", "k": 0}, {"q": "y", "k": 1}, {"q": "z", "k": 1}])
    rows, _ = read_benchmark("exam", benchmark(keep={"k": 1}), files)
    assert [row["id"] for row in rows] == ["exam-1", "exam-2"]


def test_benchmark_shuffle_and_limit(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "a", [{"q": f"q{i}"} for i in range(10)])
    rows, counts = read_benchmark("exam", benchmark(shuffle_seed=42, limit=4), files)
    assert [row["question"] for row in rows] == [f"q{i}" for i in np.random.default_rng(42).permutation(10)[:4]]
    assert tally(counts) == {"read": 10, "not_chosen": 6, "kept": 4}
    assert [row["id"] for row in read_benchmark("exam", benchmark(limit=2), files)[0]] == ["exam-0", "exam-1"]


def test_benchmark_of_the_highest_scores(tmp_path: Path) -> None:
    """As the published code takes its chats: by the first of the highest scores, best first, category by category."""
    scores = [
        {"violence": 0.2, "hate": 0.9},
        {"violence": 0.8, "hate": 0.1},
        {"violence": 0.5, "hate": 0.5},  # a tie: violence stands first
        {"violence": 0.1, "hate": 0.95},
        {"violence": 0.1, "hate": 0.9},  # as high as row 0, and behind it
        {"violence": 0.7, "hate": None},
    ]
    files = write_lines(tmp_path / "a", [{"q": f"q{n}", "m": [{"s": score}]} for n, score in enumerate(scores)])
    rows, _ = read_benchmark("chats", benchmark(top=Top(scores="m.-1.s", each=2)), files)
    assert [(row["id"], row["category"]) for row in rows] == [
        ("chats-3", "hate"),
        ("chats-0", "hate"),
        ("chats-1", "violence"),
        ("chats-5", "violence"),
    ]
    with pytest.raises(InputError, match=r"chats row 0: no scores in 'm\.0\.t'"):
        read_benchmark("chats", benchmark(top=Top(scores="m.0.t", each=2)), files)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"q": "a", "key": 1, "is": "b"}, {"q": "c", "key": "1", "is": "d"}], "the id '1' twice"),
        ([{"q": "a", "key": 1, "is": None}], "exam row 0: nothing in 'is'; expected a value for answer"),
        ([{"q": "a", "key": 1}], "expected a column 'is'"),
    ],
)
def test_a_faulty_benchmark_is_told(tmp_path: Path, rows: list[Row], told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_benchmark("exam", benchmark(id="key", answer="is"), write_lines(tmp_path / "a", rows))
    assert told in str(caught.value)


# --- released data sets ---------------------------------------------------------------------------------------------

RELEASED = {
    "id": "1",
    "question": "q",
    "response": "<think>\nt\n</think>\n\na",
    "category": ["c"],
    "score": {"s": 10},
    "source": "x",
}


def published(format_: str = "json", **fields: Any) -> Published:
    return Published(**{"kind": "mirror", "path": "file", "format": format_, **TERMS} | fields)


@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_published_rows(tmp_path: Path, format_: str) -> None:
    rows = [RELEASED, RELEASED | {"id": "2", "note": "kept"}]
    text = json.dumps(rows) if format_ == "json" else "\n".join(map(json.dumps, rows))
    (tmp_path / "file").write_text(text)
    assert read_published("set", published(format_, rows=2), [tmp_path / "file"]) == rows
    with pytest.raises(InputError, match="2 rows; expected 3"):
        read_published("set", published(format_, rows=3), [tmp_path / "file"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": 2}, "row 1: id: "),
        ({"category": "['c']"}, "row 1: category: "),
        ({"category": []}, "row 1: category: "),
        ({"score": {"s": "10"}}, "row 1: score.s: "),
        ({"response": None}, "row 1: response: "),
    ],
)
def test_a_faulty_published_row_is_named(tmp_path: Path, change: Row, told: str) -> None:
    (tmp_path / "file").write_text(json.dumps([RELEASED, RELEASED | change]))
    with pytest.raises(InputError) as caught:
        read_published("set", published(), [tmp_path / "file"])
    assert told in str(caught.value)


def test_a_published_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[]")
    with pytest.raises(InputError, match="set: no rows"):
        read_published("set", published(), [tmp_path / "file"])
