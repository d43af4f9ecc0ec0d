"""The package as a stranger gets it: `python tools/package.py` builds sdist and wheel, checks them, and runs cxr_run from the wheel
in an empty environment, with few phantoms (`--full`: as many as by default). `--python python3.12` tries the parts without torch on
another Python too.
"""
import argparse, os, re, subprocess, sys, tarfile, tempfile, time, zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIGHT = ['fastcore', 'numpy', 'pandas', 'pyarrow', 'pillow', 'pydicom', 'pyyaml', 'tqdm', 'scikit-learn', 'matplotlib']
PROBE = '''
from cxr_llava import label_report, parse_sections, read_xray
from cxr_llava.xray.drawing import phantom_xray
import io
b = io.BytesIO(); phantom_xray(1, effusion='left').save(b, 'PNG')
assert read_xray(b.getvalue()).image.mode == 'L'
assert label_report('No pneumothorax. Small left pleural effusion.')['Pneumothorax'] == 0
assert parse_sections('FINDINGS: Clear.\\nIMPRESSION: Normal.').impression == 'Normal.'
print('reader, sections and labeller work')
'''

def sh(*cmd, **kw):
    r = subprocess.run([str(o) for o in cmd], capture_output=True, text=True, **kw)
    if r.returncode: sys.exit(f'{" ".join(map(str, cmd))} failed:\n{(r.stdout + r.stderr)[-3000:]}')
    return r.stdout + r.stderr

def build(tmp):
    "sdist and wheel of what git would commit"
    src = tmp/'src'
    files = sh('git', 'ls-files', '-co', '--exclude-standard', '-z', cwd=ROOT).split('\0')
    for f in files:
        if f and (ROOT/f).is_file():
            (src/f).parent.mkdir(parents=True, exist_ok=True)
            (src/f).write_bytes((ROOT/f).read_bytes())
    sh(sys.executable, '-m', 'build', '--outdir', tmp/'dist', src)
    return next((tmp/'dist').glob('*.whl')), next((tmp/'dist').glob('*.tar.gz'))

def contents(whl, sdist):
    "Complaints about what is in the files"
    names = zipfile.ZipFile(whl).namelist()
    bad = [f'{o.name}: {o.stat().st_size/1e6:.1f} MB' for o in (whl, sdist) if o.stat().st_size > 10e6]
    wanted = ['cxr_llava/__init__.py', 'cxr_llava/tiny_llava/model.safetensors', 'cxr_llava/tiny_llava/config.json']
    bad += [f'{o} is missing' for o in wanted if o not in names]
    bad += [f'{o} does not belong into the wheel' for o in names if not o.startswith(('cxr_llava/', 'cxr_llava-'))]
    missing = {p.name for p in (ROOT/'cxr_llava').glob('*.py')} - {Path(o).name for o in names if o.startswith('cxr_llava/') and o.count('/') == 1}
    with tarfile.open(sdist) as t: inside = t.getnames()
    return bad + [f'{o} is not in the wheel' for o in sorted(missing)] + [f'{o} is not in the sdist' for o in ('settings.ini', 'setup.py', 'LICENSE', 'README.md') if not any(n.endswith('/' + o) for n in inside)]

SMALL = '--n 60 --epochs 1 --no-probes --bootstrap 50'.split()

def environment(tmp, name, python):
    sh(python, '-m', 'venv', tmp/name)
    return tmp/name/'bin'

def clean_env(): return {k: v for k,v in os.environ.items() if not k.startswith(('CXR_', 'KAGGLE_', 'PYTHON'))} | dict(PIP_DISABLE_PIP_VERSION_CHECK='1')

def runs(whl, tmp, full):
    "cxr_run from the wheel, in an empty environment and an empty folder"
    bins, work, env = environment(tmp, 'venv', sys.executable), tmp/'work', clean_env()
    work.mkdir()
    import torch
    sh(bins/'pip', 'install', '-q', f'torch=={torch.__version__.split("+")[0]}', env=env)
    sh(bins/'pip', 'install', '-q', whl, env=env)
    sh(bins/'cxr_run', *([] if full else SMALL), cwd=work, env=env | dict(HF_HUB_OFFLINE='1'))
    made = [o for o in ('summary.html', 'report.html', 'adapter/adapter_model.safetensors') if not list(work.rglob(o))]
    if made: sys.exit(f'cxr_run from the wheel left no {", ".join(made)}')
    return 'cxr_run from the wheel: adapter, report.html and summary.html written'

def light(whl, tmp, python):
    "What needs no torch, on another Python"
    bins, env = environment(tmp, 'light' + re.sub(r'\W', '_', python), python), clean_env()
    sh(bins/'pip', 'install', '-q', *LIGHT, env=env)
    sh(bins/'pip', 'install', '-q', '--no-deps', whl, env=env)
    return f'{sh(bins/"python", "--version").strip()}: ' + sh(bins/'python', '-c', PROBE, cwd=tmp, env=env).strip()

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--python', action='append', default=[], help='another Python to try; may be given more than once')
    p.add_argument('--full', action='store_true', help='cxr_run as by default, which takes minutes more')
    args, t, done = p.parse_args(), time.time(), 0
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        whl, sdist = build(tmp)
        print(f'{whl.name} {whl.stat().st_size/1e6:.1f} MB, {sdist.name} {sdist.stat().st_size/1e6:.1f} MB', flush=True)
        bad = contents(whl, sdist)
        if bad: sys.exit('\n'.join(bad))
        print(sh(sys.executable, '-m', 'twine', 'check', '--strict', whl, sdist).strip(), flush=True)
        done += 3
        for o in args.python: print(light(whl, tmp, o), flush=True); done += 1
        print(runs(whl, tmp, args.full), flush=True)
        done += 1
    print(f'{done} passed, 0 failed (package, {time.time() - t:.0f} s)')

if __name__ == '__main__': main()
