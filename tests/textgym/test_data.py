"""Rows of files and datasets, and what is said where they are not as they should be."""

import gzip
import json
import sys

import pytest

from textgym.data import as_texts, is_table, read_rows, read_text, split_texts

COLUMNS = ["prompt", "target"]
ROWS = [{"prompt": "a", "target": "b"}, {"prompt": 'say "hi", ü', "target": "two\nlines"}]
CSV = 'prompt,target,more\na,b,1\n\n"say ""hi"", ü","two\nlines",2\n'


class Dataset:
    """As much of a Hugging Face dataset as is read."""

    def __init__(self, **columns):
        self._columns = columns
        self.column_names = list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def write(path, content):
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_jsonl(tmp_path, name, end, bom):
    lines = [json.dumps({**row, "id": 1}, ensure_ascii=False) for row in ROWS]
    path = write(tmp_path / name, bom + end.join([lines[0], "", "  ", lines[1], ""]))
    assert read_rows(path, COLUMNS) == read_rows(str(path), COLUMNS) == ROWS
    assert [row.where for row in read_rows(path, COLUMNS)] == [f"{path}, line {i}" for i in (1, 4)]


def test_json_texts_may_hold_other_line_separators(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"prompt": "a\u2028b\x85c"}')
    assert read_rows(path, ["prompt"]) == [{"prompt": "a\u2028b\x85c"}]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_csv(tmp_path, name, end, bom):
    path = write(tmp_path / name, bom + CSV.replace("\n", end))
    expected = [ROWS[0], {**ROWS[1], "target": f"two{end}lines"}]
    rows = read_rows(path, COLUMNS)
    assert rows == expected
    assert [row.where for row in rows] == [f"{path}, line {i}" for i in (2, 4)]
    assert read_rows(path, ["more"]) == [{"more": "1"}, {"more": "2"}]


def test_tsv_keeps_quotation_marks_and_may_come_without_a_header(tmp_path):
    path = write(tmp_path / "rows.tsv", 'prompt\ttarget\n"hi\tit\'s"\n')
    assert read_rows(path, COLUMNS) == [{"prompt": '"hi', "target": "it's\""}]
    assert read_rows(path, ["x"], header=["x", "y"]) == [{"x": "prompt"}, {"x": '"hi'}]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({c: [row[c] for row in ROWS] for c in COLUMNS}), path)
    assert read_rows(path, COLUMNS) == ROWS
    with pytest.raises(ValueError, match=r"rows\.parquet: no column 'answer', only prompt, target"):
        read_rows(path, ["answer"])
    write(path, b"PAR1 not really")
    with pytest.raises(ValueError, match=r"rows\.parquet: not a readable Parquet file"):
        read_rows(path, COLUMNS)


def test_parquet_needs_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        read_rows(write(tmp_path / "rows.parquet", b"PAR1"), COLUMNS)


def test_lists_and_datasets():
    assert read_rows(ROWS, COLUMNS) == ROWS
    assert read_rows(iter(ROWS), ["target"]) == [{"target": "b"}, {"target": "two\nlines"}]
    data = Dataset(prompt=["a"], target=[1], other=[None])
    assert read_rows(data, COLUMNS) == [{"prompt": "a", "target": 1}]
    assert read_rows(data, COLUMNS)[0].where == "`dataset`, row 1"
    with pytest.raises(ValueError, match=r"no column 'targe', only .*Did you mean 'target'\?"):
        read_rows(data, ["targe"])
    data.column_names = {"train": ["prompt"], "test": ["prompt"]}
    with pytest.raises(TypeError, match=r'collection .*`dataset\["train"\]`'):
        read_rows(data, COLUMNS)


