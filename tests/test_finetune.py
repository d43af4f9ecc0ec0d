"Training that is killed, shared, short of memory or disk: what the commands do"
import os, random, socket, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
import pytest
from cxr_llava.core.files import read_json
from made_up import SETTINGS, children, command, conversations, env, killed, losses, rows

TOKEN = 'hf_' + 'secret'*4

@pytest.fixture(scope='module')
def data(tmp_path_factory): return conversations(tmp_path_factory.mktemp('conversations'))

def done(cmd, **kw):
    r = subprocess.run(cmd, env=env(**kw), capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
    return r

def here(data, out, **kw):
    "The same training as that of the command, in this process"
    import torch
    from cxr_llava.finetune import finetune
    from cxr_llava.train.settings import FinetuneConfig
    torch.set_num_threads(1)
    finetune(FinetuneConfig.load(None, **{k[2:]: v for k,v in zip(SETTINGS[::2], SETTINGS[1::2])}, data=str(data), out=str(out/'adapter'), **kw))
    return out

def adapter_hash(out): return read_json(out/'finetune.json')['adapter_hash']

@pytest.fixture(scope='module')
def reference(data, tmp_path_factory):
    "An uninterrupted run with dropout"
    return here(data, tmp_path_factory.mktemp('reference'), dropout=.1)

@pytest.fixture(scope='module')
def two_nodes(data, tmp_path_factory):
    "Two computers, played on this one, in a folder both see; and what the processes' command lines said"
    out = tmp_path_factory.mktemp('nodes')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    def node(k):
        python, _, _, *rest = command(data, out, '--dropout', '0')
        where = f'--nnodes 2 --node_rank {k} --nproc_per_node 1 --master_addr 127.0.0.1 --master_port {port}'.split()
        return [python, '-u', '-m', 'torch.distributed.run', *where, '-m', *rest]
    ps = [subprocess.Popen(node(k), env=env(HF_TOKEN=TOKEN), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for k in (0, 1)]
    lines, end = set(), time.time() + 300
    try:
        while any(p.poll() is None for p in ps) and not any(p.poll() for p in ps):
            assert time.time() < end, 'two nodes are not done after five minutes'
            for q in [q for p in ps for q in (p.pid, *children(p.pid))]:
                with suppress(OSError): lines.add(Path(f'/proc/{q}/cmdline').read_bytes().replace(b'\0', b' ').decode())
            time.sleep(.2)
    finally:
        for p in ps: p.terminate() # when one has failed, the other would wait for it
    said = [p.communicate(timeout=60)[0] for p in ps]
    assert [p.returncode for p in ps] == [0, 0], said
    return out, said, lines

def test_killed_and_resumed_equals_uninterrupted(data, reference, tmp_path, capsys):
    "kill -9 at random moments, dropout on: the adapter comes out with the same hash, the log with the same losses"
    rng, cmd = random.Random(0), command(data, tmp_path, '--dropout', '0.1', '--save_minutes', '0.001')
    for at in (1, 6): assert killed(cmd, tmp_path/'out.txt', rng, at)
    r = done(cmd)
    assert 'resume: from' in r.stdout and 'finished' in r.stdout
    assert adapter_hash(tmp_path) == adapter_hash(reference) and losses(tmp_path) == losses(reference)
    assert not (tmp_path/'checkpoints/.writing').exists()
    before = (tmp_path/'adapter/adapter_model.safetensors').stat().st_mtime_ns
    here(data, tmp_path, dropout=.1)
    assert 'this run is finished' in capsys.readouterr().out
    assert (tmp_path/'adapter/adapter_model.safetensors').stat().st_mtime_ns == before

def test_two_nodes_take_the_same_steps_as_one_process(data, two_nodes, tmp_path):
    "World size 2, asserted, and the losses of one process"
    out, said, _ = two_nodes
    here(data, tmp_path, dropout=0., processes=1)
    assert read_json(out/'finetune.json')['world_size'] == 2 and read_json(tmp_path/'finetune.json')['world_size'] == 1
    a, b = losses(tmp_path), losses(out)
    assert [s for s,_ in a] == [s for s,_ in b] == list(range(1, 17))
    assert max(abs(x - y) for (_,x),(_,y) in zip(a, b)) < 1e-3
    rate = lambda o: [r['learning_rate'] for r in rows(o) if 'loss' in r]
    assert rate(tmp_path) == rate(out)
    assert 'finished' in said[0] and 'finished' not in said[1]

def test_the_token_is_nowhere(two_nodes):
    "Not in the log, a file, or the command line of any process"
    out, said, lines = two_nodes
    assert any('torch.distributed.run' in l for l in lines) and sum('--nnodes 2' in l for l in lines) >= 2
    for text in [*said, *lines]: assert 'secretsecret' not in text
    for p in out.rglob('*'): assert not p.is_file() or b'secretsecret' not in p.read_bytes(), p

def test_killed_in_two_processes(data, two_nodes, tmp_path):
    "Any of launcher, agent and workers is killed; nothing is left running; the end is the same"
    cmd, rng = command(data, tmp_path, '--dropout', '0', '--processes', '2', '--save_minutes', '0.001'), random.Random(3)
    assert killed(cmd, tmp_path/'out.txt', rng)
    r = done(cmd)
    assert 'resume: from' in r.stdout
    assert adapter_hash(tmp_path) == adapter_hash(two_nodes[0]) and losses(tmp_path) == losses(two_nodes[0])

def test_one_of_two_processes_runs_out_of_memory(data, two_nodes, tmp_path):
    "It leaves a note, all start again with a smaller micro-batch, and the steps stay what they were"
    (tmp_path/'site').mkdir()
    (tmp_path/'site/sitecustomize.py').write_text('''
import os
if os.environ.get('RANK') == '1':
    import torch, cxr_llava.train.batch as c
    calls, collate = [], c.Collator.__call__
    def __call__(self, rows):
        calls.append(1)
        if len(rows) > 1 and len(calls) > 12: raise torch.cuda.OutOfMemoryError('CUDA out of memory (made up)')
        return collate(self, rows)
    c.Collator.__call__ = __call__
''')
    cmd = command(data, tmp_path, '--dropout', '0', '--processes', '2', '--save_minutes', '0.001')
    r = done(cmd, PYTHONPATH=os.pathsep.join([str(tmp_path/'site'), str(Path(__file__).parents[1])]))
    assert 'memory ran out after step' in r.stdout and 'micro-batch 2 -> 1' in r.stdout and 'resume: from' in r.stdout
    s = read_json(tmp_path/'finetune.json')
    assert (s['micro'], s['world_size'], s['settings']['effective_batch'], s['finished']) == (1, 2, 4, True)
    assert not (tmp_path/'checkpoints/memory.json').exists()
    a, b = losses(tmp_path), losses(two_nodes[0])
    assert [s for s,_ in a] == [s for s,_ in b] and max(abs(x - y) for (_,x),(_,y) in zip(a, b)) < 1e-3

def test_full_disk_while_saving(data, tmp_path):
    "Training goes on without checkpoints; at the end one sentence, exit code 2, and the run goes on from what was there"
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
    assert 'training goes on' in r.stdout and [s for s,_ in losses(tmp_path)] == list(range(1, 17))
    assert not (tmp_path/'adapter').exists() and not list((tmp_path/'checkpoints').glob('checkpoint-*'))

def test_a_second_training_in_the_same_folder_is_refused(data, tmp_path):
    from cxr_llava.core.processes import only_one
    from cxr_llava.core.files import CXRError
    with only_one(tmp_path):
        with pytest.raises(CXRError, match='Another training'):
            with only_one(tmp_path, patience=0): pass
