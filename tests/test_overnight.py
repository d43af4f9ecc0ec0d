"A folder of X-rays over night: kills, second runs, odd folders and files that change"
import json, os, subprocess, sys, time
from pathlib import Path
import pytest
from cxr_llava.core.files import CXRError, read_jsonl
from cxr_llava.vlm.load import load_model
from cxr_llava.vlm.folder import (
    _alone, find_xrays, part_of, parts_of, rejects_of, report_folder, report_in_processes)
from cxr_llava.xray.drawing import phantom_xray

@pytest.fixture(scope='module')
def m(): return load_model()

@pytest.fixture
def d(tmp_path):
    (tmp_path/'d').mkdir()
    phantom_xray(1).save(tmp_path/'d/1.png')
    return tmp_path/'d'

def report(m, d, o, n=5, **kw): return report_folder(m, d if isinstance(d, list) else [d], o, max_new_tokens=n, **kw)
def names(o): return [Path(r['image']).name for r in read_jsonl(o)[0]]

def test_processes_refuse_a_file_made_with_another_question(m, d, tmp_path, capfd):
    o = tmp_path/'o.jsonl'
    report(m, d, o, indication='cough')
    before = o.read_bytes()
    with pytest.raises(CXRError, match='another max_new_tokens, prompt: choose another'): report(m, d, o, 6, shard=(0, 2))
    with pytest.raises(CXRError, match='2 of 2 processes failed'): report_in_processes([str(d), '--out', str(o)], o, find_xrays([d]), 2)
    assert 'was made with another' in capfd.readouterr().err and o.read_bytes() == before
    part_of(o, 1).write_bytes(before + b'{"image": "half')
    o.unlink()
    with pytest.raises(CXRError, match='part1.jsonl was made with another prompt'): report(m, d, o, shard=(0, 2))
    report(m, d, o, shard=(0, 2), indication='cough')
    assert part_of(o, 1).read_bytes() == before + b'{"image": "half' # its own process may be writing it

def test_only_parts_are_parts(m, d, tmp_path):
    report(m, d, tmp_path/'r.partial.jsonl')
    report(m, d, tmp_path/'r.jsonl')
    assert names(tmp_path/'r.partial.jsonl') == ['1.png'] and parts_of(tmp_path/'none/r.jsonl') == []
    o = tmp_path/'b[1].jsonl'
    report(m, d, o, shard=(0, 2))
    assert parts_of(o) == [part_of(o, 0)]
    report(m, d, o)
    assert names(o) == ['1.png'] and parts_of(o) == []

@pytest.mark.parametrize('half', [b'{', b'{"image": "a\xc3', '{"image": "a", "text": "ä\u20ac'.encode()[:-1]])
def test_half_a_character_is_made_again(m, d, tmp_path, half):
    o = tmp_path/'o.jsonl'
    report(m, d, o)
    whole = o.read_bytes()
    o.write_bytes(whole + half)
    report(m, d, o)
    assert o.read_bytes() == whole
    part_of(o, 1).write_bytes(half)
    assert report(m, d, o, shard=(0, 2)) == [] and part_of(o, 1).read_bytes() == half

@pytest.mark.parametrize('other', [b'caf\xe9', b'\xc3', b'{"image": "a"}', b'{"image": "a", "provenance": null}\n', b'{"image": null, "provenance": {}}\n', b'\xff\xfe\n', b'['*100_000])
def test_no_file_of_reports_is_left_as_it_was(m, d, tmp_path, other):
    o = tmp_path/'o.jsonl'
    o.write_bytes(other)
    with pytest.raises(CXRError, match='is no file of reports, and was left as it is'): report(m, d, o)
    assert o.read_bytes() == other

def test_odd_entries_are_bad_files(m, d, tmp_path, monkeypatch):
    (d/'z.png').symlink_to('/nowhere/q.png')
    look = os.stat
    def closed(p, *args, **kw):
        if Path(p).name == '1.png': raise PermissionError(13, 'Permission denied', str(p))
        return look(p, *args, **kw)
    with monkeypatch.context() as c:
        c.setattr(os, 'stat', closed)
        assert [Path(o).name for o in find_xrays([d])] == ['1.png', 'z.png']
    assert [Path(o['image']).name for o in report(m, d, tmp_path/'o.jsonl')] == names(rejects_of(tmp_path/'o.jsonl')) == ['z.png']
    assert names(tmp_path/'o.jsonl') == ['1.png']

