"""The package with other versions: `python tools/lanes.py kaggle` (those of Kaggle's image), `newest` (those of today) or `oldest`
(the lower bounds of settings.ini).

Makes an environment, shows that installing this package moves none of the image's packages, installs it the way Kaggle does (the
install cell, from a folder of wheels), and runs in it the tests of finetune and kaggle and the Run All rehearsal of the story.
The Python is the one that runs this; Kaggle's is 3.12.
"""
import argparse, configparser, json, os, re, shutil, subprocess, sys, tempfile, time, venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT/'tools/kaggle-pins.txt'
CPU = 'https://download.pytorch.org/whl/cpu'
TOOLS = ['pip', 'setuptools>=77,<82', 'wheel', 'pytest', 'pytest-xdist', 'hypothesis'] # beside the image: what builds and tests
MAY_ADD = ['evaluate'] # with what it needs, beside this package and what the install cell asks for; the notebooks do without it

TESTS = [f'tests/test_{o}.py' for o in ('model', 'images', 'finetune', 'finetune_inside', 'plan', 'checkpoints', 'adapters', 'publish', 'kaggle', 'import')]
SHORT = 'not killed and not full_disk and not second_training and not one_of_two' # the rest takes minutes each

def norm(name): return re.sub(r'[-_.]+', '-', name).lower()

def pins(lane):
    "Requirements of the lane, torch apart"
    lines = [o.strip() for o in PINS.read_text().splitlines() if o.strip() and not o.startswith('#')]
    if lane == 'oldest':
        config = configparser.ConfigParser(delimiters=['='], interpolation=None)
        config.read(ROOT/'settings.ini')
        lines = [o.replace('>=', '==') for o in config['DEFAULT']['requirements'].split()] + ['ipykernel', 'nbformat', 'nbclient']
    if lane == 'newest': lines = [o.split('==')[0] for o in lines]
    return [o for o in lines if not o.startswith('torch')], next(o for o in lines if o.startswith('torch'))

class Lane:
    "An environment of its own"
    def __init__(self, folder):
        self.folder, self.python = folder, folder/'bin/python'
        venv.EnvBuilder(with_pip=True, clear=True).create(folder)
    def run(self, *args, check=True, **kw):
        r = subprocess.run([str(self.python), *args], **kw)
        if check and r.returncode: sys.exit(f'FAIL {" ".join(args)[:200]}: exit code {r.returncode}' + (f'\n{r.stderr[-3000:]}' if r.stderr else ''))
        return r
    def pip(self, *args, check=True, **kw):
        return self.run('-m', 'pip', *args, '-q', '--disable-pip-version-check', check=check, capture_output=True, text=True, **kw)

def install_torch(lane, want):
    "A torch without CUDA: of the wanted version from PyTorch's own index, else the version of the Python that runs this"
    alone = os.environ | dict(PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=CPU, PIP_EXTRA_INDEX_URL='', PIP_FIND_LINKS='', PIP_RETRIES='0', PIP_DEFAULT_TIMEOUT='20')
    if lane.pip('install', want, check=False, env=alone).returncode == 0: return
    try: here = version('torch').partition('+')[0]
    except PackageNotFoundError: sys.exit(f'FAIL {want} is not at {CPU}, and there is no torch here whose version could be taken')
    print(f'{want} cannot be had from {CPU}: torch {here} instead', flush=True)
    lane.pip('install', f'torch=={here}')

def freeze(lane):
    "Name -> version of what is installed"
    return {norm(o['name']): o['version'] for o in json.loads(lane.run('-m', 'pip', 'list', '--format=json', '--disable-pip-version-check', capture_output=True, text=True).stdout)}

def make_wheels(lane, to):
    "This package and what the install cell asks for, as one folder of wheels"
    need = re.search(r'^NEED = (\[.*?\])', (ROOT/'cxr_llava/core/push.py').read_text(), re.M)[1]
    need = json.loads(need.replace("'", '"'))
    lane.pip('wheel', '--no-deps', '--no-build-isolation', '-w', str(to), str(ROOT))
    lane.pip('download', '--no-deps', '-d', str(to), *need)
    return next(to.glob('cxr_llava-*.whl')), {norm(o.split('==')[0]) for o in need}

