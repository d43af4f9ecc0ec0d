"The panel, pressed from code: a stand-in model, no browser, no weights"
import base64, io, json, re, struct, time, zlib
from datetime import datetime
import numpy as np
import pytest
from PIL import Image
from cxr_llava.core.files import CXRError
from cxr_llava.vlm.family import tiny_adapter
from cxr_llava.vlm.generate import Report
from cxr_llava.vlm.load import load_model
from cxr_llava.panel.parts import NOTICE, report_card
from cxr_llava.panel.exports import sr_sections
from cxr_llava.panel.session import ONE
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
    assert [a[:1] for _,a in panel.case.turns] == ['1', '2'] and panel.w.question.value == ''
    assert '<img' not in panel.w.log.value and len(json.loads(files(panel)[1])['questions']) == 2

def test_bad_then_good_upload(panel, tmp_path):
    upload(panel, '<i>bad.png', b'%PDF-1.4')
    assert 'PDF' in panel.w.status.value and '<i>' not in panel.w.status.value and panel.case is None and not panel.w.upload.value
    upload(panel, '<i>good.png', png(tmp_path))
    assert panel.case.names[0] == '<i>good.png' and '<i>' not in panel.w.film.value
    upload(panel, 'empty.png', b'')
    assert 'empty' in panel.w.status.value and panel.case.names[0] == '<i>good.png'
    panel.w.go.click(); panel.wait()
    assert panel.case.report.text == TEXT

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
    panel.choose_example('Normal')
    for name,(data,says) in bad.items():
        upload(panel, name, data)
        assert says in panel.w.status.value and name in panel.w.status.value and panel.w.status.value.count('<') == 2, name
        assert panel.case.names[0].startswith('Phantom') and not panel.w.upload.value, name
    deep = Image.fromarray(np.asarray(g).astype(np.uint16)*200)
    good = {'film.dcm': (dicom(5), '5 frames'), 'alpha.png': (saved(Image.merge('RGBA', [g, g, g, Image.new('L', g.size, 200)])), 'transparent'),
        'deep.png': (saved(deep), ''), 'Röntgen_患者 №7.png': (saved(g), ''), '"><script>hacked()</script>.png': (saved(g), '')}
    for name,(data,note) in good.items():
        upload(panel, name, data)
        assert panel.case.names == [name] and note in panel.w.film.value and '<script' not in panel.w.film.value, name
    panel.w.go.click(); panel.wait()
    assert panel.case.report.text == TEXT

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
    assert panel.case.names[0] == 'two.png'
    panel.w.up.click()
    assert panel.folder == folder.resolve()
    panel.safely(panel.go_to, 'nowhere')
    assert 'does not exist' in panel.w.status.value and panel.case.names[0] == 'two.png'

def test_folder_is_not_left_in_a_web_app(folder):
    p = ReportPanel(Standin(), folder/'sub', browse=False)
    p.w.up.click()
    assert 'outside' in p.w.status.value and str(folder) not in p.w.path.value
    (folder/'sub/link').symlink_to(folder)
    for name in ('../one.png', str(folder/'one.png'), 'link/'):
        p.safely(p.go_to, name)
        assert p.case is None and p.folder == (folder/'sub').resolve()

def test_stop(folder):
    p = ReportPanel(Standin(.05), folder)
    p.choose_example('Normal')
    p.w.go.click()
    time.sleep(.2)
    t = time.time()
    p.w.stop.click()
    assert p.wait(5) and time.time() - t < 1
    assert 'stopped before its end' in p.w.status.value and not p.case.report.stopped and not p.w.go.disabled
    assert 'did not finish' in files(p)[0]

def test_another_xray_while_writing(folder):
    p = ReportPanel(Standin(.02), folder)
    p.choose_example('Normal')
    p.w.go.click()
    time.sleep(.1)
    p.choose_example('Edema')
    p.w.go.click()
    assert p.wait(10) and p.error is None and p.case.report.text == TEXT and p.case.names[0] == 'Phantom: edema'

def test_new_xray_clears_everything(panel):
    panel.choose_example('Normal')
    panel.w.go.click(); panel.wait()
    panel.choose_example('Edema')
    assert (panel.case.report, panel.case.turns, panel.w.findings.value, panel.w.links.value, panel.w.chips.value) == (None, [], '', '', '')

@pytest.mark.parametrize('e,words', [(CXRError('The adapter is missing.'), 'The adapter is missing.'), (RuntimeError('/secret/path'), 'RuntimeError'), (MemoryError(), 'not enough memory')])
def test_failures_become_a_sentence(folder, e, words):
    p = ReportPanel(Standin(fail=e), folder)
    p.choose_example('Normal')
    p.w.go.click(); p.wait()
    assert words in p.w.status.value and '/secret' not in p.w.status.value and p.error is e and not p.w.go.disabled
    p.model.fail = None
    p.w.go.click(); p.wait()
    assert p.case.report.text == TEXT

