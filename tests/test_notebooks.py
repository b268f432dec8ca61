"""The notebooks run from the first cell to the last, with shorter trainings, and are kept without outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SHORTER = {
    "own_images": {
        'data = "shapes"': 'data = {"name": "shapes", "num_train": 400, "num_test": 100}',
        '"minutes": minutes': '"steps": 6, "threads": 1, "monitor": {"images": 100}',
    },
    "parts": {
        "num_images, steps = 4000, 600": "num_images, steps = 300, 12",
        "count=1000": "count=200",
    },
}
"""What the cells say instead while they are tested."""


def source(notebook: Path) -> str:
    cells: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra dev)")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra dev)")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra dev)")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = notebook.read_text(encoding="utf-8")
    for word, shorter in SHORTER[notebook.stem].items():
        assert word in source(notebook)
        text = text.replace(json.dumps(word)[1:-1], json.dumps(shorter)[1:-1])
    content = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        kind
        for cell in content.cells
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
        if kind.startswith("image/")
    ]
    assert shown
