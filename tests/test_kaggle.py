"Kaggle: the install cell, the copies that are sent, and a `kaggle` command that behaves badly"
import base64, configparser, hashlib, json, os, re, stat, subprocess, sys, textwrap, time, zipfile
from pathlib import Path
import pytest
from cxr_llava.core import push
from cxr_llava.core.push import (
    build, build_wheels, CHAIN, chosen, kaggle, KaggleConfig, main, metadata, NEED, owner,
    push_folder, push_wheels, redact, slug, status, wait_for, wheels_metadata)
from cxr_llava.core.files import CXRError

ROOT = Path(__file__).resolve().parents[1]
INI = configparser.ConfigParser(delimiters=['='])
INI.read(ROOT/'settings.ini', encoding='utf-8')
VERSION = INI['DEFAULT']['version']

def source(c): return ''.join(c['source'])
def cells(name): return json.loads((ROOT/f'nbs/{name}.ipynb').read_text('utf-8'))['cells']
def install_cell(name): return next(c for c in cells(name) if c['cell_type'] == 'code')

# ---- the install cell

def test_one_install_cell_for_all():
    got = {source(install_cell(o)) for o in CHAIN}
    assert len(got) == 1
    assert all(install_cell(o)['metadata'].get('_kg_hide-input') is True for o in CHAIN)

@pytest.mark.parametrize('name', CHAIN)
def test_nothing_else_installs(name):
    rest = [source(c) for c in cells(name) if c['cell_type'] == 'code' and c is not install_cell(name)][1:]
    assert not [s for s in rest if re.search(r'^[!%]\s*(pip|conda|apt)|pip install -', s, re.M)]

def test_install_cell_asks_for_this_version_and_the_wheels():
    need = re.search(r"NEED = '(.*?)'", source(install_cell('00_data')))[1]
    assert need.split() == [f'cxr_llava=={VERSION}', *NEED]
    assert f'/v{VERSION}' in source(install_cell('00_data')) and f'cxr_llava-{VERSION}-*.whl' in source(install_cell('00_data'))

def wheel(folder, name, version):
    "A wheel with one empty module"
    info = f'{name}-{version}.dist-info'
    files = {f'{name}.py': b'', f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: torch>=99\n'.encode(),
        f'{info}/WHEEL': b'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'}
    def line(k, v): return f'{k},sha256={base64.urlsafe_b64encode(hashlib.sha256(v).digest()).rstrip(b"=").decode()},{len(v)}'
    record = '\n'.join([*(line(k, v) for k,v in files.items()), f'{info}/RECORD,,']) + '\n'
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder/f'{name}-{version}-py3-none-any.whl', 'w') as z:
        for k,v in (files | {f'{info}/RECORD': record.encode()}).items(): z.writestr(k, v)

@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    "An environment with pip and nothing else"
    d = tmp_path_factory.mktemp('bare')/'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(d)], check=True)
    import pip
    next(d.glob('lib/python*/site-packages')).joinpath('pip').symlink_to(Path(pip.__file__).parent)
    return d

def run_cell(venv, top, target, kaggle=True):
    "The install cell in a play Kaggle without network; packages go to `target`"
    env = {k: v for k,v in os.environ.items() if not k.startswith(('PIP_', 'KAGGLE_', 'CXR_', 'PYTHON'))}
    env |= dict(CXR_KAGGLE_ROOT=str(top), PIP_TARGET=str(target), PYTHONPATH=str(target), PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL='http://127.0.0.1:9/',
        PIP_RETRIES='0', PIP_DEFAULT_TIMEOUT='1', https_proxy='http://127.0.0.1:9', http_proxy='http://127.0.0.1:9', no_proxy='')
    if kaggle:
        env['KAGGLE_KERNEL_RUN_TYPE'] = 'Batch'
        target.mkdir(exist_ok=True)
    code = source(install_cell('00_data')) + '\nprint(*lacks)\nimport importlib\nif os.environ.get("KAGGLE_KERNEL_RUN_TYPE"): importlib.import_module("cxr_llava")'
    return subprocess.run([str(venv/'bin/python'), '-c', code], env=env, cwd=target.parent, capture_output=True, text=True, timeout=120)

def wheels(folder, version=VERSION):
    for o in [f'cxr_llava=={version}', *NEED]: wheel(folder, *o.split('=='))