def test_batch_makes_no_widget(folder, monkeypatch, capsys):
    monkeypatch.setenv('KAGGLE_KERNEL_RUN_TYPE', 'Batch')
    shown = []
    monkeypatch.setattr('IPython.display.display', lambda o, **kw: shown.append(o))
    p = ReportPanel(Standin(), folder)
    p._ipython_display_()
    assert p._w is None and '<img src="data:image/jpeg' in shown[0].data and 'left pleural effusion' in shown[0].data and NOTICE in shown[0].data

def test_output_without_widgets_is_a_sentence(panel, monkeypatch):
    shown = []
    monkeypatch.setattr('IPython.display.display', lambda o, **kw: shown.append(o))
    panel._ipython_display_()
    assert 'application/vnd.jupyter.widget-view+json' in shown[0] and 'run it' in shown[0]['text/html'] and '.png' not in str(shown)

def test_card_escapes():
    card = report_card(phantom_xray(1, 64), Report('FINDINGS:\n<script>x</script>', False, provenance=dict(base='<b>')), '"><i>')
    assert '<script>' not in card and '<b>' not in card and '<i>' not in card and NOTICE in card


def test_all_four_files(panel):
    pytest.importorskip('reportlab')
    panel.choose_example('Left effusion')
    panel.w.go.click(); panel.wait()
    txt, js, pdf, sr = raw(panel)
    assert pdf[:5] == b'%PDF-' and sr[128:132] == b'DICM'
    assert sr_sections(sr)['impressions'] == ['Left pleural effusion.'] and NOTICE in sr_sections(sr)['summary'][0]

def test_missing_package_is_a_sentence(panel, monkeypatch):
    monkeypatch.setattr('cxr_llava.panel.exports.find_spec', lambda name: None)
    panel.choose_example('Normal')
    panel.w.go.click(); panel.wait()
    assert 'pip install &quot;cxr_llava[exports]&quot;' in panel.w.links.value and len(raw(panel)) == 3 and panel.error is None

def test_file_name_is_saved_only_when_asked(panel, tmp_path):
    upload(panel, 'doe_jane.png', png(tmp_path))
    panel.w.go.click(); panel.wait()
    assert not any(b'doe' in o for o in raw(panel))
    panel.w.named.value = True
    assert json.loads(files(panel)[1])['xray'] == 'doe_jane.png'

def test_nothing_of_the_file_reaches_an_export(panel, tmp_path):
    from pydicom.data import get_testdata_file
    from pydicom import dcmread
    ds = dcmread(get_testdata_file('CT_small.dcm'))
    ds.PatientName, ds.PatientID, ds.InstitutionName, ds.StudyDescription = 'DOE^JANE', 'IDQ4711Q', 'Saint Nowhere', 'Chest DOE'
    ds.save_as(tmp_path/'x.dcm')
    panel.safely(panel.go_to, str(tmp_path/'x.dcm'))
    assert panel.error is None, panel.error
    panel.w.go.click(); panel.wait()
    seen = b''.join(raw(panel)) + panel.w.film.value.encode() + panel.w.links.value.encode()
    assert not re.search(rb'DOE|Q4711Q|Nowhere', seen)

def test_window_invert_and_overlay_change_the_film_only(panel):
    panel.choose_example('Normal')
    panel.w.go.click(); panel.wait()
    looks = [panel.w.film.value]
    panel.w.preset.value = 'Lungs'; looks.append(panel.w.film.value)
    panel.w.invert.value = True; looks.append(panel.w.film.value)
    panel.w.evidence.value = 0; panel.wait(); looks.append(panel.w.film.value)
    panel.w.opacity.value = 0; looks.append(panel.w.film.value)
    panel.w.evidence.value = 1; panel.wait()
    assert len(set(looks[:4])) == 4 and looks[4] == looks[2] and panel.error is None and panel.w.window.value == (0, 150)
    assert 'not proof' in panel.w.caution.value and sorted(panel.case.heat) == [0, 1]

