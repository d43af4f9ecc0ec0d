"The commands from end to end, and what they say to bad input"
import csv, html, json, os, re, subprocess, sys
from pathlib import Path
import pytest
from cxr_llava.vlm.adapters import read_adapter

BIN = Path(sys.executable).parent
ENV = os.environ | dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', CXR_RUN='', CUDA_VISIBLE_DEVICES='', KAGGLE_KERNEL_RUN_TYPE='', PYTHONWARNINGS='ignore')
SMALL = ['--n', '60', '--epochs', '1', '--bootstrap', '50']

def cxr(cmd, *args, cwd, timeout=600, **env):
    return subprocess.run([str(BIN/cmd), *map(str, args)], cwd=cwd, env=ENV | env, capture_output=True, text=True, timeout=timeout)

def refused(r, *words):
    "One sentence on stderr, exit code 2, no traceback"
    assert r.returncode == 2, f'{r.returncode}\n{r.stdout[-2000:]}\n{r.stderr[-2000:]}'
    lines = [o for o in r.stderr.splitlines() if o.startswith('error: ')]
    assert len(lines) == 1 and 'Traceback' not in r.stderr
    for w in words: assert w in lines[0], f'{w!r} not in {lines[0]!r}'
    return lines[0]

def done(r):
    assert r.returncode == 0, f'{r.returncode}\n{r.stdout[-2000:]}\n{r.stderr[-3000:]}'
    return r

@pytest.fixture(scope='module')
def job(tmp_path_factory):
    "The main job in small, by its one command"
    d = tmp_path_factory.mktemp('job')
    return d, done(cxr('cxr_run', '--run', 'runs/small', *SMALL, cwd=d))

def test_run_writes_everything(job):
    d, r = job
    for o in ('studies.parquet', 'splits.json', 'audit.json', 'rejects.jsonl', 'train.json', 'val.json', 'test.json', 'adapter/adapter_model.safetensors',
              'adapter/adapter_config.json', 'train_log.jsonl', 'metrics.json', 'report.html', 'predictions/tuned.jsonl', 'summary.html', 'summary.json'):
        assert (d/'runs/small'/o).exists(), o

def test_run_says_how_far_it_is_and_what_it_wrote(job):
    out = job[1].stdout
    for i,s in enumerate(('data', 'prompts', 'finetune', 'eval', 'summary'), 1): assert f'[{i}/5] {s}' in out
    assert 'peak memory' in out and 'runs/small/summary.html' in out and 'not a medical device' in out

def test_the_adapter_says_how_it_was_judged(job):
    run = job[0]/'runs/small'
    assert json.loads((run/'metrics.json').read_text())['headline']['text'] in (run/'adapter/README.md').read_text()

def test_page_is_self_contained(job):
    html = (job[0]/'runs/small/summary.html').read_text()
    assert 'Not a medical device' in html and 'data:image/jpeg;base64,' in html
    for o in ('src="http', 'href="http', '<script', '<link'): assert o not in html

def test_no_absolute_path_in_what_is_handed_on(job):
    for p in (job[0]/'runs/small').rglob('*.json*'):
        if 'checkpoints' not in p.parts: assert str(job[0]) not in p.read_text(), p

def test_summary_for_programs(job):
    s = json.loads((job[0]/'runs/small/summary.json').read_text())
    assert set(s['seconds']) == {'data', 'prompts', 'finetune', 'eval'} and s['peak_memory_gb'] < 4

def test_stages_one_by_one_are_the_same_job(job):
    "Each command finds what the one before left; the data are the same, byte for byte"
    d = job[0]
    done(cxr('cxr_data', '--run', 'runs/steps', '--n', '60', cwd=d))
    done(cxr('cxr_prompts', '--run', 'runs/steps', cwd=d))
    for o in ('splits.json', 'train.json', 'val.json', 'test.json'): assert (d/'runs/steps'/o).read_bytes() == (d/'runs/small'/o).read_bytes(), o

def test_report_for_one_xray(job):
    d = job[0]
    im = next((d/'runs/small/images').rglob('*.jpg'))
    r = done(cxr('cxr_report', im, '--lora_repo', 'runs/small/adapter', '--json', cwd=d))
    assert 'not a medical device' in (r.stdout + r.stderr).lower()
    assert '"findings"' in r.stdout

def test_labels_of_a_table(tmp_path):
    with open(tmp_path/'r.csv', 'w', newline='') as f: csv.writer(f).writerows([['report'], ['Small left pleural effusion.'], ['No pneumothorax.']])
    assert 'Pleural Effusion' in done(cxr('cxr_label', 'r.csv', cwd=tmp_path)).stdout + ''.join(p.read_text() for p in tmp_path.glob('*label*'))

# Bad input

def test_missing_folder(tmp_path): refused(cxr('cxr_data', '--path', 'nowhere', '--run', 'r', cwd=tmp_path), 'nowhere')

def test_empty_folder(tmp_path):
    (tmp_path/'empty').mkdir()
    refused(cxr('cxr_data', '--path', 'empty', '--run', 'r', cwd=tmp_path), 'empty')

@pytest.mark.parametrize('cmd,words', [('cxr_prompts', 'cxr_data'), ('cxr_finetune', 'cxr_prompts'), ('cxr_eval', 'run `cxr_')])
def test_missing_stage_names_the_one_that_makes_it(tmp_path, cmd, words): refused(cxr(cmd, '--run', 'r', cwd=tmp_path), words)

