"A folder of X-rays overnight: what lies on the disk is gone on with only when it is of the same job, and is never lost"
import os
import pytest
from cxr_llava.stages import CXRError, read_jsonl, write_jsonl
from cxr_llava.model import load_model
from cxr_llava.overnight import find_xrays, parts_of, part_of, rejects_of, report_folder
from cxr_llava.phantom import phantom_xray

@pytest.fixture(scope='module')
def m(): return load_model()

@pytest.fixture
def d(tmp_path):
    "Two X-rays in a folder"
    for i in (1, 2):
        (tmp_path/'in').mkdir(exist_ok=True)
        phantom_xray(i).save(tmp_path/f'in/é{i}.png')
    return tmp_path

def report(m, d, paths='in', out='r.jsonl', **kw): return report_folder(m, d/paths, d/out, **dict(max_new_tokens=8) | kw)

def test_a_kill_inside_a_letter(m, d):
    "A file that ends in the middle of `é`, or of any letter, is gone on with; so is one whose last line lost only its end"
    report(m, d)
    whole = (d/'r.jsonl').read_bytes()
    first, at = whole.split(b'\n')[0] + b'\n', whole.rindex('é'.encode()) + 1
    for data in (whole[:at], first + b'{', first + b'{"image": "x', whole[:-1]):
        (d/'r.jsonl').write_bytes(data)
        report(m, d)
        assert (d/'r.jsonl').read_bytes() == whole

@pytest.mark.parametrize('text', ['[]\n', '{"image": "a", "provenance": null}\n', '{"image": "a"', 'id,text\n1,Clear.\n', '{"image": "a"}\n'])
def test_files_of_others_stay(m, d, text):
    if text == '{"image": "a"': text = f'{text}\n' # a broken line with an end was not left by a kill
    (d/'r.jsonl').write_text(text)
    with pytest.raises(CXRError): report(m, d)
    assert (d/'r.jsonl').read_text() == text

def test_parts_are_told_from_other_files(m, d):
    report(m, d, 'in/é1.png', 'r.partial.jsonl')
    report(m, d, 'in/é2.png')
    assert len(read_jsonl(d/'r.partial.jsonl')[0]) == len(read_jsonl(d/'r.jsonl')[0]) == 1
    for k in (0, 1): report(m, d, out='b[1].jsonl', shard=(k, 2))
    assert [o.name for o in parts_of(d/'b[1].jsonl')] == ['b[1].part0.jsonl', 'b[1].part1.jsonl']

def test_parts_of_another_job_are_refused(m, d):
    for k in (0, 1): report(m, d, shard=(k, 2), indication='Cough.')
    part_of(d/'r.jsonl', 0).unlink()
    with pytest.raises(CXRError, match='made with another prompt'): report(m, d, shard=(0, 2))

def test_odd_entries_and_single_paths(m, d):
    os.symlink('/proc/1/cwd/q.png', d/'in/z.png')
    (d/'in/w.png').write_bytes(b'no picture')
    assert len(find_xrays(str(d/'in/é1.png'))) == 1 and len(find_xrays(d/'in')) in (3, 4)
    assert {o['image'][-5:] for o in report(m, d)} >= {'w.png'[-5:]} and len(read_jsonl(d/'r.jsonl')[0]) == 2

def test_bad_files_of_an_earlier_folder_stay_listed(m, d):
    (d/'in/w.png').write_bytes(b'no picture')
    report(m, d)
    report(m, d, 'in/é1.png')
    assert [o['image'][-5:] for o in read_jsonl(rejects_of(d/'r.jsonl'))[0]] == ['w.png']
    phantom_xray(3).save(d/'in/w.png')
    report(m, d)
    assert not rejects_of(d/'r.jsonl').exists() and len(read_jsonl(d/'r.jsonl')[0]) == 3
