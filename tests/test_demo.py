"The panel, pressed from code: a stand-in model, no browser, no weights"
import base64, html, io, json, re, struct, time, zlib
from datetime import datetime
import numpy as np
import pytest
from PIL import Image
from cxr_llava.core.files import CXRError
from cxr_llava.vlm.bases import tiny_adapter
from cxr_llava.vlm.generate import Report
from cxr_llava.vlm.load import load_model
from cxr_llava.panel.parts import NOTICE, report_card
from cxr_llava.panel.session import ONE, read_study
from cxr_llava.panel.widgets import ask, ReportPanel
from cxr_llava.xray.drawing import phantom_xray
from standin import BASE, TEXT, Standin

@pytest.fixture
def folder(tmp_path):
    phantom_xray(1, 128).save(tmp_path/'one.png')
    (tmp_path/'sub').mkdir()
    phantom_xray(2, 128).save(tmp_path/'sub/two.png')
    return tmp_path

@pytest.fixture
def panel(folder): return ReportPanel(Standin(), folder)

def upload(p, name, data): p.w.upload.value = (dict(name=name, type='', size=len(data), content=data, last_modified=datetime.now()),)

def png(tmp_path, seed=3):
    phantom_xray(seed, 96).save(tmp_path/'x.png')
    return (tmp_path/'x.png').read_bytes()

def raw(p): return [base64.b64decode(o) for o in re.findall('base64,([^"]+)', p.w.links.value)]

def files(p): return [o.decode() for o in raw(p)[:2]]

def example(p, name): p.run(p.session.choose_example(name))

def go_to(p, path): p.run(p.session.go_to(path))

def set_xray(p, srcs, names): p.run(p.session.take_study(lambda: read_study(srcs, names)))

def test_ask():
    assert ask('x', model=Standin()).text == TEXT
    assert ask('x', 'Effusion?', Standin()) == 'Yes.'

def test_which_model_answers(monkeypatch, tmp_path, capsys):
    from cxr_llava.panel import widgets as demo
    from cxr_llava.vlm import load as model
    asked, bare = [], Standin()
    monkeypatch.setattr(demo, '_LOADED', {})
    monkeypatch.setattr(model, 'default_base', lambda: 'tiny')
    own = demo.demo_model(run=str(tmp_path))
    assert own.info['base'] == 'tiny' and own.info['adapter_hash'] and 'no adapter found' not in capsys.readouterr().out
    bare.info = dict(base='llava-1.5-7b')
    monkeypatch.setattr(demo, 'load_model', lambda lora, base: asked.append((lora and lora.split('/')[-1], base)) or (Standin() if lora else bare))
    for kw in (dict(), dict(base='tiny'), dict(lora_repo='some/where'), dict(base='tiny')): demo.demo_model(run=str(tmp_path), **kw)
    assert asked == [(None, 'tiny'), ('where', None)] # each loaded once
    assert capsys.readouterr().out.count('no adapter found') == 1

def test_generate_edit_save(panel):
    example(panel, 'Left effusion')
    assert panel.session.record() is None and files(panel) == []
    panel.w.report.click()
    assert panel.wait() and panel.session.error is None
    assert panel.w.findings.value.startswith('There is a left') and panel.w.impression.value == 'Left pleural effusion.'
    assert 'pleural effusion' in panel.w.chips.value and 'Reported absent: pneumothorax' in panel.w.chips.value
    txt, js = files(panel)
    assert NOTICE in txt and json.loads(js)['disclaimer'] == NOTICE and not json.loads(js)['edited']
    assert '/somewhere' not in js and json.loads(js)['provenance']['adapter'] == 'adapter'
    panel.w.impression.value = 'Edema.'
    txt, js = files(panel)
    assert 'EDITED BY HAND' in txt and json.loads(js)['generated'] == TEXT and json.loads(js)['labels']['Edema'] == 1

def test_without_xray_or_question(panel):
    panel.w.report.click()
    assert 'no X-ray yet' in panel.w.status.value
    panel.w.ask.click()
    assert 'no X-ray yet' in panel.w.status.value
    example(panel, 'Normal')
    panel.w.ask.click()
    assert 'question is empty' in panel.w.status.value

