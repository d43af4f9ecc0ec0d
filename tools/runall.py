"""The Run All rehearsal: every notebook top to bottom in a plain kernel, as on Kaggle. `python tools/runall.py [NAME...]`

nbdev cannot be imported, `#|` lines are ignored, the network is refused and every attempt counted. Each story notebook starts in an
environment without this package, and its install cell puts it there from an attached wheels data set. Notebooks work in a play
/kaggle; what one leaves is attached read-only to the next ones, once per mount layout (side by side; one as a batch run, one interactive).
`--save` runs on the real default sizes and writes the cleaned outputs back into nbs/.
"""
import argparse, json, os, queue, re, shutil, stat, subprocess, sys, tempfile, time, venv, warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

warnings.filterwarnings('ignore')
os.environ['PYDEVD_DISABLE_FILE_VALIDATION'] = '1'
ROOT = Path(__file__).resolve().parents[1]
STORY = ['00_data', '10_prompts', '20_finetune', '30_eval', '40_demo']
INSTALLS = STORY + ['50_run'] # these have an install cell
LAYOUTS = {'new': 'notebooks/OWNER/{slug}', 'old': '{slug}'}
RUN_TYPES = {'new': 'Batch', 'old': 'Interactive'}
WHEELS = {'new': 'datasets/OWNER/cxr-llava-wheels', 'old': 'cxr-llava-wheels'}
PROMISED = {'00_data': ['studies.parquet', 'splits.json', 'audit.json', 'rejects.jsonl'], '10_prompts': ['train.json', 'val.json', 'test.json'],
    '20_finetune': ['adapter/adapter_model.safetensors', 'adapter/adapter_config.json', 'train_log.jsonl', 'loss.png'],
    '30_eval': ['metrics.json', 'report.html', 'predictions/tuned.jsonl'], '50_run': ['summary.html', 'summary.json']}
MOST = 20e9 # bytes Kaggle keeps
SECRETS = ['absent', 'raises', 'answers'] # what `kaggle_secrets` does, in turn
DUMMY = 'hf_' + 'rehearsal'*3 # its answer; may be found nowhere

GUARD = '''
import os, socket, sys
class _NoNbdev:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'nbdev': raise ModuleNotFoundError('No module named nbdev (rehearsal: Kaggle kernels do not need it)', name=name)
sys.meta_path.insert(0, _NoNbdev())
def _note(what):
    with open(os.environ['CXR_NET_LOG'], 'a') as f: f.write(f'{what}\\n')
    raise OSError(101, f'network refused in the rehearsal: {what}')
def _local(host): return host in (None, '', 'localhost', '::1', '0.0.0.0', '::', socket.gethostname()) or str(host).startswith('127.')
_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
def _ok(s, a): return s.family not in (socket.AF_INET, socket.AF_INET6) or _local(a[0])
def connect(s, a): return _connect(s, a) if _ok(s, a) else _note(f'connect {a}')
def connect_ex(s, a): return _connect_ex(s, a) if _ok(s, a) else _note(f'connect {a}')
def getaddrinfo(host, *a, **k):
    h = host.decode() if isinstance(host, bytes) else host
    return _getaddrinfo(host, *a, **k) if _local(h) else _note(f'look up {h}')
socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
'''

SECRETS_STUB = f'''
import os
if os.environ['CXR_SECRETS'] == 'absent': raise ModuleNotFoundError("No module named 'kaggle_secrets'", name='kaggle_secrets')
class BackendError(Exception): pass
class UserSecretsClient:
    def get_secret(self, label):
        if os.environ['CXR_SECRETS'] == 'raises': raise BackendError('No user secrets exist for kernel id 1 and label ' + label)
        return {DUMMY!r}
'''

TRIED = [] # every network attempt

class Failed(Exception): "A rehearsal's complaint"

def need(ok, msg):
    if not ok: raise Failed(msg)

# The play Kaggle