def test_one_path_is_one_path(m, d, tmp_path):
    assert find_xrays(str(d)) == find_xrays(d) == find_xrays([d]) == find_xrays(iter([d]))
    report_folder(m, str(d), tmp_path/'o.jsonl', max_new_tokens=5)
    assert names(tmp_path/'o.jsonl') == ['1.png']

def test_one_run_at_a_time(m, d, tmp_path):
    o = tmp_path/'o.jsonl'
    code = f'from pathlib import Path; from cxr_llava.vlm.folder import _alone\nwith _alone(Path({str(o)!r})): print("held", flush=True); input()'
    other = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == 'held\n'
    for run in (lambda: report(m, d, o), lambda: report_in_processes([str(d), '--out', str(o)], o, find_xrays([d]), 2)):
        with pytest.raises(CXRError, match='Another run is writing into .*o.jsonl: wait'): run()
    report(m, d, o, shard=(0, 2))
    assert part_of(o, 0).exists()
    other.kill(), other.communicate()
    report(m, d, o)
    assert names(o) == ['1.png']

def test_processes_end_with_the_one_that_started_them(tmp_path):
    "Otherwise they would write into a file that nobody holds"
    o = tmp_path/'o.jsonl'
    code = f"""import os
from cxr_llava.vlm import folder
with folder._alone({str(o)!r}):
    folder.sys.executable = '/bin/sleep'
    folder.subprocess.Popen = lambda args, _old=folder.subprocess.Popen, **kw: _old(['/bin/sleep', '60'], stdout=-3, stderr=-3, **kw)
    print(folder._start_shard([], 0, 1).pid, flush=True)
    os.kill(os.getpid(), 9)"""
    worker = int(subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True).stdout)
    end = time.time() + 10
    while Path(f'/proc/{worker}/cmdline').exists() and Path(f'/proc/{worker}/cmdline').read_bytes(): # empty for one that has ended
        assert time.time() < end, 'still there'
        time.sleep(.05)
    with _alone(o): pass

def test_a_changed_xray_is_reported_again(m, d, tmp_path, capsys):
    o = tmp_path/'o.jsonl'
    phantom_xray(2).save(d/'2.png')
    report(m, d, o, 24)
    before = {r['image']: r for r in read_jsonl(o)[0]}
    phantom_xray(4, edema='severe').save(d/'1.png')
    part_of(o, 0).write_bytes(o.read_bytes()) # an old report comes last
    report(m, d, o, 24)
    now = {r['image']: r for r in read_jsonl(o)[0]}
    assert '1 of 2 are on disk' in capsys.readouterr().out and names(o) == ['1.png', '2.png']
    assert now[str(d/'1.png')] != before[str(d/'1.png')] and now[str(d/'2.png')] == before[str(d/'2.png')]
    old = [{k: v for k,v in r.items() if k != 'image_stat'} for r in now.values()] # of before there was the field
    o.write_text(''.join(json.dumps(r) + '\n' for r in old))
    phantom_xray(1).save(d/'1.png')
    report(m, d, o, 24)
    assert '2 of 2 are on disk' in capsys.readouterr().out and read_jsonl(o)[0] == old

def test_a_changed_xray_that_is_bad_has_no_report(m, d, tmp_path):
    o = tmp_path/'o.jsonl'
    report(m, d, o)
    (d/'1.png').write_text('no picture')
    assert len(report(m, d, o)) == 1 and names(o) == [] and names(rejects_of(o)) == ['1.png']

def test_bad_files_of_former_runs_stay_listed(m, d, tmp_path):
    o, e = tmp_path/'o.jsonl', tmp_path/'e'
    e.mkdir()
    (e/'bad.png').write_text('no picture')
    report(m, e, o)
    assert report(m, d, o) == [] and names(rejects_of(o)) == ['bad.png'] and names(o) == ['1.png']
    phantom_xray(2).save(e/'bad.png')
    report(m, e, o)
    assert not rejects_of(o).exists() and names(o) == ['bad.png', '1.png']