def test_questions_with_history(panel):
    example(panel, 'Normal')
    panel.w.report.click(); panel.wait()
    for q in ('First?', '<img src=x onerror=alert(1)>'):
        panel.w.question.value = q
        panel.w.ask.click(); panel.wait()
    assert [a[:1] for _,a in panel.session.case.turns] == ['1', '2'] and panel.w.question.value == ''
    assert '<img' not in panel.w.log.value and len(json.loads(files(panel)[1])['questions']) == 2

def test_bad_then_good_upload(panel, tmp_path):
    upload(panel, '<i>bad.png', b'%PDF-1.4')
    assert 'PDF' in panel.w.status.value and '<i>' not in panel.w.status.value and panel.session.case is None and not panel.w.upload.value
    upload(panel, '<i>good.png', png(tmp_path))
    assert panel.session.case.names[0] == '<i>good.png' and '<i>' not in panel.w.viewer.value
    upload(panel, 'empty.png', b'')
    assert 'empty' in panel.w.status.value and panel.session.case.names[0] == '<i>good.png'
    panel.w.report.click(); panel.wait()
    assert panel.session.case.report.text == TEXT

def bomb(n):
    "A tiny PNG of n x n black pixels"
    rows = zlib.compressobj(9)
    data = b''.join(rows.compress(bytes(n + 1)) for _ in range(n)) + rows.flush()
    chunk = lambda kind, o: struct.pack('>I', len(o)) + kind + o + struct.pack('>I', zlib.crc32(kind + o))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', n, n, 8, 0, 0, 0, 0)) + chunk(b'IDAT', data) + chunk(b'IEND', b'')

def saved(im, kind='PNG', **kw):
    f = io.BytesIO()
    im.save(f, kind, **kw)
    return f.getvalue()

def dicom(frames=1):
    "A DICOM file with that many frames; with none it has no pixels"
    from pydicom import Dataset, FileMetaDataset, dcmwrite
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    a, ds, f = np.asarray(phantom_xray(5, 96)), Dataset(), io.BytesIO()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = '1.2.840.10008.5.1.4.1.1.1.1', generate_uid(), 'DX'
    if frames:
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = *a.shape, 1, 'MONOCHROME2', 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.NumberOfFrames, ds.PixelData = 8, 8, 7, frames, a.tobytes()*frames
        if a.size*frames % 2: ds.PixelData += b'\0'
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, ds.SOPClassUID, ds.SOPInstanceUID
    dcmwrite(f, ds, enforce_file_format=True)
    return f.getvalue()

def test_hostile_files_are_a_sentence_and_the_session_goes_on(panel):
    g = phantom_xray(3, 128)
    bad = {'text.png': (b'hello\n'*50, 'picture format'), 'one.png': (saved(Image.new('L', (1, 1))), '1 x 1'), 'bomb.png': (bomb(20000), 'megapixels'),
        'a.gif': (saved(g, 'GIF', save_all=True, append_images=[g.rotate(9)]), 'GIF'), 'none.dcm': (dicom(0), 'without a picture')}
    example(panel, 'Normal')
    for name,(data,says) in bad.items():
        upload(panel, name, data)
        assert says in panel.w.status.value and name in panel.w.status.value and panel.w.status.value.count('<') == 2, name
        assert panel.session.case.names[0].startswith('Phantom') and not panel.w.upload.value, name
    deep = Image.fromarray(np.asarray(g).astype(np.uint16)*200)
    good = {'film.dcm': (dicom(5), '5 frames'), 'alpha.png': (saved(Image.merge('RGBA', [g, g, g, Image.new('L', g.size, 200)])), 'transparent'),
        'deep.png': (saved(deep), ''), 'Röntgen_患者 №7.png': (saved(g), ''), '"><script>hacked()</script>.png': (saved(g), '')}
    for name,(data,note) in good.items():
        upload(panel, name, data)
        assert panel.session.case.names == [name] and note in panel.w.viewer.value and '<script' not in panel.w.viewer.value, name
    panel.w.report.click(); panel.wait()
    assert panel.session.case.report.text == TEXT

