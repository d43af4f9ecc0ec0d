"Full disks, killed processes and read-only folders: one sentence, and nothing lost"
import json, os, resource, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest
from cxr_llava.core.files import atomic_path, CXRError, read_json, write_atomic, write_json

def child(code, **kw): return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

def test_full_disk_keeps_the_old_file(tmp_path):
    "A file size limit stands for the full disk: writing more fails in the same place"
    p = write_json(tmp_path/'a.json', {'old': True})
    code = f'''
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
from cxr_llava.core.config import Config, run_cli
from cxr_llava.core.files import write_json
run_cli(Config, lambda cfg: write_json({str(p)!r}, list(range(100000))), [])
'''
    r = child(code)
    out, err = r.communicate(timeout=60)
    assert r.returncode == 2
    assert err.startswith('error: No space left to write') and err.count('\n') == 1
    assert read_json(p) == {'old': True}
    assert [o.name for o in tmp_path.iterdir()] == ['a.json']

@pytest.mark.skipif(os.geteuid() != 0, reason='needs root to mount')
def test_really_full_disk(tmp_path):
    "A small file system, truly full"
    d = tmp_path/'disk'
    d.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(d)], capture_output=True).returncode: pytest.skip('cannot mount here')
    try:
        p = write_atomic(d/'a.txt', 'old')
        with pytest.raises(CXRError, match='No space left'): write_atomic(p, 'x'*200_000)
        assert p.read_text() == 'old' and [o.name for o in d.iterdir()] == ['a.txt']
    finally: subprocess.run(['umount', str(d)], check=True)

def test_library_that_reports_a_full_disk_in_words(tmp_path):
    "safetensors and others raise errors of their own"
    with pytest.raises(CXRError, match='No space left'):
        with atomic_path(tmp_path/'w.safetensors'): raise RuntimeError('I/O error: No space left on device (os error 28)')

def test_killed_while_writing(tmp_path):
    "Whatever the moment, one whole version is left"
    p = tmp_path/'kill.json'
    code = f'import itertools\nfrom cxr_llava.core.files import write_json\nfor i in itertools.count(): write_json({str(p)!r}, dict(i=i, rows=[i]*20000))'
    for i in range(5):
        r = child(code)
        t = time.time()
        while not p.exists() and r.poll() is None and time.time() - t < 30: time.sleep(.01)
        time.sleep(.2 + .05*i)
        r.send_signal(signal.SIGKILL)
        r.communicate()
        d = json.loads(p.read_text())
        assert set(d['rows']) == {d['i']}

def test_killed_while_replacing_a_folder(tmp_path):
    "A folder is the old or the new one, or for an instant aside under a hidden name; never half"
    p = tmp_path/'adapter'
    code = f'''
import itertools
from cxr_llava.core.files import atomic_path
for i in itertools.count():
    with atomic_path({str(p)!r}) as d:
        d.mkdir()
        for n in 'abc': (d/n).write_text(str(i))
'''
    for i in range(5):
        r = child(code)
        t = time.time()
        while not p.exists() and r.poll() is None and time.time() - t < 30: time.sleep(.01)
        time.sleep(.2 + .05*i)
        r.send_signal(signal.SIGKILL)
        r.communicate()
        if p.exists(): assert len({o.read_text() for o in p.iterdir()}) == 1 and len(list(p.iterdir())) == 3

def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(CXRError, match='Cannot write'): write_atomic(tmp_path/'file/x.json', '')
    with pytest.raises(CXRError, match='Cannot write'): write_atomic('/proc/x.json', '')

def test_data_stage_on_a_full_disk(tmp_path):
    "No file may grow beyond 20 kB: the manifest cannot be written, nothing half-written is left, and the same command later succeeds"
    from cxr_llava.xray.phantom import make_phantom
    src = make_phantom(tmp_path/'source', n=40, size=64, workers=1)
    args = f"['--source', 'openi_csv', '--path', {str(src)!r}, '--size', '64', '--workers', '1', '--run', {str(tmp_path/'run')!r}]"
    limit = 'import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (15000, 15000))\n'
    r = child(f'{limit}from cxr_llava.data import main\nmain({args})')
    out, err = r.communicate(timeout=300)
    assert r.returncode == 2 and 'No space left' in err and err.count('\n') == 1, err
    assert not (tmp_path/'run/studies.parquet').exists() and not [p for p in (tmp_path/'run').rglob('.*.tmp-*')]
    r = child(f'from cxr_llava.data import main\nmain({args})')
    out, err = r.communicate(timeout=300)
    assert r.returncode == 0 and (tmp_path/'run/studies.parquet').is_file() and '40 X-rays were prepared before' in out

def test_data_stage_in_a_folder_that_cannot_be_written():
    r = child("from cxr_llava.data import main\nmain(['--source', 'phantom', '--n', '3', '--size', '64', '--run', '/proc/run'])")
    out, err = r.communicate(timeout=300)
    assert r.returncode == 2 and 'Cannot write' in err and 'Traceback' not in err, err

# Folders of models and adapters that are damaged: `load_model` says so in one sentence that names the place

def write(file, data): return lambda d: (d/file).write_bytes(data)
def gone(file): return lambda d: (d/file).unlink()
def change(file, **kw): return lambda d: (d/file).write_text(json.dumps(read_json(d/file) | kw)) # `write_json` refuses NaN

