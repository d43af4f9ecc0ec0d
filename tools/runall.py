"""The Run All rehearsal: every notebook top to bottom in a plain kernel, as on Kaggle. `python tools/runall.py [NAME...]`

nbdev cannot be imported, `#|` lines are ignored, the network is refused and every attempt counted. Each notebook works in
a play /kaggle; its working folder is attached read-only to the next ones, once per mount layout.
`--save` runs on the real default sizes and writes the cleaned outputs back into nbs/.
"""
import argparse, json, os, re, shutil, stat, subprocess, sys, tempfile, time, warnings
from pathlib import Path

warnings.filterwarnings('ignore')
os.environ['PYDEVD_DISABLE_FILE_VALIDATION'] = '1'
ROOT = Path(__file__).resolve().parents[1]
STORY = ['00_data', '10_prompts', '20_finetune', '30_eval', '40_demo']
LAYOUTS = {'new': 'notebooks/OWNER/{slug}', 'old': '{slug}'}
PROMISED = {'00_data': ['studies.parquet', 'splits.json', 'audit.json', 'rejects.jsonl'], '10_prompts': ['train.json', 'val.json', 'test.json'],
    '20_finetune': ['adapter/adapter_model.safetensors', 'adapter/adapter_config.json', 'train_log.jsonl', 'loss.png'],
    '30_eval': ['metrics.json', 'report.html', 'predictions/tuned.jsonl']}

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

TRIED = [] # every network attempt

class Failed(Exception): "A rehearsal's complaint"

def need(ok, msg):
    if not ok: raise Failed(msg)

def environment(top, smoke):
    "A Kaggle batch kernel's environment in `top`"
    env = {k: v for k,v in os.environ.items() if not k.startswith(('CXR_', 'KAGGLE_', 'HF_'))}
    env |= dict(CXR_KAGGLE_ROOT=str(top/'kaggle'), KAGGLE_KERNEL_RUN_TYPE='Batch', HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1',
        HF_HOME=str(top/'hf'), TMPDIR=str(top/'tmp'), HOME=str(top/'home'), PYTHONPATH=str(top/'guard'), CXR_NET_LOG=str(top/'network.txt'),
        OMP_NUM_THREADS=str(max(1, (os.cpu_count() or 2)//(2 if smoke else 1))), TOKENIZERS_PARALLELISM='false', PYTHONDONTWRITEBYTECODE='1',
        IPYTHONDIR=str(top/'ipython'), JUPYTER_RUNTIME_DIR=str(top/'jupyter'))
    return env | ({'CXR_SMOKE': '1'} if smoke else {})

def make_kaggle(top):
    "An empty play Kaggle with its guard"
    for o in ('kaggle/input', 'kaggle/working', 'kaggle/temp', 'hf', 'tmp', 'home', 'guard', 'ipython', 'jupyter'): (top/o).mkdir(parents=True, exist_ok=True)
    (top/'guard/sitecustomize.py').write_text(GUARD)
    (top/'network.txt').write_text('')

def check_guard(env):
    "The guard must bite, or its silence says nothing"
    r = subprocess.run([sys.executable, '-c', 'import nbdev'], env=env, capture_output=True, text=True)
    need(r.returncode and 'rehearsal' in r.stderr, 'the guard lets nbdev through')
    r = subprocess.run([sys.executable, '-c', 'import urllib.request as u; u.urlopen("http://example.org")'], env=env, capture_output=True, text=True)
    need(r.returncode and Path(env['CXR_NET_LOG']).read_text().count('\n') == 1, 'the guard lets the network through')
    Path(env['CXR_NET_LOG']).write_text('')

def listing(d): return {str(p.relative_to(d)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(d.rglob('*')) if p.is_file()}

def execute(path, top, env, timeout):
    "The notebook, executed in the working folder"
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.read(path, 4)
    work = top/'kaggle/working'
    client = NotebookClient(nb, timeout=timeout, kernel_name='python3', extra_arguments=['--log-level=40'], resources={'metadata': {'path': str(work)}})
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

def rehearse(path, top, layout, env, timeout):
    "Run one notebook in a fresh working folder and check what it left"
    kaggle, name = top/'kaggle', path.stem
    shutil.rmtree(kaggle/'working', ignore_errors=True)
    (kaggle/'working').mkdir()
    before = listing(kaggle/'input')
    nb = execute(path, top, env, timeout)
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

def plan(names, layouts):
    "(notebook, layout) in the order to run: the story first, the rest once"
    found = {p.stem: p for p in sorted((ROOT/'nbs').glob('*.ipynb'))}
    story = [found[n] for n in STORY if n in found]
    rest = [p for n,p in found.items() if n not in STORY]
    last = max((story.index(found[n]) for n in names if n in STORY and n in found), default=-1)
    if names: story, rest = story if any(n not in STORY for n in names) else story[:last + 1], [p for p in rest if p.stem in names]
    return {l: story + (rest if l == layouts[0] else []) for l in layouts}

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('names', nargs='*', help='notebooks, such as 31_labels; the story before them always runs')
    p.add_argument('--layout', choices=LAYOUTS, help='one mount layout; both when not given')
    p.add_argument('--real', action='store_true', help='real default sizes, not the smoke ones')
    p.add_argument('--save', action='store_true', help='real default sizes, and write the cleaned outputs back into nbs/')
    p.add_argument('--keep', type=Path, help='keep the play Kaggle in this empty folder')
    p.add_argument('--timeout', type=int, default=1800, help='seconds for one cell')
    args = p.parse_args()
    layouts = [args.layout] if args.layout else ['new'] if args.save else list(LAYOUTS)
    good = bad = 0
    for layout,paths in plan(args.names, layouts).items():
        top = (args.keep/layout if args.keep else Path(tempfile.mkdtemp(prefix='cxr-runall-'))).resolve()
        make_kaggle(top)
        env = environment(top, not (args.real or args.save))
        check_guard(env)
        for path in paths:
            t, note, name = time.time(), '', path.stem
            try:
                nb = rehearse(path, top, layout, env, args.timeout)
                if name in STORY + ['50_run']: attach(top/'kaggle/working', name, top, layout)
                if args.save and (not args.names or name in args.names): note = f', saved with {save(nb, path, top)/1e3:.0f} kB'
                good += 1
            except Failed as e:
                bad += 1
                note = '\n' + '\n'.join('     ' + o for o in str(e).splitlines())
            word = 'FAIL' if note.startswith('\n') else 'ok  '
            print(f'{word} {name:14} layout {layout}  {time.time() - t:6.1f} s{note}', flush=True)
        if not args.keep:
            for o in top.rglob('*'):
                if o.is_dir(): o.chmod(0o755)
            shutil.rmtree(top, ignore_errors=True)
    print(f'{good} passed, {bad} failed (Run All in a plain kernel without nbdev; {len(TRIED)} network attempts)')
    sys.exit(bad > 0 or good == 0)

if __name__ == '__main__': main()