def environment(top, smoke, run_type='Batch'):
    "A Kaggle kernel's environment in `top`"
    env = {k: v for k,v in os.environ.items() if not k.startswith(('CXR_', 'KAGGLE_', 'HF_', 'PIP_', 'JUPYTER_', 'PYTHON'))}
    env |= dict(CXR_KAGGLE_ROOT=str(top/'kaggle'), KAGGLE_KERNEL_RUN_TYPE=run_type, HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', CXR_SECRETS='absent',
        HF_HOME=str(top/'hf'), TMPDIR=str(top/'tmp'), HOME=str(top/'home'), PYTHONPATH=str(top/'guard'), CXR_NET_LOG=str(top/'network.txt'),
        OMP_NUM_THREADS=str(max(1, (os.cpu_count() or 2)//(2 if smoke else 1))), TOKENIZERS_PARALLELISM='false', PYTHONDONTWRITEBYTECODE='1',
        IPYTHONDIR=str(top/'ipython'), JUPYTER_RUNTIME_DIR=str(top/'jupyter'), PIP_CONFIG_FILE=os.devnull, PIP_DISABLE_PIP_VERSION_CHECK='1')
    return env | ({'CXR_SMOKE': '1'} if smoke else {})

def make_kaggle(top, wheel, layout):
    "An empty play Kaggle with its guard, its image and the wheels data set"
    for o in ('kaggle/input', 'kaggle/working', 'kaggle/temp', 'hf', 'tmp', 'home', 'guard', 'ipython', 'jupyter'): (top/o).mkdir(parents=True, exist_ok=True)
    (top/'guard/sitecustomize.py').write_text(GUARD)
    (top/'guard/kaggle_secrets.py').write_text(SECRETS_STUB)
    (top/'network.txt').write_text('')
    to = top/'kaggle/input'/WHEELS[layout]
    to.mkdir(parents=True)
    shutil.copy2(wheel, to)
    make_image(top/'image/site-packages')   # dill tells a library by such a folder

def make_wheel(to):
    "This package as a wheel, built without network"
    with tempfile.TemporaryDirectory() as d:
        for o in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'): shutil.copy2(ROOT/o, d)
        shutil.copytree(ROOT/'cxr_llava', Path(d)/'cxr_llava', ignore=shutil.ignore_patterns('__pycache__'))
        r = subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(to), d], capture_output=True, text=True)
    if r.returncode: sys.exit(f'The wheel cannot be built: {r.stderr.strip()[-1500:]}')
    return next(to.glob('cxr_llava-*.whl'))

def make_image(image):
    "Everything installed here but this package, as links: what Kaggle's image is to the notebooks"
    image.mkdir(parents=True)
    for o in [o for site in sys.path if site.endswith('-packages') and Path(site).is_dir() for o in Path(site).iterdir()]:
        ours = re.match(r'cxr_llava|__editable__.*cxr_llava|.*\.(pth|egg-link)$', o.name)
        if not ours and not (image/o.name).exists(): (image/o.name).symlink_to(o)

def fresh(top):
    "A new environment with the image in it, and without this package; its Python"
    shutil.rmtree(top/'venv', ignore_errors=True)
    venv.EnvBuilder(symlinks=True).create(top/'venv')
    site = next((top/'venv/lib').glob('python*/site-packages'))
    (site/'image.pth').write_text(f'{top/"image/site-packages"}\n')
    return top/'venv/bin/python'

def make_kernels(top, layouts):
    "A Jupyter kernel for each play Kaggle"
    for l in layouts:
        d = top/f'kernels/play-{l}'
        d.mkdir(parents=True)
        argv = [str(top/l/'venv/bin/python'), '-m', 'ipykernel_launcher', '-f', '{connection_file}', '--log-level=40']
        (d/'kernel.json').write_text(json.dumps(dict(argv=argv, display_name='python3', language='python')))
    os.environ['JUPYTER_PATH'] = str(top)

def check_guard(env, python):
    "The guard must bite, or its silence says nothing"
    def run(code): return subprocess.run([str(python), '-c', code], env=env, cwd=env['HOME'], capture_output=True, text=True)
    need('No module named' in run('import cxr_llava').stderr, 'the package is there before it is installed')
    need('rehearsal' in run('import nbdev').stderr, 'the guard lets nbdev through')
    r = run('import urllib.request as u; u.urlopen("http://example.org")')
    need(r.returncode and Path(env['CXR_NET_LOG']).read_text().count('\n') == 1, 'the guard lets the network through')
    Path(env['CXR_NET_LOG']).write_text('')