def test_two_views(panel, tmp_path):
    panel.choose_example('Large heart')
    assert panel.w.film.value.count('<img') == 2 and len(panel.case.src) == 2
    panel.choose_example('Normal')
    panel.w.second.value = True
    upload(panel, 'lateral.png', png(tmp_path))
    assert [panel.case.names[1], panel.w.second.value, panel.w.film.value.count('<img')] == ['lateral.png', False, 2]
    from cxr_llava.panel.parts import example_study
    ims, names, _ = example_study('Large heart')
    panel.set_xray(ims[::-1], names[::-1])
    assert panel.case.names == names and 'not frontal' not in panel.w.film.value # the frontal comes first, whatever the order
    data = png(tmp_path)
    panel.w.upload.value = tuple(dict(name=f'{i}.png', type='', size=len(data), content=data, last_modified=datetime.now()) for i in range(3))
    assert 'one or two views' in panel.w.status.value and len(panel.case.views) == 2

def test_reference_and_base(panel):
    panel.choose_example('Left effusion')
    assert 'effusion' in panel.w.reference.value
    panel.w.base.click()
    assert 'no report to compare' in panel.w.status.value
    panel.w.go.click(); panel.wait()
    assert 'Reference' in panel.w.compared.value and '<u>' in panel.w.compared.value
    panel.w.base.click(); panel.wait()
    assert panel.case.base.text == BASE and 'Untuned base' in panel.w.base_text.value and 'differs' in panel.w.base_text.value
    panel.w.reference.value = '<script>alert(1)</script>'
    assert '<script>' not in panel.w.compared.value
    panel.model.info.pop('adapter_hash')
    panel.w.base.click()
    assert 'No adapter' in panel.w.status.value

def test_session(panel):
    for name in ('Normal', 'Edema'):
        panel.choose_example(name)
        panel.w.go.click(); panel.wait()
    panel.w.impression.value = 'Changed.'
    panel.w.again.click()
    assert len(panel.cases) == 2 and len(panel.w.past.options) == 2
    panel.w.past.value = 1
    panel.w.again.click()
    assert panel.case.names == ['Phantom: normal'] and panel.w.impression.value == 'Left pleural effusion.'
    panel.w.past.value = 2
    panel.w.again.click()
    assert panel.w.impression.value == 'Changed.' and 'EDITED' in files(panel)[0]

def test_double_click_and_close(folder):
    p = ReportPanel(Standin(.02), folder)
    p.choose_example('Normal')
    p.generate(), p.generate()
    assert 'Writing' in p.w.status.value
    p.w.question.value = 'And?'
    p.safely(p.ask_typed)
    assert 'press Stop first' in p.w.status.value and p.w.question.value == 'And?'
    p.close()
    assert p.wait(5) and p.model.busy == 0

def test_limit_and_doubts(panel):
    panel.w.limit.value = 8
    panel.choose_example('Normal')
    panel.w.rate.click()
    assert 'no report yet' in panel.w.status.value
    panel.w.go.click(); panel.wait()
    assert panel.model.limit == 8 and panel.w.doubts.value == '' and panel.w.rate.layout.display == ''
    panel.w.rate.click(); panel.wait()
    assert 'unsure' in panel.w.doubts.value and 'There is a left pleural effusion' in panel.w.doubts.value and panel.w.rate.layout.display == 'none'
    panel.w.go.click(); panel.wait()
    assert panel.w.doubts.value == '' and panel.error is None or isinstance(panel.error, CXRError)

def test_rating_that_was_stopped(panel):
    panel.choose_example('Normal')
    panel.w.go.click(); panel.wait()
    panel.model.certainty = lambda src, report, stop: panel.w.stop.click() or []
    panel.w.rate.click(); panel.wait()
    assert 'stopped before its end' in panel.w.status.value and panel.case.sure == [] and not panel.w.rate.disabled

def test_status_is_a_live_region(panel):
    assert 'role="status" aria-live="polite"' in panel.w.status.value and 'aria-live' not in panel.w.progress.value

def written(p):
    p.w.go.click()
    assert p.wait()

def test_the_report_is_the_one_of_its_own_text(panel):
    "Somebody else's text, ended at the same moment, is in `last` then"
    class Shared(Standin):
        last = property(lambda self: Report('FINDINGS:\nOf another X-ray.'), lambda self, v: None)
    panel.model = Shared()
    panel.choose_example('Normal')
    written(panel)
    assert panel.case.report.text == TEXT