def test_a_hub_id_reads_the_train_part(monkeypatch):
    module = type(sys)("datasets")
    module.load_dataset = lambda name, split: Dataset(prompt=[f"{name} {split}"])
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert read_rows("owner/stories", ["prompt"]) == [{"prompt": "owner/stories train"}]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match="pip install datasets"):
        read_rows("owner/stories", ["prompt"])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("r.jsonl", "", "r.jsonl: no rows. Give at least one with the columns 'prompt', 'target'"),
        ("r.jsonl", "\n \n", "r.jsonl: no rows"),
        ("r.csv", "", "r.csv: no rows"),
        ("r.csv", "prompt,target\n", "r.csv: no rows"),
        ("r.jsonl.gz", "", "r.jsonl.gz: no rows"),
        ("r.jsonl", '{"prompt": "a"}', r"line 1: no column 'target', only prompt. Rename it"),
        ("r.jsonl", '{"prompt": 1, "Target": 1}', r"line 1: .* Did you mean 'Target'\?"),
        ("r.jsonl", "{}", "line 1: no column 'prompt', only none"),
        ("r.csv", "promt,target\na,b\n", r"line 1: no column 'prompt'.*mean 'promt'\? Rename it"),
        ("r.csv", "prompt,target,prompt\na,b,c\n", "line 1: several columns 'prompt'. Rename"),
        ("r.jsonl", '{"prompt": 1, "target": 2}\n{"pro', "line 2: not JSON: .*delete it"),
        ("r.jsonl", '\n[{"prompt": 1, "target": 2}]', "line 2: expected an object with the col"),
        ("r.jsonl", '"text"', "line 1: expected an object"),
        ("r.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("r.csv", 'prompt,target\n"a\nb",c\nd\n', r"line 4: expected 2 fields \(prompt, target\)"),
        ("r.csv", "prompt,target\na,b,c\n", "line 2: expected 2 .*got 3.*quote.* comma"),
        ("r.tsv", "prompt\ttarget\na\n", "line 2: expected 2 fields .*got 1. Correct the line"),
        ("r.csv", 'prompt,target\na,b\n"c,d\n', "line 3: .*Correct the quotation marks"),
        ("r.csv", 'prompt,target\na,"b"c\n', "line 2: .*Correct the quotation marks"),
        ("r.csv", b"prompt,target\na,b\nc,\xfc\n", "line 3: not UTF-8 .byte 0xfc.*iconv -f LATIN1"),
        ("r.jsonl", "{}".encode("utf-16"), "line 1: not UTF-8.*iconv -f UTF-16"),
    ],
)
def test_bad_files_name_file_row_and_remedy(tmp_path, name, content, match):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=match) as caught:
        read_rows(path, COLUMNS)
    assert name in str(caught.value)


@pytest.mark.parametrize("broken", [b"plain text", gzip.compress(b"x" * 1000, mtime=0)[:-9]])
def test_broken_gzip_files(tmp_path, broken):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz: not a whole gzip file.*Pack it again"):
        read_rows(path, COLUMNS)


def test_names_that_are_no_files(tmp_path):
    write(tmp_path / "a.csv", "")
    with pytest.raises(ValueError, match=r"`rows`: .* is a folder. Give one of its files: a\.csv"):
        read_rows(tmp_path, COLUMNS, name="rows")
    other = write(tmp_path / "b.xlsx", "")
    with pytest.raises(ValueError, match=r"must be a \.jsonl.*b\.xlsx"):
        read_rows(other, COLUMNS)
    for missing in (tmp_path / "c.csv", tmp_path / "folder", "../no/such"):
        with pytest.raises(FileNotFoundError, match="`dataset`: no such file"):
            read_rows(missing, COLUMNS)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_text(tmp_path / "none.txt")


@pytest.mark.parametrize("source", [7, {"prompt": ["a"]}, b"rows.csv", None])
def test_other_sources_are_refused(source):
    with pytest.raises(TypeError, match=r"`dataset` must be a list of mappings"):
        read_rows(source, COLUMNS)


def test_rows_of_a_list_are_numbered():
    with pytest.raises(ValueError, match=r"`dataset`, row 2: expected an object .*'b'"):
        read_rows([ROWS[0], "b"], COLUMNS)
    with pytest.raises(ValueError, match="`dataset`: no rows"):
        read_rows([], COLUMNS)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "row 2: 'prompt' must be a non-blank text, got None"),
        (3, "got 3"),
        (" \n", "non-blank"),
        ("a\ud800", "row 2: 'prompt' holds half of a surrogate pair"),
    ],
)
def test_texts_are_checked(text, match):
    rows = read_rows([{"prompt": "ü 🎈"}, {"prompt": text}], ["prompt"])
    assert as_texts(rows[:1], "prompt") == ["ü 🎈"]
    with pytest.raises(ValueError, match=match):
        as_texts(rows, "prompt")


def test_names_of_tables():
    assert all(map(is_table, ("a.csv", "x/a.tsv.gz", "a b.jsonl", "a.parquet")))
    assert not any(map(is_table, ("a.txt", "a.txt.gz", "a.parquet.gz", "csv", "")))


def test_few_texts_are_in_both_splits():
    many = tuple(map(str, range(100)))
    parts = split_texts(many)
    assert sorted(parts["train"] + parts["test"], key=int) == list(many)
    assert 0 < len(parts["test"]) < 30
    assert split_texts(many[:15]) == {"train": many[:15], "test": many[:15]}