def test_notes_of_the_reader(panel, tmp_path):
    Image.effect_noise((96, 96), 90).convert('RGB').point(lambda v: v).save(tmp_path/'n.png')
    im = Image.merge('RGB', [Image.new('L', (96, 96), v) for v in (250, 20, 20)])
    im.save(tmp_path/'red.png')
    go_to(panel, str(tmp_path/'red.png'))
    assert 'Note: colour' in panel.w.viewer.value

def test_folder(panel, folder):
    assert list(panel.w.files.options) == ['sub/', 'one.png']
    panel.w.files.value = 'sub/'
    panel.w.open.click()
    panel.w.files.value = 'two.png'
    panel.w.open.click()
    assert panel.session.case.names[0] == 'two.png'
    panel.w.up.click()
    assert panel.session.folder == folder.resolve()
    go_to(panel, 'nowhere')
    assert 'does not exist' in panel.w.status.value and panel.session.case.names[0] == 'two.png'

def test_folder_is_not_left_in_a_web_app(folder):
    p = ReportPanel(Standin(), folder/'sub', browse=False)
    p.w.up.click()
    assert 'outside' in p.w.status.value and str(folder) not in p.w.path.value
    (folder/'sub/link').symlink_to(folder)
    for name in ('../one.png', str(folder/'one.png'), 'link/'):
        go_to(p, name)
        assert p.session.case is None and p.session.folder == (folder/'sub').resolve()

def test_stop(folder):
    p = ReportPanel(Standin(.05), folder)
    example(p, 'Normal')
    p.w.report.click()
    time.sleep(.2)
    t = time.time()
    p.w.stop.click()
    assert p.wait(5) and time.time() - t < 1
    assert 'stopped before its end' in p.w.status.value and not p.session.case.report.stopped and not p.w.report.disabled
    assert 'did not finish' in files(p)[0]

def test_another_xray_while_writing(folder):
    p = ReportPanel(Standin(.02), folder)
    example(p, 'Normal')
    p.w.report.click()
    time.sleep(.1)
    example(p, 'Edema')
    p.w.report.click()
    assert p.wait(10) and p.session.error is None and p.session.case.report.text == TEXT and p.session.case.names[0] == 'Phantom: edema'

def test_new_xray_clears_everything(panel):
    example(panel, 'Normal')
    panel.w.report.click(); panel.wait()
    example(panel, 'Edema')
    assert (panel.session.case.report, panel.session.case.turns, panel.w.findings.value, panel.w.links.value, panel.w.chips.value) == (None, [], '', '', '')

@pytest.mark.parametrize('e,words', [(CXRError('The adapter is missing.'), 'The adapter is missing.'), (RuntimeError('/secret/path'), 'RuntimeError'), (MemoryError(), 'not enough memory')])
def test_failures_become_a_sentence(folder, e, words):
    p = ReportPanel(Standin(fail=e), folder)
    example(p, 'Normal')
    p.w.report.click(); p.wait()
    assert words in p.w.status.value and '/secret' not in p.w.status.value and p.session.error is e and not p.w.report.disabled
    p.session.model.fail = None
    p.w.report.click(); p.wait()
    assert p.session.case.report.text == TEXT

def test_batch_makes_no_widget(folder, monkeypatch, capsys):
    monkeypatch.setenv('KAGGLE_KERNEL_RUN_TYPE', 'Batch')
    shown = []
    monkeypatch.setattr('IPython.display.display', lambda o, **kw: shown.append(o))
    p = ReportPanel(Standin(), folder)
    p._ipython_display_()
    assert p._widgets is None and '<img src="data:image/jpeg' in shown[0].data and 'left pleural effusion' in shown[0].data and NOTICE in shown[0].data

def test_output_without_widgets_is_a_sentence(panel, monkeypatch):
    shown = []
    monkeypatch.setattr('IPython.display.display', lambda o, **kw: shown.append(o))
    panel._ipython_display_()
    assert 'application/vnd.jupyter.widget-view+json' in shown[0] and 'run it' in shown[0]['text/html'] and '.png' not in str(shown)

def test_card_escapes():
    card = report_card(phantom_xray(1, 64), Report('FINDINGS:\n<script>x</script>', False, provenance=dict(base='<b>')), '"><i>')
    assert '<script>' not in card and '<b>' not in card and '<i>' not in card and NOTICE in card


