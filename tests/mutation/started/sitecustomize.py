"""In a process that a mutant starts, one module is the mutant's: ``CORELM_MUTANT=MODULE=FILE``."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

MODULE, _, FILE = os.environ.get("CORELM_MUTANT", "").partition("=")


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        return compile(Path(FILE).read_text(encoding="utf-8"), self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname != MODULE:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, found.origin), origin=found.origin)


if MODULE:
    sys.meta_path.insert(0, _Finder())
