"""The panel in a real browser, under JupyterLab, Voila and Gradio, with a stand-in model: `python -m pytest tests/test_browser.py`

Needs Chromium (Debian: apt-get install chromium) and `pip install -e '.[browser]'`; skipped with a reason without them, failed when
BROWSER_TESTS=required. No request may leave this computer. The tests of one front end share a page and run in their order.
"""
import base64, json, os, re, shutil, socket, subprocess, sys, time, urllib.error, urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
import pytest

CHROMIUM = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
LACKS = [o for o in ('playwright', 'jupyterlab', 'voila', 'gradio', 'nbconvert', 'axe_playwright_python') if not find_spec(o)] + ([] if CHROMIUM else ['chromium'])
if LACKS and os.environ.get('BROWSER_TESTS') == 'required': pytest.fail(f'the browser tests are required, but there is no {", ".join(LACKS)}', pytrace=False)
if LACKS: pytest.skip(f'no {", ".join(LACKS)}: apt-get install chromium, pip install -e ".[browser]"', allow_module_level=True)

from playwright.sync_api import expect, sync_playwright
from axe import axe
from cxr_llava.panel.parts import NOTICE
from cxr_llava.xray.drawing import phantom_xray
from cxr_llava.panel.gradio import one_cell, voila_command, voila_env

HERE = Path(__file__).parent
FLAGS = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split()
EVIL = '<img src=x onerror=window.hacked=1>'
TEXT = ('FINDINGS:\nThere is a moderate left pleural effusion with adjacent opacity. The heart is at the upper limit of normal. No pneumothorax. '
        f'The bones are unremarkable. {EVIL}\n\nIMPRESSION:\nModerate left pleural effusion.')
GRADIO = '''
import sys
from standin import Standin
from cxr_llava.panel.gradio import DemoConfig, gradio_app, launch_options
app, look = gradio_app(Standin(.06, text={text!r}))
app.launch(**launch_options(DemoConfig(port={port}), 'secret') | dict(inbrowser=False), **look)
app.block_thread()
'''

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def until(fn, seconds=90, every=.2):
    "Wait for `fn` to give something true"
    end = time.time() + seconds
    while not (res := fn()):
        if time.time() > end: raise AssertionError(f'not within {seconds} s')
        time.sleep(every)
    return res

def answers(url):
    try: return urllib.request.urlopen(url, timeout=5).status
    except urllib.error.HTTPError as e: return e.code
    except OSError: return 0

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "X-rays, good, bad, large and oddly named"
    d = tmp_path_factory.mktemp('browser')
    (d/'x').mkdir()
    phantom_xray(4, 256, effusion='left').save(d/'x/good.png')
    phantom_xray(4, 256).save(d/f'x/{EVIL}.png')
    phantom_xray(4, 128).resize((3400, 3400)).save(d/'x/large.bmp') # 11.6 MB, above the 10 MiB that Jupyter takes
    (d/'x/bad.png').write_bytes(b'%PDF-1.4 not a picture')
    return d

