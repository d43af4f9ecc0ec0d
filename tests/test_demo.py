"The panel, pressed from code: a stand-in model, no browser, no weights"
import base64, json, re, time
from datetime import datetime
import pytest
from PIL import Image
from cxr_llava.stages import CXRError
from cxr_llava.model import Report
from cxr_llava.panel import NOTICE, report_card
from cxr_llava.demo import DemoConfig, ReportPanel, ask, demo_notebook, main
from cxr_llava.phantom import phantom_xray

TEXT = 'FINDINGS:\nThere is a left pleural effusion. No pneumothorax.\n\nIMPRESSION:\nLeft pleural effusion.'

class Fake:
    "Writes one word after another, like a model"
    info = dict(base='tiny', adapter_hash='0123abcd')
    def __init__(self, delay=.001, fail=None): self.delay, self.fail, self.last, self.busy = delay, fail, None, 0
    def _write(self, text, q, stop):
        assert not self.busy, 'two texts at once'
        self.busy, done = 1, ''
        try:
            for word in re.findall(r'\S+\s*', text):
                if self.fail: raise self.fail
                if stop is not None and stop.is_set(): break
                time.sleep(self.delay)
                done += word
                yield word
            self.last = Report(done.strip(), done == text, q, dict(self.info, adapter='/somewhere/adapter'))
        finally: self.busy = 0
    def stream(self, src, indication=None, max_new_tokens=None, stop=None): return self._write(TEXT, 'report', stop)
    def chat(self, src, question, history=(), max_new_tokens=None, stop=None): return self._write(f'{len(history)} turns before {question}', question, stop)
    def generate_report(self, src): return Report(TEXT)
    def ask(self, src, question): return 'Yes.'

@pytest.fixture
def folder(tmp_path):
    phantom_xray(1, 128).save(tmp_path/'one.png')
    (tmp_path/'sub').mkdir()
    phantom_xray(2, 128).save(tmp_path/'sub/two.png')
    return tmp_path

@pytest.fixture
def panel(folder): return ReportPanel(Fake(), folder)

def upload(p, name, data): p.w.upload.value = (dict(name=name, type='', size=len(data), content=data, last_modified=datetime.now()),)

def png(tmp_path, seed=3):
    phantom_xray(seed, 96).save(tmp_path/'x.png')
    return (tmp_path/'x.png').read_bytes()

def files(p): return [base64.b64decode(o).decode() for o in re.findall('base64,([^"]+)', p.w.links.value)]

def test_ask():
    assert ask('x', model=Fake()).text == TEXT
    assert ask('x', 'Effusion?', Fake()) == 'Yes.'

def test_generate_edit_save(panel):
    panel.choose_example('Left effusion')
    assert panel.record() is None and files(panel) == []
    panel.w.go.click()
    assert panel.wait() and panel.error is None
    assert panel.w.findings.value.startswith('There is a left') and panel.w.impression.value == 'Left pleural effusion.'
    assert 'pleural effusion' in panel.w.chips.value and 'Reported absent: pneumothorax' in panel.w.chips.value
    txt, js = files(panel)
    assert NOTICE in txt and json.loads(js)['disclaimer'] == NOTICE and not json.loads(js)['edited']
    assert '/somewhere' not in js and json.loads(js)['provenance']['adapter'] == 'adapter'
    panel.w.impression.value = 'Edema.'
    txt, js = files(panel)
    assert 'EDITED BY HAND' in txt and json.loads(js)['generated'] == TEXT and json.loads(js)['labels']['Edema'] == 1

def test_without_xray_or_question(panel):
    panel.w.go.click()
    assert 'no X-ray yet' in panel.w.status.value
    panel.w.ask.click()
    assert 'no X-ray yet' in panel.w.status.value
    panel.choose_example('Normal')
    panel.w.ask.click()
    assert 'question is empty' in panel.w.status.value

def test_questions_with_history(panel):
    panel.choose_example('Normal')
    panel.w.go.click(); panel.wait()
    for q in ('First?', '<img src=x onerror=alert(1)>'):
        panel.w.question.value = q
        panel.w.ask.click(); panel.wait()
    assert [a[:1] for _,a in panel.turns] == ['1', '2'] and panel.w.question.value == ''
    assert '<img' not in panel.w.log.value and len(json.loads(files(panel)[1])['questions']) == 2