def install(top, env):
    "Run the install cell as a script, for pages that have none"
    cells = json.loads((ROOT/'nbs/00_data.ipynb').read_text('utf-8'))['cells']
    cell = next(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
    r = subprocess.run([str(top/'venv/bin/python'), '-c', cell], env=env, cwd=top/'kaggle/working', capture_output=True, text=True)
    need(r.returncode == 0, f'the install cell failed: {r.stderr[-500:]}')

# One notebook

def listing(d): return {str(p.relative_to(d)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(d.rglob('*')) if p.is_file()}

def execute(path, top, env, timeout, kernel):
    "The notebook, executed in the working folder"
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.read(path, 4)
    client = NotebookClient(nb, timeout=timeout, kernel_name=kernel, resources={'metadata': {'path': str(top/'kaggle/working')}})
    try: client.execute(env=env)
    except Exception as e: raise Failed(re.sub(r'\x1b\[[0-9;]*m', '', str(e)).strip()[-3000:]) from None
    return nb

def no_absolute_paths(work, top):
    "No JSON, JSONL, YAML or manifest may hold a path that means nothing elsewhere"
    pat = re.compile(re.escape(str(top)) + '|' + re.escape(str(ROOT)) + r'|"/(kaggle|tmp|home|root|content)/')
    for p in sorted(work.rglob('*')):
        if p.suffix in ('.json', '.jsonl', '.yaml', '.yml', '.html', '.md', '.csv') and 'checkpoints' not in p.parts:
            m = pat.search(p.read_text('utf-8', errors='replace'))
            need(not m, f'{p.relative_to(work)} holds an absolute path: {m and m.group()}')
        if p.suffix == '.parquet':
            import pandas as pd
            text = pd.read_parquet(p).astype(str).to_csv()
            need(str(top) not in text and '/kaggle/' not in text, f'{p.relative_to(work)} holds an absolute path')

def attach(work, name, top, layout):
    "What a notebook left becomes read-only input of the next"
    slug = 'cxr-llava-' + name.replace('_', '-')
    to = top/'kaggle/input'/LAYOUTS[layout].format(slug=slug)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(work, to, ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    for p in to.rglob('*'): p.chmod(p.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))

def no_secret(nb, work):
    "The dummy token may not be in an output or a file"
    need(DUMMY not in json.dumps([c.get('outputs') for c in nb.cells]), 'a secret was printed')
    for p in work.rglob('*'):
        if p.is_file() and p.stat().st_size < 50e6: need(DUMMY.encode() not in p.read_bytes(), f'{p.relative_to(work)} holds a secret')

def rehearse(path, top, layout, env, timeout):
    "Run one notebook in a fresh working folder and check what it left"
    kaggle, name = top/'kaggle', path.stem
    shutil.rmtree(kaggle/'working', ignore_errors=True)
    (kaggle/'working').mkdir()
    if name in INSTALLS: fresh(top)
    elif not list((top/'venv/lib').glob('python*/site-packages/cxr_llava')): install(top, env)
    before = listing(kaggle/'input')
    nb = execute(path, top, env, timeout, f'play-{layout}')
    need(listing(kaggle/'input') == before, 'something was written into the input folder')
    net = Path(env['CXR_NET_LOG']).read_text().strip()
    Path(env['CXR_NET_LOG']).write_text('')
    TRIED.extend(net.splitlines())
    need(not net, f'the network was tried: {net[:300]}')
    errors = [o for c in nb.cells for o in c.get('outputs', []) if o.output_type == 'error']
    need(not errors, f'{len(errors)} error outputs')
    missing = [o for o in PROMISED.get(name, []) if not (kaggle/'working'/o).exists()]
    need(not missing, f'promised but not written: {", ".join(missing)}')
    no_absolute_paths(kaggle/'working', top)
    no_secret(nb, kaggle/'working')
    size = sum(o[0] for o in listing(kaggle/'working').values())
    need(size < MOST, f'{size/1e9:.1f} GB were written, more than Kaggle keeps')
    left = list((kaggle/'working').rglob('.*.tmp-*'))
    need(not left, f'temporary files left behind: {left[:3]}')
    return nb

def clean_outputs(nb, top):
    "Outputs fit to be read: no warnings, bars, widgets, times, or paths of this machine"
    nb.metadata.pop('widgets', None)
    def fix(s):
        s = s.replace(str(top/'kaggle'), '/kaggle').replace(str(top/'tmp'), '/tmp').replace(str(ROOT) + '/', '').replace(str(top), '')
        return re.sub(r'/tmp/(tmp|cxr)[\w-]+', '/tmp/...', re.sub(r' at 0x[0-9a-f]{6,}', '', s))
    for c in nb.cells:
        c.metadata.pop('execution', None)
        if c.cell_type != 'code': continue
        c.outputs = [o for o in c.outputs if o.get('name') != 'stderr' and not any('widget' in k for k in o.get('data', {}))]
        for o in c.outputs:
            o.pop('transient', None)
            if 'text' in o: o.text = fix('\n'.join(l.split('\r')[-1] for l in o.text.split('\n')))
            for k,v in o.get('data', {}).items():
                if isinstance(v, str) and k.startswith('text/'): o.data[k] = fix(v)
    return nb

def save(nb, path, top):
    "Write the executed notebook back, cleaned"
    import nbformat
    kernel = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}
    old = nbformat.read(path, 4)
    nb = clean_outputs(nb, top)
    nb.metadata = old.metadata | {'kernelspec': kernel}
    size = len(nbformat.writes(nb))
    need(size < 500_000, f'{size/1e3:.0f} kB with outputs: make its pictures smaller')
    nbformat.write(nb, path)
    exe = Path(sys.executable).parent/'nbdev_clean'
    subprocess.run([str(exe if exe.exists() else 'nbdev_clean'), '--fname', str(path)], cwd=ROOT, check=True, capture_output=True)
    return size

# All of them

def plan(names, layouts, alone=False):
    "Notebooks of each layout, and those that may run in either"
    found = {p.stem: p for p in sorted((ROOT/'nbs').rglob('*.ipynb'))}
    story = [found[n] for n in STORY if n in found]
    rest = [p for n,p in found.items() if n not in STORY]
    last = max((story.index(found[n]) for n in names if n in STORY and n in found), default=-1)
    if names: story, rest = story if any(n not in STORY for n in names) else story[:last + 1], [p for p in rest if {p.stem, p.parent.name} & set(names)]
    if alone: story = []
    end = [p for p in rest if p.stem in ('50_run', 'index')] # the index shows what 50_run left
    return {l: story + (end if l == layouts[0] else []) for l in layouts}, [p for p in rest if p not in end]

def run_layout(layout, top, story, rest, args, wheel):
    "The story in one play Kaggle, then pages from the queue until it is empty; (passed, failed)"
    good = bad = 0
    make_kaggle(top, wheel, layout)
    env = environment(top, smoke=not (args.real or args.save), run_type=RUN_TYPES[layout])
    check_guard(env, fresh(top))
    def pages():
        yield from story
        while not rest.empty():
            try: yield rest.get_nowait()
            except queue.Empty: return
    for i,path in enumerate(pages()):
        t, note, name = time.time(), '', path.stem
        try:
            nb = rehearse(path, top, layout, env | {'CXR_SECRETS': SECRETS[i%3]}, args.timeout)
            need(time.time() - t < args.budget, f'it took more than {args.budget} s')
            if name in INSTALLS: attach(top/'kaggle/working', name, top, layout)
            if args.save and (not args.names or name in args.names): note = f', saved with {save(nb, path, top)/1e3:.0f} kB'
            good += 1
        except Failed as e:
            bad += 1
            note = '\n' + '\n'.join('     ' + o for o in str(e).splitlines())
        word = 'FAIL' if note.startswith('\n') else 'ok  '
        print(f'{word} {name:14} layout {layout}  {time.time() - t:6.1f} s{note}', flush=True)
    return good, bad

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('names', nargs='*', help='notebooks, or wings, such as 03_labels or report; the story before them always runs')
    p.add_argument('--layout', choices=LAYOUTS, help='one mount layout; both when not given')
    p.add_argument('--real', action='store_true', help='real default sizes, not the smoke ones')
    p.add_argument('--save', action='store_true', help='real default sizes, and write the cleaned outputs back into nbs/')
    p.add_argument('--alone', action='store_true', help='without the story before them, for pages that need none of it')
    p.add_argument('--keep', type=Path, help='keep the play Kaggle in this empty folder')
    p.add_argument('--timeout', type=int, default=1800, help='seconds for one cell')
    p.add_argument('--budget', type=int, default=3600, help='seconds for one notebook')
    args, t = p.parse_args(), time.time()
    layouts = [args.layout] if args.layout else ['new'] if args.save else list(LAYOUTS)
    top = (args.keep or Path(tempfile.mkdtemp(prefix='cxr-runall-'))).resolve()
    stories, pages = plan(args.names, layouts, args.alone)
    rest = queue.Queue()
    for o in pages: rest.put(o)
    wheel = make_wheel(top/'wheel')
    make_kernels(top, layouts)
    with ThreadPoolExecutor(len(layouts)) as ex: done = list(ex.map(lambda l: run_layout(l, top/l, stories[l], rest, args, wheel), layouts))
    good, bad = map(sum, zip(*done))
    if not args.keep:
        for o in top.rglob('*'):
            if o.is_dir() and not o.is_symlink(): o.chmod(0o755)
        shutil.rmtree(top, ignore_errors=True)
    print(f'{good} passed, {bad} failed in {time.time() - t:.0f} s (Run All in a plain kernel without nbdev; {len(TRIED)} network attempts)')
    sys.exit(bad > 0 or good == 0)

if __name__ == '__main__': main()