@pytest.mark.parametrize('cmd', ['cxr_data', 'cxr_prompts', 'cxr_finetune', 'cxr_eval', 'cxr_run'])
def test_unknown_key_in_config(tmp_path, cmd):
    (tmp_path/'c.yaml').write_text('sede: 1\n')
    refused(cxr(cmd, '--config', 'c.yaml', cwd=tmp_path), '`sede`', 'c.yaml', 'did you mean `seed`')

def test_wrong_type(tmp_path): refused(cxr('cxr_run', '--epochs', 'many', cwd=tmp_path), '`epochs`', 'a number')

def test_typo_in_a_late_stage_costs_no_early_one(tmp_path):
    refused(cxr('cxr_run', '--run', 'r', '--batch_size', 'x', cwd=tmp_path), 'batch_size')
    assert not (tmp_path/'r').exists()

def test_file_missing_for_a_late_stage_costs_no_early_one(tmp_path):
    refused(cxr('cxr_run', '--run', 'r', '--val', 'nowhere.json', cwd=tmp_path), 'nowhere.json', '--val')
    assert not (tmp_path/'r').exists()

def test_broken_conversations(tmp_path):
    (tmp_path/'train.json').write_text('[{"id": 1},\n {"id": \n]')
    refused(cxr('cxr_finetune', '--data', 'train.json', '--run', 'r', '--base', 'tiny', cwd=tmp_path), 'train.json', 'line')

def test_adapter_for_another_base(job, tmp_path):
    import shutil
    shutil.copytree(job[0]/'runs/small/adapter', tmp_path/'adapter')
    p = tmp_path/'adapter/adapter_config.json'
    p.write_text(json.dumps(json.loads(p.read_text()) | dict(base_model_name_or_path='llava-hf/llava-1.5-7b-hf')))
    refused(cxr('cxr_report', next((job[0]/'runs/small/images').rglob('*.jpg')), '--lora_repo', 'adapter', '--base', 'tiny', cwd=tmp_path), 'llava-1.5-7b')

def test_damaged_adapter(job, tmp_path):
    import shutil
    shutil.copytree(job[0]/'runs/small/adapter', tmp_path/'adapter')
    (tmp_path/'adapter/adapter_model.safetensors').write_bytes(b'not weights')
    refused(cxr('cxr_report', next((job[0]/'runs/small/images').rglob('*.jpg')), '--lora_repo', 'adapter', cwd=tmp_path))

def test_unreadable_xray_given_to_the_model(job, tmp_path):
    (tmp_path/'x.png').write_bytes(b'not an image')
    refused(cxr('cxr_report', 'x.png', '--lora_repo', job[0]/'runs/small/adapter', cwd=tmp_path), 'x.png')

def table(d, n=40, breaks=True):
    "A small table of somebody's own X-rays: one unreadable, one missing, one without a report"
    from cxr_llava.xray.drawing import phantom_xray
    (d/'xrays').mkdir()
    rows = []
    for i in range(n):
        name = f'x{i}.png'
        phantom_xray(i, size=96).save(d/'xrays'/name)
        rows.append([name, f'p{i//2}', f'The heart is normal. The lungs are clear, study {i}.', 'No acute disease.'])
    if breaks:
        (d/'xrays/x3.png').write_bytes(b'broken')
        (d/'xrays/x4.png').unlink()
        rows[5][2] = rows[5][3] = ''
    with open(d/'t.csv', 'w', newline='') as f: csv.writer(f).writerows([['file', 'who', 'found', 'concluded'], *rows])
    return ['--source', 'table', '--path', 't.csv', '--image_dir', 'xrays', '--image_col', 'file', '--patient_col', 'who', '--findings_col', 'found', '--impression_col', 'concluded']

def test_own_table_with_bad_records(tmp_path):
    "Bad records are listed, the others are used"
    args = table(tmp_path)
    r = done(cxr('cxr_run', *args, '--run', 'mine', '--epochs', '1', '--bootstrap', '20', '--no-probes', '--out', 'else where/a', cwd=tmp_path))
    judged = json.loads((tmp_path/'mine/metrics.json').read_text())['provenance']['model']
    assert judged['adapter_hash'] == read_adapter(tmp_path/'else where/a')['hash'] # the new one, not one in the run folder
    assert "--lora_repo 'else where/a'" in r.stdout and "--lora_repo '../else where/a'" in html.unescape((tmp_path/'mine/summary.html').read_text())
    where = ' '.join(o['where'] + o['reason'] + str(o) for o in map(json.loads, (tmp_path/'mine/rejects.jsonl').read_text().splitlines()))
    for o in ('x3', 'x4'): assert o in where
    assert 'left out' in r.stdout

def test_full_disk_while_preparing_data(tmp_path):
    if os.geteuid(): pytest.skip('needs root to mount')
    (tmp_path/'disk').mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', str(tmp_path/'disk')], capture_output=True).returncode: pytest.skip('cannot mount here')
    try:
        (tmp_path/'disk/kept.txt').write_text('kept')
        assert re.search('No space left|disk is full', refused(cxr('cxr_data', '--run', 'disk/run', '--n', '60', cwd=tmp_path)))
        assert (tmp_path/'disk/kept.txt').read_text() == 'kept' and not list((tmp_path/'disk').rglob('.*.tmp-*'))
    finally: subprocess.run(['umount', str(tmp_path/'disk')], check=True)
