"What the training commands say to settings, data and folders they cannot use: one sentence, exit code 2, nothing written"
import json, os
from types import SimpleNamespace
import pytest, torch
from cxr_llava.finetune import finetune, main
from cxr_llava.train.settings import check_finetune, FinetuneConfig
from cxr_llava.train.settings import main as plan
from cxr_llava.core.files import CXRError
from made_up import SETTINGS, conversations

@pytest.fixture(scope='module')
def data(tmp_path_factory): return conversations(tmp_path_factory.mktemp('conversations'), 8)

def refused(capsys, command, *args):
    "Its sentence"
    with pytest.raises(SystemExit) as e: command([str(a) for a in args])
    assert e.value.code == 2
    said = [l for l in capsys.readouterr().err.splitlines() if l]
    assert len(said) == 1 and said[0].startswith('error: '), said
    return said[0]

SENSELESS = [('epochs', 0, 'above 0'), ('epochs', -1, 'above 0'), ('epochs', 'nan', 'above 0'), ('epochs', 'inf', 'above 0'), ('lr', 0, 'above 0'), ('lr', 'nan', 'above 0'),
    ('lora_r', 0, 'at least 1'), ('alpha', 0, 'at least 1'), ('dropout', 2, 'in [0, 1)'), ('dropout', -1, 'in [0, 1)'), ('warmup', 5, 'in [0, 1)'), ('schedule', 'foo', 'linear'),
    ('precision', 'int8', 'nf4'), ('seed', -1, 'in [0, 4294967296)'), ('seed', 2**32, 'in [0, 4294967296)'), ('limit', -3, 'at least 0'), ('max_len', 0, 'at least 1'), ('max_hours', 'nan', 'at least 0'),
    ('max_hours', -1, 'at least 0'), ('save_minutes', -1, 'at least 0'), ('processes', -1, 'at least 0'), ('batch', -1, 'at least 0'), ('effective_batch', 0, 'at least 1'), ('evals', -1, 'at least 0')]

@pytest.mark.parametrize('name,value,words', SENSELESS)
def test_senseless_settings(name, value, words):
    with pytest.raises(CXRError, match=f'`{name}` must be') as e: FinetuneConfig.load(None, **{name: str(value)})
    assert words in str(e.value)

@pytest.mark.parametrize('command', [main, plan])
def test_a_senseless_setting_on_the_command_line(capsys, data, tmp_path, command):
    assert '`epochs` must be above 0' in refused(capsys, command, '--epochs', 0, '--data', data, '--run', tmp_path/'run')
    assert not (tmp_path/'run').exists()

@pytest.mark.parametrize('device,words', [('gpu', 'no device'), ('mps', 'no device'), ('cuda:x', 'no device'), ('cuda', 'no CUDA GPU'), ('cuda:0', 'no CUDA GPU')])
def test_devices_that_are_none(capsys, data, tmp_path, device, words):
    if torch.cuda.is_available(): pytest.skip('there is a GPU')
    assert words in refused(capsys, main, *SETTINGS, '--device', device, '--data', data, '--out', tmp_path/'run/adapter')

def test_a_gpu_that_is_not_there(monkeypatch):
    from cxr_llava.vlm.bases import check_device
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    check_device('cuda:1')
    with pytest.raises(CXRError, match='only 2 GPUs'): check_device('cuda:2')

def test_more_processes_than_gpus(data, tmp_path, monkeypatch):
    from cxr_llava.train.plan import GPUS
    monkeypatch.setattr('cxr_llava.train.settings.local_gpus', lambda device: (GPUS['T4'], 2))
    with pytest.raises(CXRError, match='more than the 2 GPUs'): finetune(FinetuneConfig(base='tiny', data=str(data), processes=4, run=str(tmp_path)))

BAD = dict(nothing='[]', numbers='[1, 2]', table='{}', half='[{"id": 1},\n {"id": \n]', none='[{"image": "a.png", "conversations": null}]', words='[{"image": "a.png", "conversations": "hello"}]')

@pytest.mark.parametrize('name', [*BAD, 'missing', 'folder', 'picture'])
@pytest.mark.parametrize('command', [main, plan])
def test_files_that_hold_no_conversations(capsys, data, tmp_path, command, name):
    f = tmp_path/f'{name}.json'
    if name == 'folder': f.mkdir()
    elif name == 'picture': f = data.parent/'0.png'
    elif name in BAD: f.write_text(BAD[name])
    said = refused(capsys, command, '--base', 'tiny', '--device', 'cpu', '--data', f, '--run', tmp_path/'run')
    assert str(f) in said and '--max_len' not in said

@pytest.mark.parametrize('rows', [-1, 0])
def test_a_plan_for_no_studies(capsys, rows): assert 'at least 1' in refused(capsys, plan, '--rows', rows)

@pytest.mark.parametrize('deep', [False, True])
def test_a_file_where_the_run_folder_should_be(capsys, data, tmp_path, deep):
    (tmp_path/'file').write_text('mine')
    said = refused(capsys, main, *SETTINGS, '--data', data, '--run', tmp_path/'file/deep' if deep else tmp_path/'file')
    assert 'Cannot write' in said and '--run' in said and (tmp_path/'file').read_text() == 'mine'

