"Full disks, killed processes and read-only folders: one sentence, and nothing lost"
import json, os, resource, signal, subprocess, sys, time
from pathlib import Path
import pytest
from cxr_llava.stages import CXRError, atomic_path, read_json, write_atomic, write_json

def child(code, **kw): return subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)

def test_full_disk_keeps_the_old_file(tmp_path):
    "A file size limit stands for the full disk: writing more fails in the same place"
    p = write_json(tmp_path/'a.json', {'old': True})
    code = f'''
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
from cxr_llava.stages import Config, run_cli, write_json
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
    code = f'import itertools\nfrom cxr_llava.stages import write_json\nfor i in itertools.count(): write_json({str(p)!r}, dict(i=i, rows=[i]*20000))'
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
from cxr_llava.stages import atomic_path
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
    from cxr_llava.phantom import make_phantom
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
