"""What continuous integration refuses: `python tools/check.py` in the repository. Works on a copy; changes nothing.

`--privacy` runs only what keeps patients, tokens and live widgets out: the pre-commit hook in tools/hooks.
"""
import argparse, ast, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path
import house

ROOT = Path(__file__).resolve().parents[1]
SKIP = {'.git', '.venv', '.venv-ci', 'runs', 'build', 'dist', '_docs', '_proc', '__pycache__', '.pytest_cache', '.ipynb_checkpoints'}
TOKENS = {'Hugging Face token': r'\bhf_[A-Za-z0-9]{30,}', 'GitHub token': r'\b(ghp|gho|ghs|github_pat)_[A-Za-z0-9_]{30,}',
    'Kaggle token': r'\bKGAT_[A-Za-z0-9]{20,}|"key"\s*:\s*"[0-9a-f]{32}"', 'OpenAI-like key': r'\bsk-[A-Za-z0-9]{32,}',
    'private key': r'-----BEGIN [A-Z ]*PRIVATE KEY-----', 'AWS key': r'\bAKIA[0-9A-Z]{16}\b'}
IDS = {'MIMIC patient id': r'(?<![0-9A-Za-z])p1\d{7}(?!\d)', 'MIMIC study id': r'(?<![0-9A-Za-z])s5\d{7}(?!\d)',
    'MIMIC image id': r'\b[0-9a-f]{8}(-[0-9a-f]{8}){4}\b', 'MIMIC path': r'\bfiles/p1\d/p1\d{7}|physionet\.org/files/mimic-cxr'}
DATA = {'.dcm', '.dicom', '.gz', '.tgz', '.zip', '.parquet', '.npy', '.npz', '.pkl', '.pt', '.bin', '.jpg', '.jpeg', '.tif', '.tiff'} # none of these is source
HERE = {'path of one machine': r'(?<![\w.])/(home|root|work|Users)/[\w.]+'}

def files(root):
    "Files git would commit; in a folder without git, all but build outputs"
    try:
        out = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=root, capture_output=True, check=True).stdout
        found = [root/o for o in out.decode().split('\0') if o]
    except (OSError, subprocess.CalledProcessError):
        found = [Path(d)/f for d,dirs,fs in os.walk(root) for f in fs if not dirs.__setitem__(slice(None), [o for o in dirs if o not in SKIP and not o.endswith('.egg-info')])]
    return sorted(o for o in found if o.is_file())

def text(p):
    try: return p.read_text('utf-8')
    except UnicodeDecodeError: return ''

def source(c): return ''.join(c['source'])

def notebooks(root): return {p: json.loads(p.read_text('utf-8')) for p in sorted((root/'nbs').rglob('*.ipynb'))}

def code_cells(root):
    for p,nb in notebooks(root).items():
        for i,c in enumerate(nb['cells']):
            if c['cell_type'] == 'code': yield p.name, i, source(c)

# Each check returns a list of complaints