@pytest.mark.parametrize('text', ['training: {gradient_accumulation_steps: many}', 'data: {max_length: long}', 'training: {gradient_accumulation_steps: 4, per_device_train_batch_size: x}'])
def test_wrong_types_in_the_course_projects_settings(capsys, tmp_path, text):
    (tmp_path/'c.yaml').write_text(text)
    assert 'whole number' in refused(capsys, main, '--config', tmp_path/'c.yaml')

@pytest.mark.parametrize('text', ['r: 8', 'lora_r: 8', 'lora: {r: 8}'])
def test_the_rank_under_its_old_name(capsys, tmp_path, monkeypatch, text):
    "In a file, in Python and on the command line; what is written has the new name"
    (tmp_path/'c.yaml').write_text(text)
    seen = []
    def stop(cfg):
        seen.append(cfg)
        raise CXRError('seen')
    monkeypatch.setattr('cxr_llava.finetune.check_finetune', stop)
    for args in (['--config', tmp_path/'c.yaml'], ['--r', 8], ['--lora_r', 8]): refused(capsys, main, *args)
    for cfg in (*seen, FinetuneConfig(r=8), FinetuneConfig(r=8).replaced(lr=1)):
        assert cfg.lora_r == 8 and cfg.to_dict()['lora_r'] == 8 and 'r' not in cfg.to_dict() and 'lora_r' in cfg._given
    assert len(seen) == 3

def test_empty_course_settings_mean_the_defaults(tmp_path):
    (tmp_path/'c.yaml').write_text('lora: {r: null}\ndata: {max_length: null}\ntraining: {gradient_accumulation_steps: 4, per_device_train_batch_size: null}')
    cfg = FinetuneConfig.load(tmp_path/'c.yaml')
    assert (cfg.lora_r, cfg.max_len, cfg.effective_batch) == (16, 1024, 4)

def test_a_second_gpu_is_left_alone_by_one_process(monkeypatch, tmp_path):
    "The Trainer would wrap the model in `nn.DataParallel` and double the batch"
    from cxr_llava.train.loop import trainer_args
    used = []
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda d: used.append(str(d)))
    args = trainer_args(FinetuneConfig(), tmp_path, 4, 2, 1, 'fp16', (7, 5), device='cuda:1')
    assert (args.n_gpu, args.train_batch_size, str(args.device), used[-1]) == (1, 2, 'cuda:1', 'cuda:1')

@pytest.mark.parametrize('out', ['work', '.'])
def test_training_replaces_no_folder_of_something_else(capsys, data, tmp_path, monkeypatch, out):
    (tmp_path/'work').mkdir()
    (tmp_path/'work/thesis.docx').write_text('mine')
    monkeypatch.chdir(tmp_path)
    assert 'something else' in refused(capsys, main, *SETTINGS, '--data', data, '--out', out)
    assert [p.name for p in tmp_path.rglob('*')] == ['work', 'thesis.docx']

def test_a_sentence_of_one_of_several_processes_comes_alone(capsys, tmp_path, monkeypatch):
    "Not with the launcher's own traceback"
    from cxr_llava.core.processes import launch
    (tmp_path/'who.py').write_text('import sys\nprint("working"), print("error: no data", file=sys.stderr), sys.exit(2)\n')
    with pytest.raises(CXRError, match='^no data$'): launch('who', {}, tmp_path, 1, PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')]))
    said = capsys.readouterr().out
    assert 'working' in said and 'Traceback' not in said and 'FAILED' not in said, said

@pytest.mark.parametrize('name,value,words', [('checkpointing', 'foo', 'auto, none, all'), ('device', 'foo', 'no device'), ('base', 'nosuch', 'no base model'), ('out', 'work', 'something else')])
def test_what_is_refused_without_any_data(tmp_path, monkeypatch, name, value, words):
    "Before the first stage of `cxr_run`, and first of all in `finetune`"
    monkeypatch.chdir(tmp_path)
    (tmp_path/'work').mkdir(), (tmp_path/'work/thesis.docx').write_text('mine')
    cfg = FinetuneConfig(run='run', **{'base': 'tiny', 'device': 'cpu', name: value})
    for f in (check_finetune, finetune):
        with pytest.raises(CXRError, match=words): f(cfg)

def test_a_foreign_folder_in_the_place_of_the_best_adapter(tmp_path):
    (tmp_path/'adapter_best').mkdir(), (tmp_path/'adapter_best/thesis.docx').write_text('mine')
    with pytest.raises(CXRError, match='adapter_best is there already'): check_finetune(FinetuneConfig(base='tiny', device='cpu', run=str(tmp_path)))

@pytest.mark.parametrize('name', ['RANK', 'WORLD_SIZE', 'CXR_SESSION_START'])
def test_an_environment_that_makes_no_sense(capsys, data, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, 'x')
    assert name in refused(capsys, main, *SETTINGS, '--data', data, '--run', tmp_path/'run') and not (tmp_path/'run').exists()
