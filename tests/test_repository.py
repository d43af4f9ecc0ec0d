"What README and workflows tell people to type exists"
import json, re, shlex
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT/'README.md').read_text('utf-8')
WORKFLOWS = sorted((ROOT/'.github/workflows').glob('*.y*ml'))

def commands():
    "Every shell line of README, CONTRIBUTING and the workflows"
    for f in (ROOT/'README.md', ROOT/'CONTRIBUTING.md'):
        for block in re.findall(r'```(?:sh|bash)\n(.*?)```', f.read_text('utf-8'), re.S): yield from ((f.name, o) for o in block.splitlines() if o.strip())
    for f in WORKFLOWS:
        for o in re.findall(r'^\s+(?:- )?run: (?!\|)(.+)$|^ {10}(\S.*)$', f.read_text('utf-8'), re.M): yield f.name, o[0] or o[1]

@pytest.mark.parametrize('where,line', sorted(set(commands())))
def test_files_and_scripts_named_in_commands_exist(where, line):
    ini = (ROOT/'settings.ini').read_text()
    for word in shlex.split(line, comments=True):
        if re.fullmatch(r'tools/\w+\.py', word): assert (ROOT/word).exists()
        m = re.fullmatch(r'(?:\S*/)?(cxr_\w+)', word)
        if m and m[1] != 'cxr_llava': assert f'{m[1]}=' in ini, f'{m[1]} is no command of settings.ini'

def test_actions_are_pinned():
    for f in WORKFLOWS:
        for o in re.findall(r'uses:\s*(\S+)', f.read_text()): assert re.fullmatch(r'[\w./-]+@[0-9a-f]{40}', o), f'{f.name}: {o}'

def test_workflows_have_least_permissions():
    for f in WORKFLOWS: assert re.search(r'^permissions:\n  contents: read$', f.read_text(), re.M), f.name

def test_readme_has_two_one_line_commands():
    for name in ('run', 'test'):
        m = re.search(rf'<!-- {name} command -->\s*```sh\n(.*?)\n```', README, re.S)
        assert m and '\n' not in m[1] and '.venv' in m[1]

def test_readme_is_short(): assert len(README.split()) < 1000

def test_readme_says_what_it_is_not(): assert 'not a medical device' in README.lower()

def test_notebook_table_names_every_stage():
    for p in (ROOT/'nbs').glob('[0-9]0_*.ipynb'): assert f'nbs/{p.name}' in README, p.name

def test_notebooks_are_valid():
    nbformat = pytest.importorskip('nbformat')
    for p in (ROOT/'nbs').rglob('*.ipynb'): nbformat.validate(nbformat.read(p, 4))
