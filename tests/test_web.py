"The web pages' functions, without a browser"
import json, os, threading, time
import pytest
from cxr_llava.core.files import CXRError
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.panel.gradio import (
    action_event, as_event, check_share, demo_notebook, DemoConfig, launch_options, looks_credentialed, main, PARTS,
    read_uploads, sweep, voila_command, voila_env, web_panel)
from cxr_llava.panel.session import Session, View, writing
from standin import BASE, TEXT, Standin

def test_command(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e: main(['--folders', 'x'])
    assert e.value.code == 2
    monkeypatch.setattr('cxr_llava.panel.gradio.find_spec', lambda name, *a: None)
    for argv in ([], ['--share']):
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
    with pytest.raises(CXRError, match='MIMIC'): read_uploads([tmp_path/'x'/name], shared=True)
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

def begin(model=None, name='Normal'):
    "A visitor's session with an example on the page"
    session = Session(model or Standin(), keep=1)
    return session, last(session.choose_example(name))

def last(updates):
    "All that a face shows in the end"
    got = {}
    for o in updates: got.update(o.parts)
    return got

def test_gradio_job(tmp_path):
    session, _ = begin(name='Left effusion')
    got = last(session.report())
    assert got['findings'].startswith('There is') and 'Save as Page' in got['links'] and 'Reference' in got['compared']
    assert 'Untuned base' in last(session.base())['base_text'] and session.case.base.text == BASE and session.case.report.text == TEXT
    assert '1 turns before Where?' in last(session.ask('Where?'))['log']
    assert 'Edited by hand' in last(session.edit('Mine.', ''))['links']

def test_gradio_doubts_and_evidence():
    session, shown = begin(name='Large heart')
    assert 'no report yet' in last(session.rate())['status'] and shown['evidence'].options == [('No overlay', -1)]
    assert len(last(session.report())['evidence'].options) == len(session.case.report.sentences) + 1
    assert 'unsure' in last(session.rate())['doubts']
    certainty = session.model.certainty
    session.model.certainty = lambda *args, stop: stop.set() or certainty(*args)
    assert 'stopped' in last(session.rate())['status'] and session.case.sure # what was known stays
    plain, updates = last(session.look(View()))['viewer'], list(session.look(View(sentence=0)))
    assert 'not proof' in updates[-1].parts['status'] and updates[-1].parts['viewer'] != plain and len(session.case.heat[0]) == 2
    again = list(session.look(View(sentence=0, opacity=0)))
    assert len(again) == 1 and again[0].parts['viewer'] == plain # not computed again; unseen at opacity 0
    last(session.look(View(invert=True)))
    assert last(session.choose_example('Normal'))['viewer'] != begin()[1]['viewer'] # the next X-ray is looked at in the same way

def test_gradio_failures_are_sentences(tmp_path):
    (tmp_path/'bad.png').write_bytes(b'%PDF-1.4')
    session = Session(Standin())
    assert 'PDF' in last(session.take_study(lambda: read_uploads([tmp_path/'bad.png'])))['status'] and not (tmp_path/'bad.png').exists()
    assert 'no X-ray' in last(session.report())['status'] and 'no X-ray' in last(session.ask('x'))['status']
    session, _ = begin(Standin(fail=RuntimeError('/secret')))
    assert 'question is empty' in last(session.ask(' '))['status']
    s = last(session.report())['status']
    assert 'RuntimeError' in s and '/secret' not in s
    session.model.fail = None
    assert last(session.report())['findings']

def test_stop_and_visitors_who_leave():
    session, _ = begin(Standin(.05))
    updates = session.report()
    next(updates); next(updates); session.stop()
    assert last(updates)['findings'] and session.case.report.stopped is False
    left = session.report()
    next(left); next(left); left.close()
    assert not session.busy # and the model stops
    m = Standin(.05)
    left = writing(lambda: m.stream(None))
    next(left); left.close()
    assert [o for o in writing(lambda: m.stream(None))][-1].text == TEXT # the next visitor waits for the text nobody reads, then is served

def test_gradio_page_is_built():
    gr = pytest.importorskip('gradio')
    from cxr_llava.panel.gradio import gradio_app
    app, look = gradio_app(Standin())
    text = json.dumps(app.get_config_file(), default=str)
    assert 'Generate report' in text and 'fonts.googleapis' not in text and app.analytics_enabled is False and app.delete_cache == (600, 3600)

def test_gradio_events():
    pytest.importorskip('gradio')
    session, _ = begin()
    *_, values = action_event('report', ['indication'])(session, 'Fever')
    assert dict(zip(PARTS, values))['impression'] == 'Left pleural effusion.' and session.case.indication == 'Fever'
    old = session.report()
    late = next(old)
    last(session.choose_example('Edema'))
    assert late.late and list(as_event(lambda session: [late])(session)) == []

def test_the_page_keeps_the_report_of_its_own_text():
    class Shared(Standin):
        def _write(self, *args):
            rep = yield from super()._write(*args)
            self.last = None # what another thread may do
            return rep
    session, _ = begin(Shared())
    assert last(session.report())['findings'] and session.case.report.text == TEXT
    updates = session.report()
    next(updates); session.stop()
    assert last(updates)['findings'] and session.case.report.text == TEXT # stopped before its first word

def test_another_xray_while_a_text_is_written():
    session, _ = begin(Standin(.05))
    updates, case = session.report(), session.case
    flag = next(updates).job
    assert 'no file' in last(session.take_study(lambda: read_uploads([])))['status'] and next(updates)
    last(session.choose_example('Edema'))
    assert session.case is not case and list(updates) == [] and flag.is_set() and case.report is None

def test_what_is_typed_meanwhile_is_not_lost():
    session, _ = begin()
    last(session.report())
    updates = session.base()
    next(updates)
    last(session.edit('Mine.', 'Typed while the base writes.'))
    assert last(updates)['impression'] == 'Typed while the base writes.'
    updates = session.report()
    next(updates)
    last(session.edit('Half a text', '', 'A reference.'))
    assert last(updates)['findings'].startswith('There is') and session.case.reference == 'A reference.'

def test_a_second_report_that_fails_leaves_the_first():
    class Fails(Standin):
        def stream(self, *args, **kw):
            yield 'FINDINGS:\nHalf a text'
            raise MemoryError
    session, _ = begin()
    last(session.report()), last(session.edit('Mine.', ''))
    session.model = Fails()
    got = last(session.report())
    assert got['findings'] == 'Mine.' and 'not enough memory' in got['status'] and session.case.report.text == TEXT
