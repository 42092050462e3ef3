"""Small recipes, and a tiny model to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from stage_recipes import MODEL, Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path / "shop")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a pretrained model ``base`` and the same as a Hugging Face folder, ``folder``."""
    shop = Workshop(tmp_path_factory.mktemp("made"))
    stages = {
        "base": shop.training("pretrain", tokens=2048),
        "folder": {"use": "export", "with": "hugging-face"},
    }
    sections = {"corpus": shop.data("text", holdout=0.2), "tokenizer": "bytes", "template": "chatml", "model": MODEL}
    return shop.run("made", stages, **sections).folder