@pytest.mark.parametrize('layout', ['datasets/me/cxr-llava-wheels', 'cxr-llava-wheels'])
def test_installs_from_attached_wheels_once(bare, tmp_path, layout):
    wheels(tmp_path/'kaggle/input'/layout)
    r = run_cell(bare, tmp_path/'kaggle', tmp_path/'site')
    assert r.returncode == 0 and r.stdout.split() == [f'cxr_llava=={VERSION}', *NEED] and not r.stderr, r.stderr
    assert not (tmp_path/'site/torch').exists() # asked for by the wheels, and left alone
    again = run_cell(bare, tmp_path/'kaggle', tmp_path/'site')
    assert again.returncode == 0 and not again.stdout.strip()

def test_goes_on_to_the_wheels_that_fit(bare, tmp_path):
    wheels(tmp_path/'kaggle/input/a-old', '0.0.1')
    wheels(tmp_path/'kaggle/input/b-new')
    assert run_cell(bare, tmp_path/'kaggle', tmp_path/'site').returncode == 0

@pytest.mark.parametrize('version', [None, '0.0.1'])
def test_says_what_to_switch_on(bare, tmp_path, version):
    (tmp_path/'kaggle/input').mkdir(parents=True)
    if version: wheels(tmp_path/'kaggle/input/datasets/me/cxr-llava-wheels', version)
    r = run_cell(bare, tmp_path/'kaggle', tmp_path/'site')
    assert r.returncode == 1 and 'Internet' in r.stderr and 'cxr-llava-wheels' in r.stderr and len(r.stderr.splitlines()) == 1, r.stderr

def test_does_nothing_elsewhere(bare, tmp_path):
    r = run_cell(bare, tmp_path, tmp_path/'site', kaggle=False)
    assert r.returncode == 0 and not (tmp_path/'site').exists()

# ---- the copies

@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    "Notebooks of this clone; copies go to a temporary folder, and nothing waits"
    monkeypatch.setattr(push, 'NOTEBOOKS', ROOT/'nbs')
    monkeypatch.setattr(push, 'FOLDER', tmp_path/'out')
    monkeypatch.setattr(push, 'POLL', 0)

@pytest.fixture
def copies():
    cfg = KaggleConfig(owner='some-body', only=','.join(CHAIN))
    return cfg, build(cfg)

def test_copies_are_small_bare_and_repeatable(copies):
    cfg, folders = copies
    before = {p: p.read_bytes() for d in folders for p in d.iterdir()}
    build(cfg)
    assert {p: p.read_bytes() for d in folders for p in d.iterdir()} == before
    for d in folders:
        assert (d/f'{d.name}.ipynb').stat().st_size < 1_000_000 # Kaggle's limit
        nb = json.loads((d/f'{d.name}.ipynb').read_text())
        assert not any(c.get('outputs') or c.get('execution_count') for c in nb['cells'])

def test_copies_run_the_same_code(copies):
    for d in copies[1]:
        got = [c['source'] for c in json.loads((d/f'{d.name}.ipynb').read_text())['cells'] if c['cell_type'] == 'code']
        assert got == [source(c) for c in cells(d.name) if c['cell_type'] == 'code']

@pytest.mark.parametrize('name', ['00_data', '10_prompts', '20_finetune', '30_eval', '50_run'])
def test_smoke_switch(name):
    cfg = KaggleConfig(owner='me', only=name, smoke=True)
    nb = json.loads((build(cfg)[0]/f'{name}.ipynb').read_text())
    assert sum(c['source'].count('SMOKE = True') for c in nb['cells']) == 1

def test_next_notebook(copies):
    "Each page ends with the next one; on Kaggle that is the copy there"
    for d, after in zip(copies[1], list(CHAIN)[1:]):
        last = json.loads((d/f'{d.name}.ipynb').read_text())['cells'][-1]
        assert last['cell_type'] == 'markdown' and f'https://www.kaggle.com/code/some-body/{slug("cxr llava " + after)}' in last['source'], d.name

def test_chain_is_attached_by_address():
    for name in CHAIN:
        d = metadata(name, KaggleConfig(owner='me'))
        assert d['kernel_sources'] == [metadata(o, KaggleConfig(owner='me'))['id'] for o in CHAIN[name]['after']]
        assert (d.get('machine_shape') == 'NvidiaTeslaT4') == d['enable_gpu'] == CHAIN[name]['gpu']