def test_all_three_files(panel):
    example(panel, 'Left effusion')
    panel.w.report.click(); panel.wait()
    txt, js, page = raw(panel)
    page = page.decode()
    assert page.startswith('<!doctype html>') and page.count(NOTICE) == 2 and 'Left pleural effusion.' in page and 'src="data:image/jpeg' in page
    assert '@media print' in page and 'table-footer-group' in page # the notice is on every sheet of paper
    assert '<script' not in page and 'http' not in page # nothing runs, nothing is fetched

def test_file_name_is_saved_only_when_asked(panel, tmp_path):
    upload(panel, 'doe_jane.png', png(tmp_path))
    panel.w.report.click(); panel.wait()
    assert not any(b'doe' in o for o in raw(panel))
    panel.w.named.value = True
    assert json.loads(files(panel)[1])['xray'] == 'doe_jane.png'

def test_nothing_of_the_file_reaches_an_export(panel, tmp_path):
    from pydicom.data import get_testdata_file
    from pydicom import dcmread
    ds = dcmread(get_testdata_file('CT_small.dcm'))
    ds.PatientName, ds.PatientID, ds.InstitutionName, ds.StudyDescription = 'DOE^JANE', 'IDQ4711Q', 'Saint Nowhere', 'Chest DOE'
    ds.save_as(tmp_path/'x.dcm')
    go_to(panel, str(tmp_path/'x.dcm'))
    assert panel.session.error is None, panel.session.error
    panel.w.report.click(); panel.wait()
    seen = b''.join(raw(panel)) + panel.w.viewer.value.encode() + panel.w.links.value.encode()
    assert not re.search(rb'DOE|Q4711Q|Nowhere', seen)

def test_window_invert_and_overlay_change_the_film_only(panel):
    example(panel, 'Normal')
    panel.w.report.click(); panel.wait()
    looks = [panel.w.viewer.value]
    panel.w.preset.value = 'Lungs'; looks.append(panel.w.viewer.value)
    panel.w.invert.value = True; looks.append(panel.w.viewer.value)
    panel.w.evidence.value = 0; panel.wait(); looks.append(panel.w.viewer.value)
    panel.w.opacity.value = 0; looks.append(panel.w.viewer.value)
    panel.w.evidence.value = 1; panel.wait()
    assert len(set(looks[:4])) == 4 and looks[4] == looks[2] and panel.session.error is None and panel.w.window.value == (0, 150)
    assert 'not proof' in panel.w.caution.value and sorted(panel.session.case.heat) == [0, 1]

def test_two_views(panel, tmp_path):
    example(panel, 'Large heart')
    assert panel.w.viewer.value.count('<img') == 2 and len(panel.session.case.src) == 2
    example(panel, 'Normal')
    panel.w.second.value = True
    upload(panel, 'lateral.png', png(tmp_path))
    assert [panel.session.case.names[1], panel.w.second.value, panel.w.viewer.value.count('<img')] == ['lateral.png', False, 2]
    from cxr_llava.panel.inputs import example_study
    ims, names, _ = example_study('Large heart')
    set_xray(panel, ims[::-1], names[::-1])
    assert panel.session.case.names == names and 'not frontal' not in panel.w.viewer.value # the frontal comes first, whatever the order
    data = png(tmp_path)
    panel.w.upload.value = tuple(dict(name=f'{i}.png', type='', size=len(data), content=data, last_modified=datetime.now()) for i in range(3))
    assert 'one or two views' in panel.w.status.value and len(panel.session.case.views) == 2

def test_reference_and_base(panel):
    example(panel, 'Left effusion')
    assert 'effusion' in panel.w.reference.value
    panel.w.base.click()
    assert 'no report to compare' in panel.w.status.value
    panel.w.report.click(); panel.wait()
    assert 'Reference' in panel.w.compared.value and '<u>' in panel.w.compared.value
    panel.w.base.click(); panel.wait()
    assert panel.session.case.base.text == BASE and 'Untuned base' in panel.w.base_text.value and 'differs' in panel.w.base_text.value
    panel.w.reference.value = '<script>alert(1)</script>'
    assert '<script>' not in panel.w.compared.value
    panel.session.model.info.pop('adapter_hash')
    panel.w.base.click()
    assert 'No adapter' in panel.w.status.value