def test_an_earlier_report_outlives_a_second_one_that_comes_to_nothing(panel):
    m = panel.model
    panel.choose_example('Normal')
    written(panel)
    panel.w.impression.value = 'Mine.'
    def kept(): return panel.case.report.text == TEXT and panel.w.impression.value == 'Mine.' and 'Edited by hand' in panel.w.links.value and panel.w.chips.value
    m.delay = .05
    panel.generate()
    assert panel.w.links.value == panel.w.chips.value == '' # beside half a new text the old one's would be wrong
    panel.choose_example('Edema') # overtakes it
    panel.w.past.value = 1
    panel.w.again.click()
    assert kept() and 'written earlier' in panel.w.status.value
    panel._thread.join()
    m.fail = MemoryError()
    written(panel)
    assert kept() and 'not enough memory' in panel.w.status.value
    m.fail, m.delay = None, .001
    with ONE: panel.generate(), panel.stop() # before its first word
    assert panel.wait() and kept() and 'stopped before its end' in panel.w.status.value
    written(panel)
    assert panel.w.impression.value == 'Left pleural effusion.' and len(panel.cases) == 1

def test_a_reference_typed_while_a_report_is_written_is_kept(folder):
    p = ReportPanel(Standin(.02), folder)
    p.choose_example('Normal')
    p.generate()
    p.w.reference.value = 'Edema.'
    assert p.wait() and p.case.reference == 'Edema.' and 'Edema.' in p.w.compared.value
    p.generate()
    p._fill(reference='Clear.') # as what is typed just when a word is filled in, and so passes unseen
    assert p.wait() and p.case.reference == 'Clear.' and 'Clear.' in p.w.compared.value

def test_a_name_that_is_no_utf8(folder):
    import os
    (folder/'one.png').rename(os.fsdecode(os.fsencode(folder) + b'/x\xff.png'))
    p = ReportPanel(Standin(), folder)
    p.w.files.value = next(o for o in p.w.files.options if o.startswith('x'))
    p.w.open.click()
    p.w.named.value = True
    written(p)
    assert p.error is None and r'x\udcff.png' in files(p)[0] and json.loads(files(p)[1])['xray'] == r'x\udcff.png'
    p.w.findings.value = 'half a smiley \ud83d'
    assert p.error is None and r'half a smiley \ud83d' in files(p)[0]
    for o in vars(p.w).values(): str([getattr(o, 'value', ''), getattr(o, 'options', '')] if o is not p.w.findings else '').encode()

@pytest.mark.parametrize('text,lacks', [('Clear.', 0), ('Плевральный выпот', 0), ('右側胸水', 1), ('תפליט', 1), ('انصباب', 1)])
def test_a_pdf_says_what_it_cannot_show(panel, text, lacks):
    pytest.importorskip('reportlab')
    from cxr_llava.panel.exports import _pdf_story, PDF_LACKS
    panel.choose_example('Normal')
    written(panel)
    panel.w.findings.value = text
    assert (PDF_LACKS in panel.w.links.value) == lacks and text in files(panel)[0]
    page = _pdf_story(panel.record(), panel.case.views, ('Helvetica', 'Helvetica-Bold'), 500)
    assert sum(PDF_LACKS in getattr(o, 'text', '') for o in page) == lacks

def test_an_upload_larger_than_said(folder):
    p = ReportPanel(Standin(), folder, upload_mb=1)
    upload(p, '<i>.bmp', saved(phantom_xray(4, 128).resize((1100, 1100)), 'BMP'))
    assert p.case is None and 'larger than 1 MB' in p.w.status.value and 'tab Folder' in p.w.status.value and '<i>' not in p.w.status.value
    assert not p.w.upload.value

def test_only_the_indication_that_the_model_was_told_is_saved_as_one(folder):
    p = ReportPanel(load_model(str(tiny_adapter())), folder)
    p.choose_example('Normal')
    p.w.indication.value = 'Fever'
    written(p)
    assert p.record()['indication'] == 'Fever' and p.record()['notes'] == []
    p.w.indication.value = 'Trauma'
    assert p.record()['indication'] == 'Fever' and 'Trauma' in p.record()['notes'][0]
    txt = files(p)[0]
    assert 'Indication: Fever' in txt and 'Note: the indication now differs from what the model was told: Trauma' in txt
    written(p)
    assert p.record()['indication'] == 'Trauma' and p.record()['notes'] == []

def test_a_question_while_a_report_is_being_stopped(folder):
    p = ReportPanel(Standin(.1), folder)
    p.choose_example('Normal')
    p.generate()
    while not p.w.findings.value: time.sleep(.01)
    p.stop()
    p.w.question.value = 'Where?'
    p.safely(p.ask_typed)
    assert 'being stopped' in p.w.status.value and p.w.question.value == 'Where?'
    assert p.wait() and p.case.report.text and p.record()['findings'] == p.w.findings.value
    with ONE: p.ask_typed(), p.stop() # before its first word
    assert p.wait() and p.case.turns == [] and 'Where?' not in p.w.log.value
    p.report_base(), p.wait()
    with ONE: p.report_base(), p.stop()
    assert p.wait() and p.case.base.text == BASE

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