def test_without_internet_the_wheels_are_attached():
    d = metadata('20_finetune', KaggleConfig(owner='me', internet=False, model='a/b/transformers/c/1'))
    assert d['dataset_sources'] == [wheels_metadata(KaggleConfig(owner='me'))['id']] and d['model_sources'] and d['enable_internet'] is False

def test_slug_is_kaggles():
    slugify = pytest.importorskip('slugify').slugify
    for o in [metadata(n, KaggleConfig(owner='me'))['title'] for n in CHAIN] + ['A  b_c--d 10', 'cxr llava wheels']: assert slug(o) == slugify(o)

CLIENT = '''
import json, sys, types
from kaggle.api.kaggle_api_extended import KaggleApi
sent = []
class Client:
    def __enter__(self): return self
    def __exit__(self, *a): pass
    kernels = types.SimpleNamespace(kernels_api_client=types.SimpleNamespace(save_kernel=lambda r: sent.append(r) or types.SimpleNamespace(error='')))
api = KaggleApi.__new__(KaggleApi)
api.build_kaggle_client = lambda *a, **k: Client()
for o in sys.argv[1:]: api.kernels_push(o)
print(json.dumps([(r.slug, r.new_title, r.enable_internet, r.machine_shape, list(r.kernel_data_sources), len(r.text)) for r in sent]))
'''

def test_kaggles_own_client_takes_them(copies, tmp_path):
    "The real package reads every folder; only the sending is left out"
    pytest.importorskip('kagglesdk')
    r = subprocess.run([sys.executable, '-c', CLIENT, *map(str, copies[1])], capture_output=True, text=True, timeout=120,
        env={k: v for k,v in os.environ.items() if not k.startswith('KAGGLE_')} | dict(HOME=str(tmp_path), KAGGLE_CONFIG_DIR=str(tmp_path), KAGGLE_USERNAME='nobody', KAGGLE_KEY='none')) # its import wants to log in
    assert r.returncode == 0, r.stderr[-2000:]
    assert 'surprising' not in r.stdout
    got = json.loads(r.stdout.splitlines()[-1])
    assert [o[0] for o in got] == [metadata(o, copies[0])['id'] for o in CHAIN] and all(o[-1] < 1_000_000 for o in got)
    assert got[2][3] == 'NvidiaTeslaT4' and got[2][4] == [got[0][0], got[1][0]]

def test_wheels_folder_is_flat_and_said_so(tmp_path, monkeypatch):
    "pip is replaced: what it would fetch is written beside"
    def pip(*args):
        to = Path(args[args.index('-d' if '-d' in args else '-w') + 1])
        for o in ([f'cxr_llava=={VERSION}'] if args[0] == 'wheel' else NEED): wheel(to, *o.split('=='))
    monkeypatch.setattr('cxr_llava.core.push._pip', pip)
    d = build_wheels(KaggleConfig(owner='me'))
    assert not [o for o in d.iterdir() if o.is_dir()] and len(list(d.glob('*.whl'))) == 1 + len(NEED)
    m = json.loads((d/'dataset-metadata.json').read_text())
    assert 6 <= len(m['title']) <= 50 and 20 <= len(m['subtitle']) <= 80 and len(m['licenses']) == 1 and m['id'] == 'me/cxr-llava-wheels'
    monkeypatch.setattr('cxr_llava.core.push._pip', lambda *a: None)
    with pytest.raises(CXRError, match='holds wheels of'): build_wheels(KaggleConfig(owner='me'))

def test_owner(monkeypatch):
    monkeypatch.delenv('KAGGLE_USERNAME', raising=False)
    cfg = KaggleConfig()
    with pytest.raises(CXRError, match='--owner'): owner(cfg)
    build(cfg.replaced(owner='last', only='10_prompts'))
    assert owner(cfg) == 'last'
    monkeypatch.setenv('KAGGLE_USERNAME', 'ann')
    assert owner(cfg) == 'ann' and owner(cfg.replaced(owner='me')) == 'me'

# ---- a `kaggle` that behaves badly

