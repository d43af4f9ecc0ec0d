"The docs site builds without a warning, and every page works in a browser, at desk and phone width, without leaving the machine"
import functools, http.server, importlib.util, json, re, shutil, subprocess, sys, threading
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
for o in ('sphinx', 'myst_nb', 'furo', 'latex2mathml'):
    if not importlib.util.find_spec(o): pytest.skip(f'{o} is not installed: pip install -e ".[docs]"', allow_module_level=True)
sys.path.insert(0, str(ROOT/'tools'))
import docs, results

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('docs')/'site'
    r = subprocess.run([sys.executable, str(ROOT/'tools/docs.py'), '--out', str(out)], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, (r.stdout + r.stderr)[-3000:]
    assert 'no warning, no broken link' in r.stdout
    return out

def test_every_notebook_and_page_is_there(site):
    for p in docs.notebooks(): assert (site/f'{docs.page_name(docs.stem_of(p))}.html').exists(), p.name
    for o in docs.PAGES: assert (site/f'{o}.html').exists(), o

def test_stages_come_in_order(site):
    nav = re.search(r'class="sidebar-tree">(.*?)</aside>', (site/'index.html').read_text(), re.S)[1]
    at = [nav.index(f'href="{docs.page_name(docs.stem_of(p))}.html"') for p in docs.notebooks() if re.match(r'\d', p.stem)]
    assert at == sorted(at)

def test_public_functions_have_entries_with_source(site):
    html = (site/'data.html').read_text()
    assert 'id="build_dataset"' in html and 'id="cxr_llava.data.build_dataset"' in html
    assert re.search(r'blob/main/cxr_llava/data\.py#L\d+-L\d+', html)

def test_source_links_point_at_the_definition(site):
    html = (site/'score.clinical.html').read_text()
    for name,a in re.findall(r'<span id="(\w+)"></span><a class="src" href="[^"]*clinical\.py#L(\d+)', html):
        lines = (ROOT/'cxr_llava/score/clinical.py').read_text().splitlines()[int(a)-1:int(a)+3]
        assert any(re.match(rf'(def|class) {name}\b', o) for o in lines), name

def test_story_pages_open_in_kaggle(site):
    for p in (ROOT/'nbs').glob('[0-4]0_*.ipynb'): assert 'kaggle.com/kernels/welcome?src=' in (site/f'{docs.page_name(docs.stem_of(p))}.html').read_text()

def test_words_and_commands_are_linked(site):
    html, home = (site/'when.html').read_text(), (site/'index.html').read_text()
    assert html.count('<a class="term" href="glossary.html#term-nf4">NF4</a>') == 1 and 'id="term-nf4"' in (site/'glossary.html').read_text()
    assert '<a class="api" href="core.push.html"><code>cxr_kaggle build --wheels</code></a>' in html
    assert 'class="term"' in home and '_all_' not in re.sub('<[^>]+>', '', (site/'eval.html').read_text())
    assert docs.glossed('# LoRA\n`LoRA` [LoRA](x) <p>LoRA</p> loras, LoRA', {'lora': 'g#l'}, set()) == '# LoRA\n`LoRA` [LoRA](x) <p>LoRA</p> <a class="term" href="g#l">loras</a>, LoRA'

def test_broken_link_is_found(site, tmp_path):
    shutil.copytree(site, tmp_path/'s')
    p = tmp_path/'s/glossary.html'
    p.write_text(p.read_text().replace('</article>', '<a href="nowhere.html">x</a><a href="data.html#nothing">x</a><img src="https://example.org/x.png"></article>', 1))
    bad = '\n'.join(docs.broken_links(tmp_path/'s'))
    assert 'no page nowhere.html' in bad and 'no anchor data.html#nothing' in bad and 'fetches https://example.org/x.png' in bad

def test_results_are_read_from_files(tmp_path):
    (tmp_path/'bench/results').mkdir(parents=True)
    (tmp_path/'bench/results/speed.json').write_text(json.dumps(dict(what='A race', ratio=1.2345, rows=[dict(system='a', seconds=2), dict(system='b|c', seconds=3.14159)], versions=dict(torch='2'))))
    md = results.results_page(tmp_path)
    assert '| ratio | 1.23 |' in md and '| b\\|c | 3.14 |' in md and 'torch 2' in md

# ---- in a browser

@pytest.fixture(scope='module')
def browser():
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    exe = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if not exe: pytest.skip('no Chromium on this machine')
    flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'
    with api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=flags.split())
        yield b
        b.close()

@pytest.fixture(scope='module')
def server(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a): pass
    s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{s.server_port}'
    s.shutdown()

def opened(browser, url, width, dark=False):
    page = browser.new_page(viewport=dict(width=width, height=900), color_scheme='dark' if dark else 'light')
    said, left = [], []
    page.on('console', lambda m: said.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda e: said.append(str(e)))
    page.on('requestfailed', lambda r: said.append(f'failed: {r.url}'))
    page.on('request', lambda r: left.append(r.url) if not r.url.startswith(('http://127.0.0.1', 'data:', 'blob:')) else None)
    page.goto(url, wait_until='load')
    return page, said, left

@pytest.mark.parametrize('width', [390, 1280])
def test_every_page_in_a_browser(browser, server, site, width):
    bad = []
    for p in sorted(site.glob('*.html')):
        page, said, left = opened(browser, f'{server}/{p.name}', width)
        wide = page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth')
        if wide > 1: bad.append(f'{p.name} is {wide} px wider than the window')
        bad += [f'{p.name}: {o}' for o in said] + [f'{p.name} asks for {o}' for o in left]
        page.close()
    assert not bad, '\n'.join(bad[:20])

def test_search_finds_generate_report(browser, server):
    page, said, _ = opened(browser, f'{server}/search.html?q=generate_report', 1280)
    page.wait_for_selector('#search-results li a', timeout=20000)
    hits = page.locator('#search-results li a').all_inner_texts()
    assert any('generate_report' in o for o in hits), hits
    assert not said
    page.close()

def test_dark_mode(browser, server):
    page, *_ = opened(browser, f'{server}/index.html', 1280, dark=True)
    rgb = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert sum(map(int, re.findall(r'\d+', rgb)[:3])) < 150, rgb
    page.close()
    page, *_ = opened(browser, f'{server}/panel.parts.html', 1280, dark=True)
    assert set(page.locator('.cxr-viewer img').evaluate_all('o => o.map(e => getComputedStyle(e).backgroundColor)')) == {'rgba(0, 0, 0, 0)'} # no bars beside an X-ray that is not square
    page.close()

def test_notice_fits_a_phone(browser, server):
    page, *_ = opened(browser, f'{server}/index.html', 390)
    assert page.locator('.announcement').evaluate('e => e.scrollWidth - e.clientWidth') <= 0
    page.close()

@pytest.mark.parametrize('name', ['index', 'eval', 'train.settings', 'glossary', 'results'])
def test_nothing_serious_for_a_keyboard_or_screen_reader(browser, server, name):
    pytest.importorskip('axe_playwright_python')
    from axe import axe
    page, *_ = opened(browser, f'{server}/{name}.html', 1280)
    assert not {i for i,impact in axe(page, 'body').items() if impact in ('serious', 'critical')}
    page.close()