def clean_and_exported(root):
    "nbdev_clean and nbdev_export leave no diff"
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d)/'repo'
        for f in files(root):
            (copy/f.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(f, copy/f.relative_to(root))
        before = {f: f.read_bytes() for f in files(copy)}
        bins = Path(sys.executable).parent
        for cmd in ('nbdev_clean', 'nbdev_export'):
            exe = bins/cmd if (bins/cmd).exists() else cmd
            r = subprocess.run([str(exe)], cwd=copy, capture_output=True, text=True, env=os.environ | {'PYTHONPATH': ''})
            if r.returncode: return [f'{cmd} failed: {(r.stderr or r.stdout).strip().splitlines()[-1]}']
        after = {f: f.read_bytes() for f in files(copy) if '.egg-info' not in str(f)}
    return [f'{f.relative_to(copy)} changes' for f in sorted(before.keys() | after.keys()) if before.get(f) != after.get(f)]

def readme_in_step(root):
    "README.md is as nbs/index.ipynb says"
    r = subprocess.run([sys.executable, str(ROOT/'tools/readme.py'), '--check', '--root', str(root)], capture_output=True, text=True)
    return [] if r.returncode == 0 else [(r.stderr or r.stdout).strip().splitlines()[-1]]

def no_nbdev(root):
    "No notebook imports nbdev"
    return [f'{n} cell {i}' for n,i,s in code_cells(root) if re.search(r'^\s*(import nbdev|from nbdev)', s, re.M)]

def no_widget_state(root):
    "No notebook carries widget state"
    res = [f'{p.name} (metadata)' for p,nb in notebooks(root).items() if 'widgets' in nb.get('metadata', {})]
    return res + [f'{p.name} cell {i}' for p,nb in notebooks(root).items() for i,c in enumerate(nb['cells'])
        for o in c.get('outputs', []) if any('widget-view' in k for k in o.get('data', {}))]

def no_bad_outputs(root):
    "No notebook carries an error, a warning or a progress bar"
    def bad(o): return o.get('output_type') == 'error' or o.get('name') == 'stderr' or '\r' in ''.join(o.get('text', []))
    return [f'{p.name} cell {i}' for p,nb in notebooks(root).items() for i,c in enumerate(nb['cells']) for o in c.get('outputs', []) if bad(o)]

def small_pictures(root):
    "No picture above 300 kB in a notebook's outputs"
    def size(v): return len(''.join(v))*3//4
    return [f'{p.name} cell {i}: {size(v)/1e3:.0f} kB' for p,nb in notebooks(root).items() for i,c in enumerate(nb['cells'])
        for o in c.get('outputs', []) for k,v in o.get('data', {}).items() if k.startswith('image/') and size(v) > 300_000]

def no_data(root):
    "No data file: X-rays, archives, pickled weights"
    return [str(f.relative_to(root)) for f in files(root) if f.suffix.lower() in DATA]

def small(root):
    "No notebook above 500 kB, no other file above 6 MB"
    def limit(f): return 500_000 if f.suffix == '.ipynb' else 6_300_000
    return [f'{f.relative_to(root)}: {f.stat().st_size/1e3:.0f} kB' for f in files(root) if f.stat().st_size > limit(f)]

def no_secrets(root):
    "No token, no MIMIC-like id, no path of one machine"
    pats = TOKENS | IDS | HERE
    mine = Path(__file__).name
    return [f'{f.relative_to(root)}: {k} ({m.group()[:12]}...)' for f in files(root) if f.name != mine and f.suffix not in ('.safetensors', '.png')
        for k,pat in pats.items() for m in [re.search(pat, re.sub(r'"image/png": "[^"]*"', '', text(f)))] if m]

def exported_cells(root):
    "Name of the notebook, number of the cell, source"
    return [(n, i, s) for n,i,s in code_cells(root) if house.is_exported(s)]

def short_cells(root):
    "No exported cell above 40 lines, none with a line above 160 characters, text in quotes included"
    long = [f'{n} cell {i}: {len(house.code_lines(s))} lines' for n,i,s in exported_cells(root) if len(house.code_lines(s)) > 40]
    return long + [f'{n} cell {i}: line of {len(l)}: {l.strip()[:50]}...' for n,i,s in exported_cells(root) for l in s.splitlines() if len(l) > 160]

def no_chained_ternaries(root):
    "No exported cell chains `a if b else c if d else e`"
    def chained(o): return isinstance(o, ast.IfExp) and (isinstance(o.body, ast.IfExp) or isinstance(o.orelse, ast.IfExp))
    return [f'{n} cell {i}' for n,i,s in exported_cells(root) if any(chained(o) for top in house.parsed(s) for o in ast.walk(top))]

def thin_stories(root):
    "No story page has more than 25 cells"
    stories = {p: nb for p,nb in notebooks(root).items() if p.parent.name == 'nbs' and p.stem != 'index'}
    return [f'{p.name}: {len(nb["cells"])} cells' for p,nb in stories.items() if len(nb['cells']) > 25]

def has_prose(root):
    "At least half as many markdown cells as exported cells, and a title with a subtitle first"
    res = []
    for p,nb in notebooks(root).items():
        n = sum(c['cell_type'] == 'code' and bool(re.search(r'^#\|\s*exports?\b', source(c), re.M)) for c in nb['cells'])
        m = sum(c['cell_type'] == 'markdown' for c in nb['cells'])
        if m < .5*n: res.append(f'{p.name}: {m} markdown cells for {n} exported')
        if not re.match(r'# .+\n+> .+', source(nb['cells'][0])): res.append(f'{p.name}: no title with subtitle')
    return res

PRIVACY = [no_widget_state, no_bad_outputs, small_pictures, small, no_data, no_secrets]
READABLE = [short_cells, no_chained_ternaries, thin_stories]
CHECKS = [clean_and_exported, readme_in_step, no_nbdev, *PRIVACY, *READABLE, has_prose]

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--root', type=Path, default=ROOT, help='the repository')
    p.add_argument('--privacy', action='store_true', help='only the checks of the pre-commit hook')
    args = p.parse_args()
    root, failed = args.root.resolve(), 0
    checks = PRIVACY if args.privacy else CHECKS
    for f in checks:
        bad = f(root)
        failed += bool(bad)
        print(f'{"FAIL" if bad else "ok  "} {f.__doc__}' + ''.join(f'\n       {o}' for o in bad[:20]) + (f'\n       and {len(bad) - 20} more' if len(bad) > 20 else ''), flush=True)
    if not args.privacy: print('\n' + '\n'.join(house.table(house.measure(root))) + '\n')
    print(f'{len(checks) - failed} passed, {failed} failed (repository checks)')
    sys.exit(failed > 0)

if __name__ == '__main__': main()