def would_add(lane, *what):
    "Name -> version of what `pip install` would put into the lane, by a dry run"
    with tempfile.TemporaryDirectory() as d:
        lane.pip('install', '--dry-run', '--ignore-requires-python', '--report', f'{d}/report.json', *map(str, what))
        return {norm(o['metadata']['name']): o['metadata']['version'] for o in json.loads(Path(d, 'report.json').read_text())['install']}

def moves_nothing(lane, wheel, need):
    "How many of the image's packages an installation would move, and how many it would add that it should not"
    plan, have, allowed = would_add(lane, wheel), freeze(lane), need | would_add(lane, *MAY_ADD).keys() | {'cxr-llava'}
    moved, extra = {k: f'{have[k]} -> {v}' for k,v in plan.items() if k in have}, sorted(plan.keys() - allowed)
    print('pip install --dry-run would add: ' + ', '.join(f'{k} {v}' for k,v in sorted(plan.items())))
    print(f'pip install --dry-run would move: {moved or "nothing"}' + (f'; should not add: {", ".join(extra)}' if extra else ''), flush=True)
    return len(moved) + len(extra)

def install_as_kaggle_does(lane, folder):
    "The install cell, in a play Kaggle with the wheels attached and no index to ask"
    with tempfile.TemporaryDirectory() as d:
        shutil.copytree(folder, Path(d)/'input/datasets/OWNER/cxr-llava-wheels')
        cells = json.loads((ROOT/'nbs/00_data.ipynb').read_text('utf-8'))['cells']
        cell = next(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
        env = os.environ | dict(CXR_KAGGLE_ROOT=d, KAGGLE_KERNEL_RUN_TYPE='Batch', PIP_INDEX_URL='http://127.0.0.1:9/', PIP_CONFIG_FILE=os.devnull)
        lane.run('-c', cell, cwd=d, env=env)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('lane', choices=['kaggle', 'newest', 'oldest'])
    p.add_argument('--venv', type=Path, help='where to make the environment; a temporary folder when not given')
    p.add_argument('--full', action='store_true', help='also the long tests: kills, full disks, every page of the rehearsal')
    args, t = p.parse_args(), time.time()
    tmp = Path(tempfile.mkdtemp(prefix='cxr-lane-'))
    lane = Lane(args.venv or tmp/'venv')
    lines, torch = pins(args.lane)
    lane.pip('install', *TOOLS)
    install_torch(lane, torch)
    lane.pip('install', *lines)
    have = freeze(lane)
    print(f'{args.lane}: Python {sys.version.split()[0]}, ' + ', '.join(f'{k} {have[k]}' for k in ('torch', 'transformers', 'peft', 'accelerate', 'numpy', 'pandas', 'fastcore', 'ipython')))
    wheel, need = make_wheels(lane, tmp/'wheels')
    bad = moves_nothing(lane, wheel, need)
    install_as_kaggle_does(lane, tmp/'wheels')
    after = freeze(lane)
    moved = {k for k,v in have.items() if after.get(k) != v}
    print(f'the install cell moved: {", ".join(sorted(moved)) or "nothing"}; ready after {time.time() - t:.0f} s', flush=True)
    if args.full: lane.pip('install', *MAY_ADD) # one chapter shows it
    tests = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-n', '2', *TESTS, *([] if args.full else ['-k', SHORT])]
    pages = ['tools/runall.py', *([] if args.full else ['40_demo', '--layout', 'new'])]
    steps = [('tests', tests), ('rehearsal', pages)]
    failed = [name for name,cmd in steps if lane.run(*cmd, check=False, cwd=ROOT).returncode]
    if bad or moved: failed.insert(0, 'versions')
    print(f'{3 - len(failed)} passed, {len(failed)} failed in {time.time() - t:.0f} s (lane {args.lane}: versions, tests, rehearsal)' + (f': {", ".join(failed)}' if failed else ''))
    sys.exit(bool(failed))

if __name__ == '__main__': main()
