"""The test command: cells of every notebook with nbdev_test, then tests/ with pytest. `python tools/test.py [NAME...]`"""
import argparse, os, re, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORY = ['00_data', '10_prompts', '20_finetune', '30_eval', '40_demo', '50_run', 'index'] # hand files on: one after another

def environment(tmp):
    "Small sizes, one thread each, no network, nothing outside `tmp`"
    env = {k: v for k,v in os.environ.items() if not k.startswith(('CXR_', 'KAGGLE_'))}
    return env | dict(CXR_SMOKE='1', CXR_RUN=str(tmp/'run'), OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false',
        HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', HF_HOME=str(tmp/'hf'), MPLBACKEND='agg', CUDA_VISIBLE_DEVICES='', PYTHONWARNINGS='ignore')

def test_notebook(path, env, timeout):
    "Name, seconds, and the complaint if any"
    cmd = [sys.executable, '-c', f'from nbdev.test import nbdev_test; nbdev_test({str(path)!r}, n_workers=0)']
    t = time.time()
    try: r = subprocess.run(cmd, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired: return path.stem, time.time() - t, f'not finished after {timeout} s'
    return path.stem, time.time() - t, '' if r.returncode == 0 else (r.stdout + r.stderr).strip() or f'exit code {r.returncode}'

def tell(res):
    name, secs, bad = res
    print(f'{"FAIL" if bad else "ok  "} {name:18} {secs:6.1f} s', flush=True)
    if bad: print('\n'.join('     ' + o for o in bad.splitlines()[-40:]), flush=True)
    return res

def notebooks(names, env, tmp, timeout):
    "Test the story in its order in one thread, and the others in another"
    found = [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if not names or {p.stem, p.parent.name} & set(names)]
    story = sorted((p for p in found if p.stem in STORY), key=lambda p: STORY.index(p.stem))
    def run(p, env): return tell(test_notebook(p, env, timeout))
    def alone(p): return run(p, env | {'CXR_RUN': str(tmp/f'run_{p.stem}')})
    with ThreadPoolExecutor(2) as ex:
        first = ex.submit(lambda: [run(p, env) for p in story])
        rest = [ex.submit(alone, p) for p in found if p not in story]
        return first.result() + [o.result() for o in rest]

def parallel():
    "Two files at a time where pytest-xdist is there"
    from importlib.util import find_spec
    return ['-n', '2', '--dist', 'loadfile'] if find_spec('xdist') else []

def pytest(env):
    "Exit code and counts of pytest on tests/"
    r = subprocess.Popen([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *parallel(), 'tests'], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    last = ''
    for line in r.stdout:
        print(line, end='', flush=True)
        last = line if re.search(r'\d+ (passed|failed|error)', line) else last
    count = {k: int(n) for n,k in re.findall(r'(\d+) (passed|failed|error|skipped)', last)}
    code = r.wait()
    return count.get('passed', 0), count.get('failed', 0) + count.get('error', 0) or int(code not in (0, 5)), count.get('skipped', 0)

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('names', nargs='*', help='notebooks or wings, such as 02_config or core; all, and tests/, when empty')
    p.add_argument('--timeout', type=int, default=900, help='seconds for one notebook')
    args, t = p.parse_args(), time.time()
    tmp = Path(tempfile.mkdtemp(prefix='cxr-test-'))
    try:
        env = environment(tmp)
        res = notebooks(args.names, env, tmp, args.timeout)
        bad = sum(bool(o[2]) for o in res)
        good, skipped = len(res) - bad, 0
        print(f'{good} notebooks passed, {bad} failed in {time.time() - t:.0f} s', flush=True)
        if not args.names:
            passed, failed, skipped = pytest(env | {'CXR_RUN': ''})
            good, bad = good + passed, bad + failed
    finally: shutil.rmtree(tmp, ignore_errors=True)
    print(f'{good} passed, {bad} failed' + (f', {skipped} skipped' if skipped else '') + f' in {time.time() - t:.0f} s')
    sys.exit(bad > 0 or good == 0)

if __name__ == '__main__': main()