@pytest.fixture
def play(tmp_path, monkeypatch):
    "A `kaggle` on the path; `play(code)` gives it a body that sees `args` and `n`, how often it was called before"
    def make(body):
        exe, log = tmp_path/'bin/kaggle', tmp_path/'calls.txt'
        exe.parent.mkdir(exist_ok=True)
        log.write_text('')
        exe.write_text(f'#!{sys.executable}\nimport sys, time, os\nargs = sys.argv[1:]\nn = sum(1 for _ in open({str(log)!r}))\n'
            f'open({str(log)!r}, "a").write(" ".join(args) + "\\n")\n' + textwrap.dedent(body))
        exe.chmod(exe.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv('PATH', f'{exe.parent}{os.pathsep}{os.environ["PATH"]}')
        monkeypatch.setenv('KAGGLE_CONFIG_DIR', str(tmp_path))
        for k in ('KAGGLE_KEY', 'KAGGLE_API_TOKEN', 'KAGGLE_USERNAME'): monkeypatch.delenv(k, raising=False)
        return lambda: log.read_text().splitlines()
    return make

PUSHED = 'print("Kernel version 1 successfully pushed.  Please check progress at https://www.kaggle.com/code/x")\n'

REFUSALS = ['print("Kernel push error: Maximum batch GPU session count of 2 reached.")', 'print("Kernel push error: Notebook not found")', 'print("Kernel push error: see previous output")',
    'print("Source file not found: x", file=sys.stderr); sys.exit(1)', 'print("<html><title>502 Bad Gateway</title></html>")', 'pass', 'sys.stdout.buffer.write(b"\\xff\\xfe")',
    'print("The following are not valid kernel sources and could not be added to the kernel: [\'me/cxr-llava-00-data\']"); ' + PUSHED]

@pytest.mark.parametrize('body', REFUSALS, ids=range(len(REFUSALS)))
def test_refusal_is_not_success(play, copies, body):
    play(body)
    with pytest.raises(CXRError) as e: push_folder(push.FOLDER/'10_prompts')
    assert '\n' not in str(e.value) and len(str(e.value)) < 500

def test_gpu_count_says_what_to_do(play, copies):
    play(REFUSALS[0])
    with pytest.raises(CXRError, match='stop one'): push_folder(push.FOLDER/'20_finetune')

@pytest.mark.parametrize('body', ['print("401 Client Error: Unauthorized for url"); sys.exit(1)', 'print("You must authenticate before you can call the Kaggle API."); sys.exit(1)',
    'print("Could not find kaggle.json. Make sure it is located in"); sys.exit(1)', 'print("403 - Missing credentials")'])
def test_no_credentials(play, copies, body):
    play(body)
    with pytest.raises(CXRError, match='access token'): push_folder(push.FOLDER/'10_prompts')

def test_hangs(play):
    play('time.sleep(60)')
    t = time.time()
    with pytest.raises(CXRError, match='did not answer'): kaggle('kernels', 'status', 'a/b', timeout=1)
    assert kaggle('kernels', 'status', 'a/b', timeout=1, check=False) == '' # while waiting for a notebook one silence is no failure
    assert time.time() - t < 30

def test_missing(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(sys, 'executable', str(tmp_path/'python'))
    with pytest.raises(CXRError, match='pip install kaggle'): kaggle('quota')

@pytest.mark.parametrize('code', [0, 1])
def test_token_is_never_shown(play, copies, capsys, monkeypatch, tmp_path, code):
    key, token, made = '0123456789abcdef'*2, 'KGAT_' + 'a'*20, 'plain-' + 'secret'
    play(f'print("using {key} {token} {made}"); sys.exit({code})')
    monkeypatch.setenv('KAGGLE_KEY', made)
    with pytest.raises(SystemExit): main(['push', '--owner', 'me', '--only', '10_prompts'])
    said = ''.join(capsys.readouterr())
    assert '***' in said and not [o for o in (key, token, made) if o in said]

def test_push_waits_for_the_one_before(play, tmp_path):
    calls = play('if args[1] == "push": ' + PUSHED + 'else: print(args[2], \'has status "KernelWorkerStatus.\' + ("RUNNING" if n < 3 else "COMPLETE") + \'"\')')
    assert main(['push', '--owner', 'me', '--only', '00_data,10_prompts']) == 0
    what = [o.split()[1] for o in calls()]
    assert what == ['push', 'status', 'status', 'status', 'push']

def test_push_stops_where_one_failed(play, tmp_path):
    calls = play('if args[1] == "push": ' + PUSHED + 'else: print(args[2], \'has status "error"\'); print(\'Failure message: "boom"\')')
    with pytest.raises(SystemExit): main(['push', '--owner', 'me'])
    assert [o.split()[1] for o in calls()] == ['push', 'status']

def test_waiting_survives_hiccups(play):
    calls = play('''
        if n in (0, 2): print("Connection reset"); sys.exit(1)
        elif n == 1: print("<html>")
        else: print('a/b has status "KernelWorkerStatus.COMPLETE"')''')
    wait_for('a/b')
    assert len(calls()) == 4

@pytest.mark.parametrize('answer', ['QUEUED', 'RUNNING'])
def test_waiting_ends(play, answer, monkeypatch):
    monkeypatch.setattr(push, 'POLL', .01)
    monkeypatch.setattr(push, 'PATIENCE', .001)
    play(f'print(\'a/b has status "KernelWorkerStatus.{answer}"\')')
    with pytest.raises(CXRError, match='has not finished'): wait_for('a/b')

@pytest.mark.parametrize('said,want', [('a/b has status "KernelWorkerStatus.CANCEL_ACKNOWLEDGED"', 'CANCEL_ACKNOWLEDGED'), ('a/b has status "complete"', 'COMPLETE'), ('nothing', 'UNKNOWN')])
def test_status_words(play, said, want):
    play(f'print({said!r})')
    assert status('a/b') == want

def test_pull(play, tmp_path, capsys):
    calls = play('''
        if args[1] == "status": print('x has status "KernelWorkerStatus.COMPLETE"')
        else: open(os.path.join(args[args.index("-p") + 1], "metrics.json"), "w").write("{}")''')
    assert main(['pull', '--owner', 'me', '--only', '30_eval']) == 0
    assert (tmp_path/'out/30_eval/output/metrics.json').exists() and calls()[-1].startswith('kernels output me/cxr-llava-30-eval') and '1 files' in capsys.readouterr().out

@pytest.mark.parametrize('state', ['RUNNING', 'COMPLETE'])
def test_pull_of_nothing(play, capsys, state):
    play(f'print(\'x has status "KernelWorkerStatus.{state}"\')')
    with pytest.raises(SystemExit): main(['pull', '--owner', 'me', '--only', '30_eval'])
    assert 'Nothing came' in capsys.readouterr().err

@pytest.mark.parametrize('there,want', [('print("ready")', 'version'), ('print("404 Client Error: Not Found"); sys.exit(1)', 'create')])
def test_wheels_are_made_or_renewed(play, tmp_path, there, want):
    calls = play(f'if args[1] == "status": {there}\nelse: print("Dataset version is being created. Please check progress at https://x")')
    wheel(tmp_path/'w', 'cxr_llava', VERSION)
    (tmp_path/'w/dataset-metadata.json').write_text(json.dumps(wheels_metadata(KaggleConfig(owner='me'))))
    push_wheels(tmp_path/'w')
    assert calls()[-1].split()[1] == want
    play(f'if args[1] == "status": {there}\nelse: print("Dataset creation error: no")')
    with pytest.raises(CXRError, match='not taken'): push_wheels(tmp_path/'w')

def test_unknown_notebook():
    with pytest.raises(CXRError, match='not one of'): chosen(KaggleConfig(only='41_panel'))

def test_kaggle_package_is_never_imported():
    "Its import logs in"
    r = subprocess.run([sys.executable, '-c', 'import sys, cxr_llava.core.push, cxr_llava.core.kaggle; assert "kaggle" not in sys.modules and "torch" not in sys.modules'], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr

# ---- what is attached

@pytest.mark.parametrize('at', ['models/owner/llava-1.5/transformers/7b-hf/1', 'llava-1.5/transformers/7b-hf/1', 'datasets/owner/llava-7b', 'llava-7b', 'notebooks/owner/my-base/model'])
def test_attached_base_model(tmp_path, monkeypatch, at):
    from cxr_llava.vlm.bases import attached_base
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path))
    d = tmp_path/'input'/at
    d.mkdir(parents=True)
    (d/'config.json').write_text(json.dumps(dict(model_type='llava', text_config=dict(num_hidden_layers=32))))
    assert attached_base('llava-1.5-7b') == d and attached_base('llava-1.5-13b') is None

@pytest.mark.parametrize('names,cap,word', [([], (0, 0), 'switch'), (['Tesla P100-PCIE-16GB'], (6, 0), 'too old'), (['Tesla T4']*2, (7, 5), 'one process on each'), (['NVIDIA L4']*4, (8, 9), 'bfloat16')])
def test_gpus_in_words(names, cap, word):
    from cxr_llava.core.kaggle import gpu_note
    assert word in gpu_note(names, cap)

def test_session_stops_on_a_card_that_is_too_old(monkeypatch):
    from cxr_llava.core import kaggle as k
    monkeypatch.setattr(k, 'gpus', lambda: k.gpu_note(['Tesla P100-PCIE-16GB'], (6, 0)))
    with pytest.raises(CXRError, match='T4 x2') as e: k.session()
    assert '\n' not in str(e.value)

def test_session_counts_from_its_container(tmp_path, monkeypatch):
    "Training starts an hour into the session: ten are left of eleven"
    from cxr_llava.core.kaggle import session_start
    monkeypatch.setenv('KAGGLE_KERNEL_RUN_TYPE', 'Interactive')
    monkeypatch.delenv('CXR_SESSION_START', raising=False)
    monkeypatch.setenv('CXR_KAGGLE_ROOT', '/kaggle')
    (tmp_path/'1').mkdir()
    (tmp_path/'stat').write_text(f'btime {int(time.time()) - 10_000}\n')
    (tmp_path/'1/stat').write_text('1 (python) S ' + '0 '*18 + str(6400*os.sysconf('SC_CLK_TCK')) + ' 0')
    assert abs(time.time() - session_start(tmp_path) - 3600) < 30
    monkeypatch.delenv('KAGGLE_KERNEL_RUN_TYPE')
    assert abs(time.time() - session_start(tmp_path)) < 30

@pytest.mark.parametrize('text', ['abc', 'nan', 'inf'])
def test_a_session_start_that_is_no_time(monkeypatch, text):
    from cxr_llava.core.kaggle import session_start
    monkeypatch.setenv('CXR_SESSION_START', text)
    with pytest.raises(CXRError, match=f'CXR_SESSION_START must be a time in seconds.*`{text}`'): session_start()

@pytest.mark.parametrize('at,files,told', [('datasets/o/my-scans', ['a.nii'], True), ('my-scans', ['a.nii'], True), ('cxr-llava-wheels', ['cxr_llava-1-py3-none-any.whl'], False),
    ('models/o/llava/transformers/7b/1', ['config.json', 'model.safetensors'], False), ('notebooks/o/other', ['x.txt'], False)])
def test_unknown_data_set_is_named(tmp_path, monkeypatch, capsys, at, files, told):
    "Phantoms are never drawn in silence over data somebody attached"
    from cxr_llava.sources.collections import find_source
    monkeypatch.setenv('CXR_KAGGLE_ROOT', str(tmp_path))
    for o in files:
        (tmp_path/'input'/at).mkdir(parents=True, exist_ok=True)
        (tmp_path/'input'/at/o).write_text('{}')
    assert find_source() == ('phantom', None)
    assert ('my-scans' in capsys.readouterr().out) is told

def test_a_folder_that_cannot_be_made(tmp_path, capsys, monkeypatch):
    (tmp_path/'file').write_text('')
    monkeypatch.setattr(push, 'FOLDER', tmp_path/'file'/'below')
    with pytest.raises(SystemExit) as e: main(['build', '--owner', 'me'])
    assert e.value.code == 2 and re.search(r'^error: Cannot write ', capsys.readouterr().err, re.M)

@pytest.mark.skipif(not os.path.isdir('/proc'), reason='there is no folder here in which none can be made')
def test_a_folder_where_none_can_be_made(capsys, monkeypatch):
    monkeypatch.setattr(push, 'FOLDER', Path('/proc/none'))
    with pytest.raises(SystemExit) as e: main(['build', '--owner', 'me'])
    assert e.value.code == 2 and 'error: Cannot write /proc/none' in capsys.readouterr().err
