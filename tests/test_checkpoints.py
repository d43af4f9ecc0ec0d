"Checkpoints that are damaged, copied, found again"
import json, os, shutil
import pytest
from cxr_llava.train.clock import (
    adopt, attached_checkpoints, checkpoint_info, DONE, finish_checkpoint, newest_checkpoint,
    prune)
from cxr_llava.core.files import CXRError, is_disk_full

def make(folder, step, key='k', **files):
    "A checkpoint with two files"
    d = folder/f'.writing/checkpoint-{step}'
    d.mkdir(parents=True)
    for k,v in (files or dict(weights='w'*1000*step, optimizer='o'*500)).items(): (d/k).write_text(v)
    return finish_checkpoint(d, folder/f'checkpoint-{step}', key=key, step=step)

def truncate(p): (p/'weights').write_bytes((p/'weights').read_bytes()[:-1])
def one_bit(p):
    b = bytearray((p/'weights').read_bytes())
    b[7] ^= 1
    (p/'weights').write_bytes(b)
def remove(p): (p/'optimizer').unlink()
def no_marker(p): (p/DONE).unlink()
def torn_marker(p): (p/DONE).write_text((p/DONE).read_text()[:40])
def empty_marker(p): (p/DONE).write_text('')
def foreign_marker(p): (p/DONE).write_text('[1, 2]')
def marker_without_files(p): (p/DONE).write_text(json.dumps(dict(key='k', step=9, written=1e12)))
def marker_lies(p): (p/DONE).write_text(json.dumps(dict(key='k', step='many', files={'weights': 1}, written=None)))
def binary_marker(p): (p/DONE).write_bytes(b'\xff\xfe\x00')
def files_gone(p):
    for f in p.iterdir(): f.name == DONE or f.unlink()

@pytest.mark.parametrize('damage', [truncate, one_bit, remove, no_marker, torn_marker, empty_marker, foreign_marker, marker_without_files, marker_lies, binary_marker, files_gone])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, damage):
    make(tmp_path, 3), make(tmp_path, 12)
    assert newest_checkpoint([tmp_path], 'k').name == 'checkpoint-12'
    damage(tmp_path/'checkpoint-12')
    assert checkpoint_info(tmp_path/'checkpoint-12') is None
    assert newest_checkpoint([tmp_path], 'k').name == 'checkpoint-3'

def test_all_damaged_or_of_another_run(tmp_path):
    make(tmp_path, 1), make(tmp_path, 2, key='other')
    truncate(tmp_path/'checkpoint-1')
    assert newest_checkpoint([tmp_path, tmp_path/'absent'], 'k') is None

def test_steps_are_numbers_not_words(tmp_path):
    make(tmp_path, 9), make(tmp_path, 100)
    assert newest_checkpoint([tmp_path], 'k').name == 'checkpoint-100'

def test_the_farthest_counts_wherever_it_lies(tmp_path):
    make(tmp_path/'here', 4), make(tmp_path/'there', 9)
    assert newest_checkpoint([tmp_path/'here', tmp_path/'there'], 'k') == tmp_path/'there/checkpoint-9'

def test_what_was_being_written_is_no_checkpoint(tmp_path):
    d = tmp_path/'.writing/checkpoint-7'
    d.mkdir(parents=True), (d/'weights').write_text('w')
    assert newest_checkpoint([tmp_path], 'k') is None

@pytest.mark.parametrize('layout', ['input/notebooks/me/cxr-llava-20-finetune', 'input/cxr-llava-20-finetune', 'input/datasets/me/kept/runs'])
def test_attached_read_only_output_is_copied_and_left_alone(tmp_path, monkeypatch, layout):
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path/'kaggle'))
    old = tmp_path/'kaggle'/layout/'checkpoints'
    make(old, 5)
    shutil.rmtree(old/'.writing')
    for p in [*old.rglob('*'), old]: p.chmod(0o555 if p.is_dir() else 0o444)
    before = {p: p.stat().st_mtime_ns for p in old.rglob('*')}
    found = newest_checkpoint([tmp_path/'working', *attached_checkpoints()], 'k')
    mine = adopt(found, tmp_path/'working')
    assert mine.parent == tmp_path/'working' and checkpoint_info(mine) and os.access(mine, os.W_OK)
    assert {p: p.stat().st_mtime_ns for p in old.rglob('*')} == before
    prune(tmp_path/'working', 'k', 1)
    make(tmp_path/'working', 6)
    prune(tmp_path/'working', 'k', 1)
    assert [p.name for p in (tmp_path/'working').glob('checkpoint-*')] == ['checkpoint-6']

def test_a_copy_that_does_not_arrive_whole_is_refused(tmp_path, monkeypatch):
    make(tmp_path/'old', 5)
    monkeypatch.setattr(shutil, 'copyfile', lambda a, b, **kw: open(b, 'w').write('half'))
    with pytest.raises(CXRError, match='could not be copied whole'): adopt(tmp_path/'old/checkpoint-5', tmp_path/'new')
    assert not list((tmp_path/'new').glob('*'))

def test_prune_keeps_the_newest_of_this_run_only(tmp_path):
    for s in (2, 10, 9): make(tmp_path, s)
    make(tmp_path, 1, key='other')
    prune(tmp_path, 'k', 2)
    assert sorted(p.name for p in tmp_path.glob('checkpoint-*')) == ['checkpoint-1', 'checkpoint-10', 'checkpoint-9']

def test_a_checkpoint_written_again_replaces_the_old_one(tmp_path):
    make(tmp_path, 3, weights='a')
    make(tmp_path, 3, weights='b')
    assert (tmp_path/'checkpoint-3/weights').read_text() == 'b' and checkpoint_info(tmp_path/'checkpoint-3')

@pytest.mark.parametrize('e,full', [(OSError(28, 'No space left on device'), True), (OSError(122, 'quota'), True), (OSError(27, 'File too large'), True),
    (RuntimeError('[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0'), True),
    (RuntimeError('I/O error: No space left on device (os error 28)'), True), (OSError(13, 'Permission denied'), False), (RuntimeError('CUDA out of memory'), False)])
def test_a_full_disk_is_recognised_by_number_and_word(e, full):
    assert is_disk_full(e) is full
    try:
        try: raise e
        except Exception as inner: raise ValueError('while saving') from inner
    except ValueError as outer: assert is_disk_full(outer) is full