def test_session(panel):
    for name in ('Normal', 'Edema'):
        example(panel, name)
        panel.w.report.click(); panel.wait()
    panel.w.impression.value = 'Changed.'
    panel.w.again.click()
    assert len(panel.session.cases) == 2 and len(panel.w.past.options) == 2
    panel.w.past.value = 1
    panel.w.again.click()
    assert panel.session.case.names == ['Phantom: normal'] and panel.w.impression.value == 'Left pleural effusion.'
    panel.w.past.value = 2
    panel.w.again.click()
    assert panel.w.impression.value == 'Changed.' and 'EDITED' in files(panel)[0]

def test_double_click_and_close(folder):
    p = ReportPanel(Standin(.02), folder)
    example(p, 'Normal')
    p.press('report'), p.press('report')
    assert 'Writing' in p.w.status.value
    p.w.question.value = 'And?'
    p.press('ask')
    assert 'press Stop first' in p.w.status.value and p.w.question.value == 'And?'
    p.close()
    assert p.wait(5) and p.session.model.busy == 0

def test_limit_and_doubts(panel):
    panel.w.limit.value = 8
    example(panel, 'Normal')
    panel.w.rate.click()
    assert 'no report yet' in panel.w.status.value
    panel.w.report.click(); panel.wait()
    assert panel.session.model.limit == 8 and panel.w.doubts.value == '' and panel.w.rate.layout.display == ''
    panel.w.rate.click(); panel.wait()
    assert 'unsure' in panel.w.doubts.value and 'There is a left pleural effusion' in panel.w.doubts.value and panel.w.rate.layout.display == 'none'
    panel.w.report.click(); panel.wait()
    assert panel.w.doubts.value == '' and panel.session.error is None or isinstance(panel.session.error, CXRError)

def test_rating_that_was_stopped(panel):
    example(panel, 'Normal')
    panel.w.report.click(); panel.wait()
    panel.session.model.certainty = lambda src, report, stop: panel.w.stop.click() or []
    panel.w.rate.click(); panel.wait()
    assert 'stopped before its end' in panel.w.status.value and panel.session.case.sure == [] and not panel.w.rate.disabled

def test_status_is_a_live_region(panel):
    assert 'role="status" aria-live="polite"' in panel.w.status.value and 'aria-live' not in panel.w.progress.value

def written(p):
    p.w.report.click()
    assert p.wait()

def test_the_report_is_the_one_of_its_own_text(panel):
    "Somebody else's text, ended at the same moment, is in `last` then"
    class Shared(Standin):
        last = property(lambda self: Report('FINDINGS:\nOf another X-ray.'), lambda self, v: None)
    panel.session.model = Shared()
    example(panel, 'Normal')
    written(panel)
    assert panel.session.case.report.text == TEXT

def test_an_earlier_report_outlives_a_second_one_that_comes_to_nothing(panel):
    m = panel.session.model
    example(panel, 'Normal')
    written(panel)
    panel.w.impression.value = 'Mine.'
    def kept(): return panel.session.case.report.text == TEXT and panel.w.impression.value == 'Mine.' and 'Edited by hand' in panel.w.links.value and panel.w.chips.value
    m.delay = .05
    panel.press('report')
    assert panel.w.links.value == panel.w.chips.value == '' # beside half a new text the old one's would be wrong
    example(panel, 'Edema') # overtakes it
    panel.w.past.value = 1
    panel.w.again.click()
    assert kept() and 'written earlier' in panel.w.status.value
    panel._thread.join()
    m.fail = MemoryError()
    written(panel)
    assert kept() and 'not enough memory' in panel.w.status.value
    m.fail, m.delay = None, .001
    with ONE: panel.press('report'), panel.session.stop() # before its first word
    assert panel.wait() and kept() and 'stopped before its end' in panel.w.status.value
    written(panel)
    assert panel.w.impression.value == 'Left pleural effusion.' and len(panel.session.cases) == 1

