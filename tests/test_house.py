"Imports run one way through the wings, and no wing knows a story"
import ast
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]/'cxr_llava'
RANK = dict(core=0, xray=1, report=1, vlm=2, sources=3, train=4, score=5, panel=6)
STORIES = {p.stem for p in ROOT.glob('[a-z]*.py')}
MODULES = sorted(p for w in RANK for p in (ROOT/w).glob('[a-z]*.py'))

def imported(path):
    "Modules of the package that `path` imports, at the top or inside a function: `('core', 'files')`"
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if not isinstance(node, ast.ImportFrom): continue
        name = node.module or ''
        if node.level == 1: yield (path.parent.name, *name.split('.'))
        elif node.level == 2 and name: yield tuple(name.split('.'))
        elif node.level == 2: yield from ((o.name,) for o in node.names)
        elif name.startswith('cxr_llava.'): yield tuple(name.split('.')[1:])

@pytest.mark.parametrize('path', MODULES, ids=lambda p: f'{p.parent.name}.{p.stem}')
def test_imports_run_one_way(path):
    wing = path.parent.name
    for to in imported(path):
        assert to[0] not in STORIES, f'{wing} imports the story {to[0]}'
        assert to[0] == wing or RANK[to[0]] < RANK[wing], f'{wing}.{path.stem} imports {".".join(to)}, which stands above or beside it'

def test_every_wing_is_known(): assert {p.parent.name for p in ROOT.glob('*/__init__.py')} == set(RANK)
