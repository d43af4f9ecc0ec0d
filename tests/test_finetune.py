"Training that is killed, that shares its work, that meets a full disk"
import json, os, random, signal, subprocess, sys, time
from pathlib import Path
import pytest
from cxr_llava.phantom import phantom_xray
from cxr_llava.stages import read_json, write_json

SETTINGS = ['--base', 'tiny', '--device', 'cpu', '--epochs', '4', '--batch', '2', '--effective_batch', '4', '--dropout', '0.1', '--eval_rows', '0']

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Sixteen phantoms with short reports"
    d = tmp_path_factory.mktemp('conversations')
    recs = []
    for i in range(16):
        side = ('left', 'right')[i % 2]
        phantom_xray(i, size=128, effusion=side).save(d/f'{i}.png')
        recs.append(dict(id=f's{i}', image=f'{i}.png', conversations=[{'from': 'human', 'value': '<image>\nGenerate a chest X-ray report.'},
            {'from': 'gpt', 'value': f'FINDINGS:\nThere is a {side} pleural effusion.{" The heart is normal."*(i % 4)}\n\nIMPRESSION:\nEffusion.'}]))
    return write_json(d/'train.json', recs)

def command(data, out, *more): return [sys.executable, '-u', '-m', 'cxr_llava.finetune', *SETTINGS, '--data', str(data), '--out', str(out/'adapter'), *more]

def env(): return dict(os.environ, OMP_NUM_THREADS='1')

def losses(out): return [(r['step'], r['loss']) for r in map(json.loads, (out/'train_log.jsonl').read_text().splitlines()) if 'loss' in r]

@pytest.fixture(scope='module')
def reference(data, tmp_path_factory):
    "An uninterrupted run"
    out = tmp_path_factory.mktemp('reference')
    r = subprocess.run(command(data, out), env=env(), capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return out

def test_killed_and_resumed_equals_uninterrupted(data, reference, tmp_path):
    "kill -9 at random moments, dropout on: the adapter comes out with the same hash, the log with the same losses"
    log, rng = tmp_path/'out.txt', random.Random(0)
    for i in range(3):
        with open(log, 'w') as f: p = subprocess.Popen(command(data, tmp_path, '--save_minutes', '0.001'), env=env(), stdout=f, stderr=f)
        t = time.time()
        while p.poll() is None and 'checkpoint at' not in log.read_text() and time.time() - t < 200: time.sleep(.02)
        time.sleep(rng.uniform(0, .4))
        p.send_signal(signal.SIGKILL) if i < 2 else p.wait(300)
        p.wait()
    assert 'finished' in log.read_text(), log.read_text()
    assert read_json(tmp_path/'finetune.json')['adapter_hash'] == read_json(reference/'finetune.json')['adapter_hash']
    assert losses(tmp_path) == losses(reference)
    assert not list((tmp_path/'checkpoints').glob('.writing'))

def test_two_processes_take_the_same_steps(data, reference, tmp_path):
    "World size 2, asserted, and the losses of one process"
    plain = command(data, tmp_path, '--dropout', '0', '--processes', '1')
    assert subprocess.run(plain, env=env()).returncode == 0
    two = tmp_path/'two'
    r = subprocess.run(command(data, two, '--dropout', '0', '--processes', '2', '--hf_token', 'hf_secretsecretsecretsecret'), env=env(), capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    assert read_json(two/'finetune.json')['world_size'] == 2
    a, b = losses(tmp_path), losses(two)
    assert [s for s,_ in a] == [s for s,_ in b] == list(range(1, 17))
    assert max(abs(x - y) for (_,x),(_,y) in zip(a, b)) < 1e-3
    assert 'secretsecret' not in r.stdout + r.stderr
    for p in two.rglob('*'): assert not p.is_file() or b'secretsecret' not in p.read_bytes(), p

def test_full_disk_while_saving(data, tmp_path):
    "One sentence, exit code 2, and the run goes on from what was there"
    code = f'''
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
from cxr_llava.finetune import main
main({command(data, tmp_path, '--save_minutes', '0.001')[4:]!r})
'''
    r = subprocess.run([sys.executable, '-c', code], env=env(), capture_output=True, text=True)
    assert r.returncode == 2, r.stdout + r.stderr
    said = [l for l in r.stderr.splitlines() if l.startswith('error: ')]
    assert len(said) == 1 and 'No space left' in said[0] and 'Traceback' not in r.stderr, r.stderr
    assert not (tmp_path/'adapter').exists() and not list((tmp_path/'checkpoints').glob('checkpoint-*'))
    r = subprocess.run(command(data, tmp_path), env=env(), capture_output=True, text=True)
    assert r.returncode == 0 and (tmp_path/'adapter/adapter_model.safetensors').is_file()