def refused(folder, **kw):
    from cxr_llava.vlm.load import load_model
    with pytest.raises(CXRError) as e: load_model(**kw)
    assert '\n' not in str(e.value) and str(folder) in str(e.value)
    return str(e.value)

CFG, OWN, DEEP = 'adapter_config.json', 'cxr_llava.json', b'['*100_000
DAMAGED_ADAPTERS = {f'{f}={data[:4]}': (write(f, data), says) for f in (CFG, OWN)
    for data,says in ((b'[]', 'no JSON object'), (b'5', 'no JSON object'), (b'null', 'no JSON object'), (b'"x"', 'no JSON object'), (DEEP, 'not valid JSON'), (b'', 'not valid JSON'))}
DAMAGED_ADAPTERS |= {f'{k}={v!r}': (change(OWN, **{k: v}), f'as {k}') for k,v in (('max_new_tokens', 'abc'), ('max_new_tokens', [1]), ('max_new_tokens', float('inf')),
    ('max_new_tokens', -5), ('max_new_tokens', True), ('base', 5))}
DAMAGED_ADAPTERS |= {f'{k}={v!r}': (change(CFG, **{k: v}), f'as {k}') for k in ('lora_alpha', 'r') for v in (float('nan'), float('inf'), 0, -5, 'abc')}
DAMAGED_ADAPTERS |= {'auto_mapping=5': (change(CFG, auto_mapping=5), 'code of its own'), 'auto_mapping=[1]': (change(CFG, auto_mapping=[1]), 'code of its own'),
    'alora': (change(CFG, alora_invocation_tokens=5), 'does not fit'), 'alpha_pattern': (change(CFG, alpha_pattern={'q_proj': float('nan')}), 'computes NaN')}

@pytest.mark.parametrize('name', DAMAGED_ADAPTERS)
def test_damaged_adapter(name, tmp_path):
    from cxr_llava.vlm.bases import tiny_adapter
    spoil, says = DAMAGED_ADAPTERS[name]
    d = shutil.copytree(tiny_adapter(), tmp_path/'adapter')
    spoil(d)
    assert says in refused(d, lora_repo=d)

TOK, PROC = 'tokenizer.json', 'processor_config.json'
DAMAGED_BASES = {f'{f} gone': (gone(f), f'lacks {f}') for f in (TOK, PROC)}
DAMAGED_BASES |= {f'{f}={data[:4]}': (write(f, data), f) for f in (TOK, PROC, 'tokenizer_config.json', 'config.json', 'generation_config.json')
    for data in (b'', b'[]', b'null', b'{"a":', b'\xff\x00', DEEP)}
DAMAGED_BASES |= {'tokenizer={}': (write(TOK, b'{}'), 'cannot be loaded'), 'processor={}': (write(PROC, b'{}'), 'cannot be loaded'),
    'template': (write('chat_template.jinja', b'\xff\x00'), 'cannot be loaded'), 'no end': (gone('tokenizer_config.json'), 'what its eos_token is'),
    'other tokens': (change('tokenizer_config.json', eos_token='abc'), 'special tokens'), 'patches': (change(PROC, patch_size='abc'), 'take in an X-ray'),
    'layer': (change('config.json', vision_feature_layer=99), 'take in an X-ray'), 'image token': (change('config.json', image_token_index=99999), 'take in an X-ray')}

@pytest.mark.parametrize('name', DAMAGED_BASES)
def test_damaged_base(name, tmp_path):
    "Found when it is loaded, not when a report is asked for"
    from cxr_llava.vlm.bases import tiny_dir
    spoil, says = DAMAGED_BASES[name]
    d = shutil.copytree(tiny_dir(), tmp_path/'base', ignore=shutil.ignore_patterns('adapter'))
    spoil(d)
    assert says in refused(d, base=str(d))

@pytest.mark.parametrize('kw', [dict(device=None), dict(precision=None), dict(lora_repo=''), dict(base='')], ids=str)
def test_nothing_is_the_default(kw):
    from cxr_llava.vlm.load import load_model
    assert load_model(**({'base': 'tiny'} | kw)).info['base'] == 'tiny'

@pytest.mark.parametrize('kw', [{k: v} for k in ('lora_repo', 'base') for v in ('a'*5000, 'o/' + 'a'*5000)] + [dict(lora_repo=5), dict(base=5), dict(device=5), dict(precision=5), dict(lora_repo='x/y', revision=5)],
    ids=lambda kw: str(kw)[:24])
def test_arguments_that_mean_nothing(kw):
    assert len(refused('', **kw)) < 500

@pytest.mark.parametrize('code', ['ENOLCK', 'EOPNOTSUPP', 'ENOSYS'])
@pytest.mark.filterwarnings('ignore:flock')
def test_a_disk_without_locks(tmp_path, monkeypatch, code):
    "Some network folders cannot lock: work goes on there, twice in a row too"
    import errno
    fcntl = pytest.importorskip('fcntl')
    from cxr_llava.core.processes import only_one
    def flock(*_): raise OSError(getattr(errno, code), code)
    monkeypatch.setattr(fcntl, 'flock', flock)
    for _ in range(2):
        with only_one(tmp_path, patience=0): pass