def test_bad_then_good_upload(panel, tmp_path):
    upload(panel, '<i>bad.png', b'%PDF-1.4')
    assert 'PDF' in panel.w.status.value and '<i>' not in panel.w.status.value and panel.xray is None and not panel.w.upload.value
    upload(panel, '<i>good.png', png(tmp_path))
    assert panel.name == '<i>good.png' and '<i>' not in panel.w.film.value
    upload(panel, 'empty.png', b'')
    assert 'empty' in panel.w.status.value and panel.name == '<i>good.png'
    panel.w.go.click(); panel.wait()
    assert panel.report.text == TEXT

def test_notes_of_the_reader(panel, tmp_path):
    Image.effect_noise((96, 96), 90).convert('RGB').point(lambda v: v).save(tmp_path/'n.png')
    im = Image.merge('RGB', [Image.new('L', (96, 96), v) for v in (250, 20, 20)])
    im.save(tmp_path/'red.png')
    panel.go_to(str(tmp_path/'red.png'))
    assert 'Note: colour' in panel.w.film.value

def test_folder(panel, folder):
    assert list(panel.w.files.options) == ['sub/', 'one.png']
    panel.w.files.value = 'sub/'
    panel.w.open.click()
    panel.w.files.value = 'two.png'
    panel.w.open.click()
    assert panel.name == 'two.png'
    panel.w.up.click()
    assert panel.folder == folder.resolve()
    panel.safely(panel.go_to, 'nowhere')
    assert 'does not exist' in panel.w.status.value and panel.name == 'two.png'

def test_folder_is_not_left_in_a_web_app(folder):
    p = ReportPanel(Fake(), folder/'sub', browse=False)
    p.w.up.click()
    assert 'outside' in p.w.status.value and str(folder) not in p.w.path.value
    (folder/'sub/link').symlink_to(folder)
    for name in ('../one.png', str(folder/'one.png'), 'link/'):
        p.safely(p.go_to, name)
        assert p.xray is None and p.folder == (folder/'sub').resolve()

def test_stop(folder):
    p = ReportPanel(Fake(.05), folder)
    p.choose_example('Normal')
    p.w.go.click()
    time.sleep(.2)
    t = time.time()
    p.w.stop.click()
    assert p.wait(5) and time.time() - t < 1
    assert 'stopped before its end' in p.w.status.value and not p.report.stopped and not p.w.go.disabled
    assert 'did not finish' in files(p)[0]

def test_another_xray_while_writing(folder):
    p = ReportPanel(Fake(.02), folder)
    p.choose_example('Normal')
    p.w.go.click()
    time.sleep(.1)
    p.choose_example('Edema')
    p.w.go.click()
    assert p.wait(10) and p.error is None and p.report.text == TEXT and p.name == 'Phantom: edema'

def test_new_xray_clears_everything(panel):
    panel.choose_example('Normal')
    panel.w.go.click(); panel.wait()
    panel.choose_example('Edema')
    assert (panel.report, panel.turns, panel.w.findings.value, panel.w.links.value, panel.w.chips.value) == (None, [], '', '', '')

@pytest.mark.parametrize('e,words', [(CXRError('The adapter is missing.'), 'The adapter is missing.'), (RuntimeError('/secret/path'), 'RuntimeError'), (MemoryError(), 'not enough memory')])
def test_failures_become_a_sentence(folder, e, words):
    p = ReportPanel(Fake(fail=e), folder)
    p.choose_example('Normal')
    p.w.go.click(); p.wait()
    assert words in p.w.status.value and '/secret' not in p.w.status.value and p.error is e and not p.w.go.disabled
    p.model.fail = None
    p.w.go.click(); p.wait()
    assert p.report.text == TEXT

def test_batch_makes_no_widget(folder, monkeypatch, capsys):
    monkeypatch.setenv('KAGGLE_KERNEL_RUN_TYPE', 'Batch')
    p = ReportPanel(Fake(), folder)
    p._ipython_display_()
    assert p._w is None

def test_card_escapes():
    card = report_card(phantom_xray(1, 64), Report('FINDINGS:\n<script>x</script>', False, provenance=dict(base='<b>')), '"><i>')
    assert '<script>' not in card and '<b>' not in card and '<i>' not in card and NOTICE in card

def test_command(folder, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e: main(['--folders', 'x'])
    assert e.value.code == 2
    monkeypatch.setattr('importlib.util.find_spec', lambda name, *a: None)
    with pytest.raises(SystemExit) as e: main([])
    assert e.value.code == 2 and 'pip install' in capsys.readouterr().err
    src = demo_notebook(DemoConfig(folder=str(folder), local_model="it's"))['cells'][0]['source']
    compile(src, 'panel', 'exec')
    assert 'web_panel(' in src and str(folder) in src