@pytest.fixture(scope='module')
def servers(place):
    "All three at once: name -> address"
    env = voila_env(place/'template') | dict(PYTHONPATH=os.pathsep.join([str(HERE.parent), str(HERE)]), OMP_NUM_THREADS='1', GRADIO_TEMP_DIR=str(place/'gradio'),
        GRADIO_ANALYTICS_ENABLED='False', HF_HUB_OFFLINE='1', TRANSFORMERS_OFFLINE='1', CUDA_VISIBLE_DEVICES='', **{k: str(place/k) for k in
        ('JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'JUPYTERLAB_SETTINGS_DIR', 'JUPYTERLAB_WORKSPACES_DIR', 'IPYTHONDIR', 'HF_HOME')})
    settings = place/'JUPYTERLAB_SETTINGS_DIR/@jupyterlab/apputils-extension/notification.jupyterlab-settings'
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    def notebook(name, more=''):
        (place/name).mkdir()
        src = f'from standin import Standin\nfrom cxr_llava.demo import ReportPanel\np = ReportPanel(Standin(.06, text={TEXT!r}), {str(place/"x")!r}{more})\np'
        (place/name/'panel.ipynb').write_text(json.dumps(one_cell(src)))
        return place/name/'panel.ipynb'
    ports, logs = [free_port() for _ in range(3)], [open(place/f'{o}.log', 'w') for o in ('voila', 'lab', 'gradio')]
    commands = [voila_command(notebook('voila', ', browse=False, upload_mb=200'), ports[0]),
        [sys.executable, '-m', 'jupyterlab', '--no-browser', f'--port={ports[1]}', '--ServerApp.ip=127.0.0.1', '--IdentityProvider.token=T', '--allow-root',
         f'--ServerApp.root_dir={notebook("lab").parent}'], [sys.executable, '-c', GRADIO.format(text=TEXT, port=ports[2])]]
    procs = [subprocess.Popen(c, env=env, cwd=place, stdout=f, stderr=subprocess.STDOUT) for c,f in zip(commands, logs)]
    urls = dict(zip(('voila', 'lab', 'gradio'), (f'http://127.0.0.1:{o}' for o in ports)))
    try:
        for (name,u),path in zip(urls.items(), ('/static/x', '/api', '/')): until(lambda: answers(u + path))
        yield urls
    finally:
        for o in procs: o.terminate()
        for o in procs:
            try: o.wait(10)
            except subprocess.TimeoutExpired: o.kill()

@pytest.fixture(scope='module')
def browser():
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()

OUTSIDE, ERRORS = [], []

def new_page(browser, width=1280, height=1100):
    "A page whose requests are watched, and stopped when they would leave this computer"
    context = browser.new_context(viewport=dict(width=width, height=height), accept_downloads=True, permissions=['clipboard-read', 'clipboard-write'])
    def watch(route):
        if re.match(r'(http|ws)://(127\.0\.0\.1|localhost)[:/]|data:|blob:', route.request.url): return route.continue_()
        OUTSIDE.append(route.request.url)
        route.abort()
    context.route('**/*', watch)
    page = context.new_page()
    page.set_default_timeout(20000)
    page.on('pageerror', lambda e: ERRORS.append(str(e)))
    return page

expect.set_options(timeout=15000)

@contextmanager
def opened(browser, url):
    "A page at `url`"
    page = new_page(browser)
    page.goto(url)
    yield page
    page.context.close()

@pytest.fixture(scope='module')
def voila(browser, servers):
    with opened(browser, servers['voila']) as page:
        page.locator('.cxr-go').wait_for(timeout=90000)
        yield page

@pytest.fixture(scope='module')
def lab(browser, servers):
    with opened(browser, servers['lab'] + '/doc/tree/panel.ipynb?token=T&reset') as page:
        page.locator('.jp-Notebook .jp-CodeCell').first.wait_for(timeout=60000)
        page.get_by_text('Python 3 (ipykernel) | Idle').wait_for(timeout=60000)
        page.locator('.jp-CodeCell .cm-content').first.click()
        page.keyboard.press('Shift+Enter')
        page.locator('.jp-Cell-outputArea .cxr-go').wait_for(timeout=90000)
        yield page

@pytest.fixture(scope='module')
def gradio(browser, servers):
    with opened(browser, servers['gradio']) as page:
        page.get_by_label('username').wait_for()
        yield page

# What a person does, in words

def status(page): return page.locator('.cxr-status[role=status]')
def press(page, name): page.get_by_role('button', name=name, exact=True).first.click()
def tab(page, name): page.get_by_role('tab', name=name, exact=True).click()
def film(page): return page.locator('.cxr-viewer img').first.get_attribute('src')
def example(page, name='Left effusion'):
    press(page, name)
    expect(page.locator('.cxr-viewer figcaption').first).to_contain_text(f'Phantom: {name.lower()}')

def upload(page, *paths):
    tab(page, 'Upload')
    with page.expect_file_chooser() as chooser: page.locator('.cxr-up button').click()
    chooser.value.set_files([str(o) for o in paths])

def generate(page):
    press(page, 'Generate report')
    expect(status(page)).to_contain_text('is ready')

def save(page, name):
    with page.expect_download() as d: page.get_by_role('link', name=f'Save as {name}', exact=True).click()
    return d.value.suggested_filename, Path(d.value.path()).read_bytes()

def sheets(browser, data):
    "What a browser prints of a saved page: how many sheets, and what stands on the screen"
    page = new_page(browser)
    page.set_content(data.decode())
    count, words = len(re.findall(rb'/Type ?/Page\b', page.pdf())), page.locator('body').inner_text()
    page.context.close()
    return count, words

def safe(page): return page.evaluate('window.hacked') is None
def no_traceback(page): return 'Traceback' not in page.locator('body').inner_text()

# Voila

def test_voila_opens_with_the_notice(voila):
    expect(voila.locator('.cxr-notice')).to_contain_text(NOTICE)
    expect(voila.locator('.cxr-viewer')).to_contain_text('No X-ray yet')
    expect(status(voila)).to_contain_text('Choose an X-ray')
    press(voila, 'Generate report')
    expect(status(voila)).to_contain_text('There is no X-ray yet')

def test_voila_refuses_a_bad_file(voila, place):
    upload(voila, place/'x/bad.png')
    expect(status(voila)).to_contain_text('PDF')
    assert no_traceback(voila) and voila.locator('.cxr-viewer img').count() == 0

def test_voila_then_takes_a_good_file(voila, place):
    upload(voila, place/'x/good.png')
    expect(status(voila)).to_contain_text('X-ray ready')
    expect(voila.locator('.cxr-viewer figcaption')).to_contain_text('good.png')

def test_voila_hostile_file_name_is_text(voila, place):
    upload(voila, place/f'x/{EVIL}.png')
    expect(voila.locator('.cxr-viewer figcaption')).to_contain_text(EVIL)
    assert safe(voila)

def test_voila_streams_with_progress(voila):
    tab(voila, 'Examples')
    example(voila)
    press(voila, 'Generate report')
    box, seen = voila.get_by_label('FINDINGS'), []
    expect(voila.get_by_role('progressbar')).to_be_visible()
    until(lambda: seen.append(box.input_value()) or (len({o for o in seen if o}) > 4), 10, .03)
    grown = list(dict.fromkeys(o for o in seen if o))
    assert all(b.startswith(a) for a,b in zip(grown, grown[1:])) and TEXT.replace('\n', ' ').find(grown[0]) > 0
    expect(status(voila)).to_contain_text('is ready')
    expect(voila.get_by_role('progressbar')).to_have_count(0)

def test_voila_model_text_is_text(voila):
    assert EVIL in voila.get_by_label('FINDINGS').input_value() and safe(voila)
    assert voila.get_by_label('IMPRESSION').input_value() == 'Moderate left pleural effusion.'

def test_voila_chips(voila):
    expect(voila.locator('.cxr-chip', has_text='pleural effusion')).to_be_visible()
    expect(voila.locator('.cxr-result')).to_contain_text('Reported absent: ')

def test_voila_stop_within_a_second(voila):
    press(voila, 'Generate report')
    until(lambda: voila.get_by_label('FINDINGS').input_value(), 10, .03)
    start = time.time()
    press(voila, 'Stop')
    expect(status(voila)).to_contain_text('stopped before its end')
    assert time.time() - start < 4 # under a second on an idle computer
    expect(voila.get_by_role('button', name='Generate report')).to_be_enabled()

def test_voila_double_click_writes_once(voila):
    voila.get_by_role('button', name='Generate report').dblclick()
    expect(status(voila)).to_contain_text('is ready')
    assert voila.get_by_label('IMPRESSION').input_value() == 'Moderate left pleural effusion.'

def test_voila_another_xray_while_writing(voila):
    press(voila, 'Generate report')
    until(lambda: voila.get_by_label('FINDINGS').input_value(), 10, .03)
    example(voila, 'Edema')
    expect(status(voila)).to_contain_text('X-ray ready')
    time.sleep(.5)
    assert voila.get_by_label('FINDINGS').input_value() == ''
    example(voila)
    generate(voila)

def test_voila_edit(voila):
    voila.get_by_label('IMPRESSION').fill('Pulmonary edema. Ölfleck.')
    expect(voila.locator('.cxr-edited')).to_be_visible()
    expect(voila.locator('.cxr-chip', has_text='edema')).to_be_visible()

def test_voila_save_text(voila):
    name, data = save(voila, 'Text')
    assert name == 'cxr_report.txt' and data.decode().count(NOTICE) == 2 and 'Ölfleck' in data.decode() and 'EDITED BY HAND' in data.decode()

def test_voila_save_json(voila):
    name, data = save(voila, 'JSON')
    rec = json.loads(data)
    assert rec['impression'] == 'Pulmonary edema. Ölfleck.' and rec['edited'] and rec['generated'] == TEXT and rec['disclaimer'] == NOTICE and rec['xray'] == ''

def test_voila_save_page(voila, browser):
    name, data = save(voila, 'Page')
    count, words = sheets(browser, data)
    assert name == 'cxr_report.html' and count == 1 and 'Pulmonary edema. Ölfleck.' in words and words.count(NOTICE) == 2

def test_voila_copy(voila):
    press(voila, 'Copy')
    expect(voila.get_by_role('button', name='Copied')).to_be_visible()
    assert 'Pulmonary edema. Ölfleck.' in voila.evaluate('navigator.clipboard.readText()')

def test_voila_questions(voila):
    box = voila.get_by_label('Question about this X-ray')
    for i,q in enumerate(('Is there fluid?', EVIL)):
        box.fill(q)
        box.press('Enter')
        expect(voila.locator('.cxr-a').nth(i)).to_contain_text(f'{i + 1} turns before {q}')
        expect(status(voila)).to_contain_text('The answer is ready')
    assert safe(voila) and box.input_value() == ''

def test_voila_window_and_invert(voila):
    seen = [film(voila)]
    def changed():
        until(lambda: film(voila) != seen[-1], 10)
        seen.append(film(voila))
    voila.get_by_label('WINDOW', exact=True).select_option('Lungs'); changed()
    voila.locator('.cxr-slide .noUi-handle-upper').first.press('ArrowLeft'); changed()
    press(voila, 'Invert'); changed()
    press(voila, 'Invert'); changed()
    assert seen[4] == seen[2] and len(set(seen)) == 4

def test_voila_overlay(voila):
    before = film(voila)
    voila.get_by_label('EVIDENCE FOR').select_option(index=1)
    until(lambda: film(voila) != before, 10)
    expect(voila.locator('.cxr-look')).to_contain_text('not proof')
    strong = film(voila)
    voila.locator('.cxr-slide', has_text='OPACITY').locator('.noUi-handle').press('ArrowLeft')
    until(lambda: film(voila) != strong, 10)
    voila.get_by_label('EVIDENCE FOR').select_option(index=0)
    until(lambda: film(voila) == before, 10)

def test_voila_doubts_in_words(voila):
    press(voila, 'How sure is the model?')
    expect(voila.locator('.cxr-doubts')).to_contain_text('unsure')
    expect(voila.locator('.cxr-doubts')).to_contain_text('Sure is not the same as right')

def test_voila_compare(voila):
    tab(voila, 'Compare')
    expect(voila.locator('.cxr-compare')).to_contain_text('Reference')
    press(voila, 'Report by the untuned base')
    expect(voila.locator('.cxr-compare')).to_contain_text('Untuned base')
    expect(voila.locator('.cxr-compare td', has_text='differs').first).to_be_visible()

def test_voila_two_views(voila):
    tab(voila, 'Examples')
    press(voila, 'Large heart')
    expect(voila.locator('.cxr-viewer img')).to_have_count(2)
    tops = [o.bounding_box()['y'] for o in voila.locator('.cxr-viewer img').all()]
    assert abs(tops[0] - tops[1]) < 2

def test_voila_session(voila):
    generate(voila)
    tab(voila, 'Session')
    past = voila.get_by_label('REPORTS OF THIS SESSION')
    expect(past.locator('option')).to_have_count(3)
    past.select_option(index=1)
    press(voila, 'Show again')
    expect(status(voila)).to_contain_text('earlier in this session')
    assert voila.get_by_label('IMPRESSION').input_value() == 'Pulmonary edema. Ölfleck.'

def test_voila_takes_a_large_upload(voila, place):
    upload(voila, place/'x/large.bmp')
    expect(voila.locator('.cxr-viewer figcaption')).to_contain_text('3400 x 3400', timeout=30000)

def test_voila_folder_is_not_left(voila):
    tab(voila, 'Folder')
    press(voila, 'One folder up')
    expect(status(voila)).to_contain_text('outside the folder')

def test_voila_by_keyboard_alone(browser, servers):
    page = new_page(browser)
    page.goto(servers['voila'])
    page.locator('.cxr-go').wait_for(timeout=90000)
    def to(name, key='Tab'):
        for _ in range(70):
            page.keyboard.press(key)
            at = page.evaluate('(e => e.ariaLabel || (e.labels && e.labels[0] ? e.labels[0].innerText : "") || e.innerText || "")(document.activeElement)')
            if at.strip() == name: return
        raise AssertionError(f'{name} is not reached with {key}')
    to('Left effusion'), page.keyboard.press('Enter')
    expect(status(page)).to_contain_text('X-ray ready')
    to('Generate report'), page.keyboard.press('Enter')
    expect(status(page)).to_contain_text('is ready')
    to('IMPRESSION'), page.keyboard.press('Control+A'), page.keyboard.type('By keyboard.')
    expect(page.locator('.cxr-edited')).to_be_visible()
    until(lambda: 'By keyboard.' in base64.b64decode(page.get_by_role('link', name='Save as Text').get_attribute('href').split(',')[1]).decode(), 10)
    to('Save as Text')
    with page.expect_download() as d: page.keyboard.press('Enter')
    assert 'By keyboard.' in Path(d.value.path()).read_text()
    to('Questions'), page.keyboard.press('ArrowRight'), page.keyboard.press('Enter')
    expect(page.get_by_label('REFERENCE REPORT, IF THERE IS ONE')).to_be_visible()
    page.context.close()

def test_voila_for_screen_readers(voila):
    expect(status(voila)).to_have_attribute('aria-live', 'polite')
    found = axe(voila, '.cxr-panel')
    assert 'critical' not in found.values()
    assert {k for k,v in found.items() if v == 'serious'} <= {'aria-input-field-name'} # the sliders of ipywidgets have no name

@pytest.mark.parametrize('width', [1280, 800, 480])
def test_voila_fits(voila, width):
    voila.set_viewport_size(dict(width=width, height=1100))
    over = '[...document.querySelectorAll(".cxr-panel, .cxr-panel *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && e.offsetParent).length'
    until(lambda: voila.evaluate(over) == 0, 10) # the widgets follow a moment after the window
    assert voila.locator('.cxr-viewer').bounding_box()['width'] > min(420, width*.8)

# JupyterLab

def test_lab_shows_the_panel(lab):
    expect(lab.locator('.cxr-notice')).to_contain_text(NOTICE)
    example(lab, 'Pneumothorax')
    generate(lab)
    assert EVIL in lab.get_by_label('FINDINGS').input_value() and safe(lab)

def test_lab_refuses_a_bad_file_then_takes_a_good_one(lab, place):
    upload(lab, place/'x/bad.png')
    expect(status(lab)).to_contain_text('PDF')
    upload(lab, place/f'x/{EVIL}.png')
    expect(lab.locator('.cxr-viewer figcaption')).to_contain_text(EVIL)
    assert safe(lab) and no_traceback(lab)

def test_lab_large_file_through_the_folder(lab):
    tab(lab, 'Upload')
    expect(lab.locator('.cxr-up')).to_contain_text('up to 10 MB')
    expect(lab.locator('.cxr-up')).to_contain_text('use the tab Folder')
    tab(lab, 'Folder')
    lab.get_by_label('X-RAYS AND FOLDERS').select_option('large.bmp')
    press(lab, 'Open')
    expect(lab.locator('.cxr-viewer figcaption')).to_contain_text('large.bmp')
    expect(lab.locator('.cxr-viewer figcaption')).to_contain_text('3400 x 3400')

def test_lab_path_by_enter(lab, place):
    box = lab.get_by_label('FOLDER', exact=True)
    box.fill(str(place/'nowhere'))
    box.press('Enter')
    expect(status(lab)).to_contain_text('does not exist')
    box.fill(str(place/'x/good.png'))
    box.press('Enter')
    expect(lab.locator('.cxr-viewer figcaption')).to_contain_text('good.png')

def test_lab_stop_and_go_on(lab):
    press(lab, 'Generate report')
    until(lambda: lab.get_by_label('FINDINGS').input_value(), 10, .03)
    press(lab, 'Stop')
    expect(status(lab)).to_contain_text('stopped before its end')
    generate(lab)

def test_lab_downloads(lab):
    lab.get_by_label('IMPRESSION').fill('From Lab.')
    expect(lab.locator('.cxr-edited')).to_be_visible()
    got = {k: save(lab, k)[1] for k in ('Text', 'JSON', 'Page')}
    assert b'From Lab.' in got['Text'] and json.loads(got['JSON'])['impression'] == 'From Lab.' and b'From Lab.' in got['Page']

def test_lab_readable_on_dark(lab):
    lab.evaluate('document.body.dataset.jpThemeLight = "false"; document.body.style.setProperty("--jp-ui-font-color1", "#fff"); document.body.style.setProperty("--jp-layout-color1", "#111")')
    ink = lab.evaluate('''[...document.querySelectorAll(".cxr-panel label, .cxr-panel textarea, .cxr-panel select, .cxr-panel h2, .cxr-panel .jupyter-button:not(.cxr-go)")]
        .map(e => getComputedStyle(e).color.match(/\\d+/g).slice(0, 3).map(Number)).filter(c => Math.max(...c) > 130).length''')
    assert ink == 0 and lab.evaluate('getComputedStyle(document.querySelector(".cxr-panel textarea")).backgroundColor') == 'rgb(255, 255, 255)'

def test_lab_for_screen_readers(lab):
    found = axe(lab, '.cxr-panel')
    assert 'critical' not in found.values() and {k for k,v in found.items() if v == 'serious'} <= {'aria-input-field-name'}

# Gradio

def test_gradio_wants_a_password(gradio, servers):
    assert answers(servers['gradio'] + '/config') == 401 and answers(servers['gradio'] + '/gradio_api/file=/etc/hostname') in (401, 403, 404)
    def log_in(password):
        for k,v in (('username', 'cxr'), ('password', password)): gradio.get_by_label(k).fill(v)
        press(gradio, 'Login')
    log_in('guess')
    expect(gradio.locator('body')).to_contain_text('Incorrect')
    log_in('secret')
    expect(gradio.locator('.cxr-notice')).to_contain_text(NOTICE)

def test_gradio_shows_no_file_of_the_computer(gradio, servers):
    code = gradio.evaluate('async () => (await fetch("/gradio_api/file=/etc/hostname")).status')
    assert code in (403, 404)

def gradio_upload(page, path):
    with page.expect_file_chooser() as chooser: page.get_by_text('Click to Upload').click()
    chooser.value.set_files(str(path))

def test_gradio_refuses_a_bad_file_then_takes_a_good_one(gradio, place):
    gradio_upload(gradio, place/'x/bad.png')
    expect(status(gradio)).to_contain_text('PDF')
    gradio_upload(gradio, place/f'x/{EVIL}.png')
    expect(gradio.locator('.cxr-viewer figcaption')).to_contain_text('onerror')
    assert safe(gradio)
    until(lambda: [o for o in (place/'gradio').rglob('*.png')] == [], 10)

def test_gradio_streams_and_stops(gradio):
    example(gradio)
    box, seen = gradio.get_by_label('Findings'), set()
    press(gradio, 'Generate report')
    until(lambda: seen.add(box.input_value()) or len(seen - {''}) > 2, 15, .03)
    press(gradio, 'Stop')
    expect(status(gradio)).to_contain_text('before its end')
    press(gradio, 'Generate report')
    expect(status(gradio)).to_contain_text('is ready')
    assert EVIL in box.input_value() and safe(gradio)

def test_gradio_edit_and_downloads(gradio):
    gradio.get_by_label('Impression').press('Control+A')
    gradio.get_by_label('Impression').press_sequentially('From Gradio.', delay=30)
    expect(gradio.locator('.cxr-edited')).to_be_visible()
    until(lambda: b'From Gradio.' in save(gradio, 'Text')[1], 10)
    got = {k: save(gradio, k)[1] for k in ('JSON', 'Page')}
    assert json.loads(got['JSON'])['impression'] == 'From Gradio.' and b'From Gradio.' in got['Page']

def test_gradio_question_window_compare(gradio):
    gradio.get_by_label('Question about this X-ray').fill('Where?')
    press(gradio, 'Ask')
    expect(gradio.locator('.cxr-a')).to_contain_text('turns before Where?')
    before = film(gradio)
    gradio.get_by_label('Invert').check()
    until(lambda: film(gradio) != before, 10)
    tab(gradio, 'Compare')
    press(gradio, 'Report by the untuned base')
    expect(gradio.locator('.cxr-two-texts').last).to_contain_text('lungs are clear')

def test_gradio_doubts_and_evidence(gradio):
    press(gradio, 'How sure is the model?')
    expect(gradio.locator('.cxr-doubts')).to_contain_text('unsure')
    before = film(gradio)
    gradio.get_by_label('Evidence for').click()
    gradio.get_by_role('option').nth(1).click()
    expect(status(gradio)).to_contain_text('not proof')
    until(lambda: film(gradio) != before, 10)
    example(gradio, 'Edema')
    expect(gradio.get_by_label('Evidence for')).to_have_value('No overlay')

def test_gradio_for_screen_readers(gradio):
    found = axe(gradio, '.gradio-container')
    assert 'critical' not in found.values()

# Nobody there to click

def test_batch_run_leaves_picture_and_text(browser, place):
    nb = place/'batch.ipynb'
    nb.write_text(json.dumps(one_cell(f'from standin import Standin\nfrom cxr_llava.demo import ReportPanel\nReportPanel(Standin(0, text={TEXT!r}))')))
    env = voila_env(place/'template') | dict(KAGGLE_KERNEL_RUN_TYPE='Batch', PYTHONPATH=os.pathsep.join([str(HERE.parent), str(HERE)]), IPYTHONDIR=str(place/'ipython'))
    for to in (['--to', 'notebook', '--inplace', '--execute'], ['--to', 'html']):
        subprocess.run([sys.executable, '-m', 'nbconvert', *to, str(nb)], env=env, check=True, capture_output=True)
    saved = json.loads(nb.read_text())
    assert 'widgets' not in saved['metadata'] and 'widget-view' not in json.dumps(saved['cells'])
    page = new_page(browser)
    page.route('**/*', lambda r: r.continue_() if r.request.url.startswith(('file:', 'data:')) else r.abort()) # nbconvert's page asks for MathJax
    page.goto((place/'batch.html').as_uri(), wait_until='domcontentloaded')
    card = page.locator('.cxr-card')
    expect(card).to_contain_text('moderate left pleural effusion')
    expect(card).to_contain_text(NOTICE)
    assert card.locator('img').evaluate('e => e.naturalWidth') > 200 and safe(page)
    page.context.close()

def test_nothing_left_this_computer(voila, lab, gradio): assert OUTSIDE == []

def test_no_error_in_the_pages(): assert [o for o in ERRORS if 'ResizeObserver' not in o] == []
