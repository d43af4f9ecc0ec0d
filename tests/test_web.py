"The web pages' functions, without a browser"
import json, os, threading, time
import pytest
from cxr_llava.core.files import CXRError
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.panel.gradio import (
    check_share, demo_notebook, DemoConfig, launch_options, looks_credentialed, main, sweep,
    voila_command, voila_env, web_ask, web_choose, web_edit, web_generate, web_look, web_panel,
    web_rate, web_read, while_shown, writing)
from standin import BASE, TEXT, Standin

def test_command(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e: main(['--folders', 'x'])
    assert e.value.code == 2
    monkeypatch.setattr('cxr_llava.panel.gradio.find_spec', lambda name, *a: None)
    for argv in ([], ['--share'], ['--app', 'gradio']):
        with pytest.raises(SystemExit) as e: main(argv)
        assert e.value.code == 2 and 'pip install "cxr_llava[web]"' in capsys.readouterr().err
    src = demo_notebook(DemoConfig(folder=str(tmp_path), local_model="it's"))['cells'][0]['source']
    compile(src, 'panel', 'exec')
    assert 'web_panel(' in src and str(tmp_path) in src

def test_a_model_that_fails_is_a_sentence_on_the_page(): assert 'no adapter folder' in web_panel('nowhere/at/all').data

def test_local_only():
    o = launch_options(DemoConfig(), 'pw')
    assert o['server_name'] == '127.0.0.1' and not o['share'] and o['auth'] and o['allowed_paths'] == []
    assert '--Voila.ip=127.0.0.1' in voila_command('x', 1)

def test_sharing_is_warned_about_and_refused_for_mimic(tmp_path, capsys):
    check_share(DemoConfig(share=True, run=str(tmp_path)))
    assert 'Warning' in capsys.readouterr().out
    for d in ('mimic-cxr', 'files/p10/p1' + '0000032'):
        with pytest.raises(CXRError, match='forbids'): check_share(DemoConfig(share=True, local_model=str(tmp_path/d), run=str(tmp_path)))
    import pandas as pd
    pd.DataFrame([dict(source='mimic')]).to_parquet(tmp_path/'studies.parquet')
    with pytest.raises(CXRError, match='manifest'): check_share(DemoConfig(share=True, run=str(tmp_path)))
    (tmp_path/'x').mkdir()
    name = '-'.join(['0a1b2c3d']*5) + '.jpg'
    phantom_xray(1, 64).save(tmp_path/'x'/name)
    with pytest.raises(CXRError, match='forbids'): check_share(DemoConfig(share=True, folder=str(tmp_path/'x'), run='nowhere'))
    with pytest.raises(CXRError, match='MIMIC'): web_read([tmp_path/'x'/name], shared=True)
    assert not (tmp_path/'x'/name).exists()

def test_uploads_are_swept(tmp_path):
    for name,age in (('old', 100), ('new', 0)):
        (tmp_path/name).write_bytes(b'x')
        os.utime(tmp_path/name, (time.time() - age,)*2)
    sweep(tmp_path), sweep(None)
    assert [o.name for o in tmp_path.iterdir()] == ['new']

def test_not_credentialed(tmp_path): assert not looks_credentialed(tmp_path, 'runs/adapter', '', None, 'owner/name', 'p1000')

def test_template_is_found(tmp_path):
    pytest.importorskip('voila')
    env = voila_env(tmp_path)
    assert env['JUPYTER_PATH'].startswith(str(tmp_path)) and 'cdn' in (tmp_path/'voila/templates/cxr/index.html.j2').read_text()

def last(steps):
    got = {}
    for o in steps: got.update(o)
    return got

def test_gradio_job(tmp_path):
    m, case = Standin(), web_choose('Left effusion')['case']
    got = last(web_generate(m, case))
    assert got['findings'].startswith('There is') and 'DICOM SR' in got['result'] and 'Reference' in got['compared']
    assert 'Untuned base' in last(web_generate(m, case, tuned=False))['compared'] and case.base.text == BASE and case.report.text == TEXT
    assert '1 turns before Where?' in last(web_ask(m, case, 'Where?'))['log']
    assert 'Edited by hand' in web_edit(case, 'Mine.', '')['result']

def test_gradio_doubts_and_evidence():
    m, case = Standin(), web_choose('Large heart')['case']
    assert 'no report yet' in last(web_rate(m, case))['status'] and case.choices == [('No overlay', -1)]
    assert len(last(web_generate(m, case))['choices']) == len(case.report.sentences) + 1
    assert 'unsure' in last(web_rate(m, case))['result']
    flag = threading.Event()
    flag.set()
    assert 'stopped' in last(web_rate(m, case, flag))['status'] and case.sure # what was known stays
    plain, steps = last(web_look(m, case, 0, 255, False))['film'], list(web_look(m, case, 0, 255, False, 0))
    assert 'not proof' in steps[-2]['status'] and steps[-1]['film'] != plain and len(case.heat[0]) == 2
    assert list(web_look(m, case, 0, 255, False, 0, 0)) == [dict(film=plain)] # not computed again; unseen at opacity 0
    assert web_choose('Normal', look=(0, 255, True))['film'] != web_choose('Normal')['film']

def test_gradio_failures_are_sentences(tmp_path):
    (tmp_path/'bad.png').write_bytes(b'%PDF-1.4')
    assert 'PDF' in web_choose([tmp_path/'bad.png'])['status'] and not (tmp_path/'bad.png').exists()
    assert 'no X-ray' in last(web_generate(Standin(), None))['status'] and 'no X-ray' in last(web_ask(Standin(), None, 'x'))['status']
    case = web_choose('Normal')['case']
    assert 'question is empty' in last(web_ask(Standin(), case, ' '))['status']
    s = last(web_generate(Standin(fail=RuntimeError('/secret')), case))['status']
    assert 'RuntimeError' in s and '/secret' not in s
    assert last(web_generate(Standin(), case))['findings']

def test_stop_and_visitors_who_leave():
    m, case, flag = Standin(.05), web_choose('Normal')['case'], threading.Event()
    steps = web_generate(m, case, flag=flag)
    next(steps); flag.set()
    assert last(steps)['case'].report.stopped is False
    left = writing(lambda: m.stream(None))
    next(left); left.close()
    assert [o for o in writing(lambda: m.stream(None))][-1].text == TEXT # the next visitor waits for the text nobody reads, then is served

def test_gradio_page_is_built():
    gr = pytest.importorskip('gradio')
    from cxr_llava.panel.gradio import gradio_app
    app, look = gradio_app(Standin())
    text = json.dumps(app.get_config_file(), default=str)
    assert 'Generate report' in text and 'fonts.googleapis' not in text and app.analytics_enabled is False and app.delete_cache == (600, 3600)

def test_the_page_keeps_the_report_of_its_own_text():
    class Shared(Standin):
        def _write(self, *args):
            rep = yield from super()._write(*args)
            self.last = None # what another thread may do
            return rep
    case = web_choose('Normal')['case']
    assert last(web_generate(Shared(), case))['findings'] and case.report.text == TEXT
    flag = threading.Event()
    flag.set()
    assert last(web_generate(Standin(), case, flag=flag))['findings'] and case.report.text == TEXT # stopped before its first word

def test_another_xray_while_a_text_is_written():
    m, case, flag = Standin(.05), web_choose('Normal')['case'], threading.Event()
    steps = while_shown(case, web_generate(m, case, flag=flag), flag)
    assert next(steps)
    assert 'no file' in web_choose([], old=case)['status'] and next(steps)
    assert web_choose('Edema', old=case)['case'] is not case and list(steps) == [] and flag.is_set()

def test_a_second_report_that_fails_leaves_the_first():
    class Fails(Standin):
        def stream(self, *args, **kw):
            yield 'FINDINGS:\nHalf a text'
            raise MemoryError
    case = web_choose('Normal')['case']
    list(web_generate(Standin(), case)), web_edit(case, 'Mine.', '')
    got = last(web_generate(Fails(), case))
    assert got['findings'] == 'Mine.' and 'not enough memory' in got['status'] and case.report.text == TEXT
