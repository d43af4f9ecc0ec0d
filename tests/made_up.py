"Conversations about phantoms, the finetune command on them, and its sudden end"
import json, os, re, signal, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.core.files import write_json

SETTINGS = ['--base', 'tiny', '--device', 'cpu', '--epochs', '4', '--batch', '2', '--effective_batch', '4', '--evals', '0']

def conversations(d, n=16):
    "`n` phantoms with short reports of different lengths"
    d, recs = Path(d), []
    for i in range(n):
        side = ('left', 'right')[i % 2]
        phantom_xray(i, size=128, effusion=side).save(d/f'{i}.png')
        recs.append(dict(id=f's{i}', image=f'{i}.png', conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'},
            {'from': 'gpt', 'value': f'FINDINGS:\nThere is a {side} pleural effusion.{" The heart is normal."*(i % 4)}\n\nIMPRESSION:\nEffusion.'}]))
    return write_json(d/'train.json', recs)

def command(data, out, *more): return [sys.executable, '-u', '-m', 'cxr_llava.finetune', *SETTINGS, '--data', str(data), '--out', str(Path(out)/'adapter'), *more]

def env(**more): return {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **more}

def rows(out): return [json.loads(l) for l in (Path(out)/'train_log.jsonl').read_text().splitlines()]

def losses(out): return [(r['step'], r['loss']) for r in rows(out) if 'loss' in r]

def children(pid):
    "Processes below `pid`"
    below = {}
    for p in Path('/proc').glob('[0-9]*'):
        with suppress(OSError, IndexError): below.setdefault(int((p/'stat').read_text().rsplit(')', 1)[1].split()[1]), []).append(int(p.name))
    def walk(k): return [o for c in below.get(k, []) for o in (c, *walk(c))]
    return walk(pid)

def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError: return False

def killed(cmd, log, rng, at=1, patience=90):
    """Start a training and `kill -9` it, or a process below it, soon after it says step `at` or a later one; 0: while it starts.
    Whom it hit, or `None` when the training had ended. What is left must end by itself"""
    with open(log, 'w') as f: p = subprocess.Popen(cmd, env=env(), stdout=f, stderr=f)
    while p.poll() is None and max(map(int, re.findall(r' step (\d+)', Path(log).read_text())), default=0) < at: time.sleep(.02)
    time.sleep(rng.uniform(0, .3 if at else 5))
    below = children(p.pid)
    if p.poll() is not None: return None
    who = rng.choice([p.pid, *below])
    with suppress(ProcessLookupError): os.kill(who, signal.SIGKILL)
    p.wait(patience)
    end = time.time() + patience
    while any(map(alive, below)):
        assert time.time() < end, f'{below} outlived the command'
        time.sleep(.05)
    return 'command' if who == p.pid else f'process {below.index(who) + 1} of {len(below)} below it'