def test_a_reference_typed_while_a_report_is_written_is_kept(folder):
    p = ReportPanel(Standin(.02), folder)
    example(p, 'Normal')
    p.press('report')
    p.w.reference.value = 'Edema.'
    assert p.wait() and p.session.case.reference == 'Edema.' and 'Edema.' in p.w.compared.value
    p.press('report')
    p.show_part('reference', 'Clear.') # as what is typed just when a word is filled in, and so passes unseen
    assert p.wait() and p.session.case.reference == 'Clear.' and 'Clear.' in p.w.compared.value

def test_a_name_that_is_no_utf8(folder):
    import os
    (folder/'one.png').rename(os.fsdecode(os.fsencode(folder) + b'/x\xff.png'))
    p = ReportPanel(Standin(), folder)
    p.w.files.value = next(o for o in p.w.files.options if o.startswith('x'))
    p.w.open.click()
    p.w.named.value = True
    written(p)
    assert p.session.error is None and r'x\udcff.png' in files(p)[0] and json.loads(files(p)[1])['xray'] == r'x\udcff.png'
    p.w.findings.value = 'half a smiley \ud83d'
    assert p.session.error is None and r'half a smiley \ud83d' in files(p)[0]
    for o in vars(p.w).values(): str([getattr(o, 'value', ''), getattr(o, 'options', '')] if o is not p.w.findings else '').encode()

@pytest.mark.parametrize('text', ['Clear.', 'Плевральный выпот', '右側胸水', 'תפליט', 'انصباب', '<b>&'])
def test_the_page_shows_every_script(panel, text):
    example(panel, 'Normal')
    written(panel)
    panel.w.findings.value = text
    txt, js, page = raw(panel)
    assert text in txt.decode() and f'<p>{html.escape(text)}</p>' in page.decode()

def test_an_upload_larger_than_said(folder):
    p = ReportPanel(Standin(), folder, upload_mb=1)
    upload(p, '<i>.bmp', saved(phantom_xray(4, 128).resize((1100, 1100)), 'BMP'))
    assert p.session.case is None and 'larger than 1 MB' in p.w.status.value and 'tab Folder' in p.w.status.value and '<i>' not in p.w.status.value
    assert not p.w.upload.value

def test_only_the_indication_that_the_model_was_told_is_saved_as_one(folder):
    p = ReportPanel(load_model(str(tiny_adapter())), folder)
    example(p, 'Normal')
    p.w.indication.value = 'Fever'
    written(p)
    assert p.session.record()['indication'] == 'Fever' and p.session.record()['notes'] == []
    p.w.indication.value = 'Trauma'
    assert p.session.record()['indication'] == 'Fever' and 'Trauma' in p.session.record()['notes'][0]
    txt = files(p)[0]
    assert 'Indication: Fever' in txt and 'Note: the indication now differs from what the model was told: Trauma' in txt
    written(p)
    assert p.session.record()['indication'] == 'Trauma' and p.session.record()['notes'] == []

def test_a_question_while_a_report_is_being_stopped(folder):
    p = ReportPanel(Standin(.1), folder)
    example(p, 'Normal')
    p.press('report')
    while not p.w.findings.value: time.sleep(.01)
    p.session.stop()
    p.w.question.value = 'Where?'
    p.press('ask')
    assert 'being stopped' in p.w.status.value and p.w.question.value == 'Where?'
    assert p.wait() and p.session.case.report.text and p.session.record()['findings'] == p.w.findings.value
    with ONE: p.press('ask'), p.session.stop() # before its first word
    assert p.wait() and p.session.case.turns == [] and 'Where?' not in p.w.log.value
    p.press('base'), p.wait()
    with ONE: p.press('base'), p.session.stop()
    assert p.wait() and p.session.case.base.text == BASE

def test_the_mark_in_the_session_stays_and_names_go_when_asked(panel, tmp_path):
    for name in ('doe.png', 'roe.png'):
        upload(panel, name, png(tmp_path))
        written(panel)
    panel.w.past.value = 2
    panel.w.impression.value = 'Changed.'
    assert panel.w.past.value == 2
    panel.w.named.value = True
    with ONE:
        panel.w.evidence.value = 0
        panel.w.named.value = False # while the evidence is looked for
    assert panel.wait() and not any(b'roe.png' in o for o in raw(panel))
