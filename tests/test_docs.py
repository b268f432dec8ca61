"""What the pages show works: each block runs or is parsed (see `documentation.py`), each name exists."""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import documentation
from crosscontext.pretraining import pretrain
from crosscontext.tasks import Task
from documentation import PAGES, ROOT, Block, blocks, reason_not_to_run
from protocol_tables import PAGE, tasks, written
from tiny_run import settings

SOURCE = ROOT / "src" / "crosscontext"
MOST_LINES = 10


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has, and a finished run."""
    place = tmp_path_factory.mktemp("prepared")
    documentation.prepare(place)
    pretrain(settings(place / "DIR", place / "runs" / "mine", steps=4))
    plain = {"name": "resnet", "depth": 18, "stem": "large"}
    pretrain(settings(place / "DIR", place / "runs" / "resnet18", steps=1, backbone=plain))
    return place


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_blocks_of_a_page_work_one_after_the_other(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    found = blocks(page)
    place = tmp_path / "place"
    makes_the_run = any("--out runs/mine" in block.text for block in found if block.language == "sh")
    shutil.copytree(prepared, place, ignore=shutil.ignore_patterns("mine") if makes_the_run else None)
    if any(block.title.startswith("src/") for block in found):
        shutil.copytree(SOURCE, place / "src" / "crosscontext", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(place)
    scope = documentation.names(place)
    for block in found:
        documentation.run(block, place, scope)


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    lines = [
        line
        for page in PAGES
        for block in blocks(page)
        if block.language == "sh" and not block.title
        for line in block.lines
    ]
    unused = [start for start in documentation.NOT_RUN if not any(line.startswith(start) for line in lines)]
    assert unused == []
    assert sum(reason_not_to_run(line) is None for line in lines) > len(lines) / 2


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_function_that_a_page_names_is_where_it_says(page: Path) -> None:
    for file, name in re.findall(r"`([\w/]+\.py):([\w.]+)`", page.read_text(encoding="utf-8")):
        found: ast.AST | None = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
        for part in name.split("."):
            inside = ast.iter_child_nodes(found) if found is not None else ()
            found = next((node for node in inside if defined(node) == part), None)
        assert found is not None, f"{name_of(page)}: there is no {name} in {file}"


def defined(node: ast.AST) -> str | None:
    """Name of the function, class or field that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return None


def test_paper_to_code_names_enough_to_find_the_way() -> None:
    text = (ROOT / "docs" / "paper-to-code.md").read_text(encoding="utf-8")
    assert len(re.findall(r"`[\w/]+\.py:[\w.]+`", text)) > 30


def test_the_figure_of_the_method_names_files_that_there_are() -> None:
    figure = (ROOT / "docs" / "pictures" / "cgh.svg").read_text(encoding="utf-8")
    named = re.findall(r">(\w+(?:\.py|/))<", figure)
    assert len(named) == 7
    assert [name for name in named if not (SOURCE / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_picture_of_a_page_is_there_and_described(page: Path) -> None:
    for description, file in re.findall(r"!\[(.*?)\]\((.+?)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / file).is_file()
        assert description


def extensions() -> list[Block]:
    page = ROOT / "docs" / "extending.md"
    return [block for block in blocks(page) if block.language == "diff" or block.title]


@pytest.mark.parametrize("block", extensions(), ids=lambda block: block.where)
def test_an_extension_takes_no_more_than_ten_lines_besides_imports(block: Block) -> None:
    lines = block.text.splitlines()
    written = (
        [line[1:] for line in lines if re.match(r"\+(?!\+)", line)] if block.language == "diff" else lines
    )
    counted = [line for line in written if line.strip() and not re.match(r'import |from |"""', line)]
    assert 0 < len(counted) <= MOST_LINES or all(line.startswith("from ") for line in written)


@pytest.mark.parametrize(
    "question", re.split(r"^### ", (ROOT / "docs" / "faq.md").read_text(), flags=re.M)[1:]
)
def test_every_question_says_who_asked_it(question: str) -> None:
    title = question.splitlines()[0]
    assert re.search(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", question), title


def test_the_tables_of_protocols_are_those_of_the_settings() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), f"python {Path(__file__).parent.name}/protocol_tables.py writes them"


@pytest.mark.parametrize("name", tasks())
def test_each_field_of_a_protocol_stands_in_the_tables(name: str) -> None:
    kind = tasks()[name]
    assert issubclass(kind, Task)
    section = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{name}\n")]
    for field in kind(name=name).protocol().keys() - {"name"}:
        assert re.search(rf"^\| `{field}[.:`]", text, flags=re.MULTILINE), field
