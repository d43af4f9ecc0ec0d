"""The docs site, from the saved notebooks: `python tools/docs.py` writes _docs/ and checks every link. Nothing is executed, nothing fetched.

Sphinx with MyST-NB and Furo reads the notebooks; this file turns each into a page: hidden cells go, exported cells become an
entry of the API with its signature, docstring and source link above the folded code, names in backticks become links.
Pages without code are Markdown in nbs/pages; `results` there is filled from the stored result files.
"""
import argparse, ast, configparser, html, json, re, shutil, subprocess, sys, tempfile, textwrap, time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from readme import head_of, notebook_table, text_of, wing_table, WINGS
from results import results_page

ROOT = Path(__file__).resolve().parents[1]
PAGES = ['when', 'glossary', 'results', 'literature', 'model_card', 'data_card', 'tripod'] # order in the sidebar
SITE = Path(__file__).resolve().parent/'site' # style sheet, icon and settings of Sphinx
KAGGLE = 'https://www.kaggle.com/kernels/welcome?src='

def settings():
    c = configparser.ConfigParser(delimiters=['='])
    c.read(ROOT/'settings.ini', encoding='utf-8')
    return c['DEFAULT']

def page_name(stem):
    "Page of a notebook below nbs/: `core/02_config` -> `core.config`, which is also its module"
    wing, _, name = stem.rpartition('/')
    return f'{wing}.'*bool(wing) + re.sub(r'^\d+[a-z]?_', '', name)

def stem_of(p):
    "Path of a notebook below nbs/, without its ending"
    return str(p.relative_to(ROOT/'nbs').with_suffix(''))

def notebooks():
    "The story first, then wing after wing"
    wing = lambda p: WINGS.index(p.parent.name) if p.parent.name in WINGS else -1
    return sorted((ROOT/'nbs').rglob('*.ipynb'), key=lambda p: (wing(p), p.stem))

# ---- what a page may link to

def owner(f):
    "Class that a `@patch`ed function belongs to, if any"
    names = [d.id if isinstance(d, ast.Name) else getattr(getattr(d, 'func', None), 'id', '') for d in f.decorator_list]
    ann = f.args.args[0].annotation if f.args.args else None
    return getattr(ann, 'id', '') if any(o.startswith('patch') for o in names) else ''

def defined(tree):
    "Public functions and classes of parsed source, as (name, node)"
    for o in tree.body:
        if not isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): continue
        name = o.name if isinstance(o, ast.ClassDef) or not owner(o) else f'{owner(o)}.{o.name}'
        if not any(p.startswith('_') and not p.startswith('__') for p in name.split('.')): yield name, o

def symbols():
    "Every public name: bare and qualified name -> page#anchor; ambiguous bare names are left out"
    res, seen = {}, {}
    for p in sorted((ROOT/'cxr_llava').rglob('[a-z]*.py')):
        module = '.'.join(p.relative_to(ROOT/'cxr_llava').with_suffix('').parts)
        for name,_ in defined(ast.parse(p.read_text('utf-8'))):
            where = f'{module}.html#{name}'
            res |= {f'cxr_llava.{module}.{name}': where, f'{module}.{name}': where, f'{p.stem}.{name}': where}
            for bare in {name, name.split('.')[-1]}: seen.setdefault(bare, []).append(where)
        res[f'cxr_llava.{module}'] = f'{module}.html'
    res |= {o: f'{page_name(stem_of(p))}.html' for p in notebooks() for o in (stem_of(p), stem_of(p).split('/')[-1])}
    res |= {k: v[0] for k,v in seen.items() if len(set(v)) == 1 and k not in res}
    for o in settings()['console_scripts'].split(): # commands, by the page of their `main`
        name, at = o.split('=')
        res[name] = f'{at.split(":")[0].removeprefix("cxr_llava.")}.html'
    return res

def lines_of(module):
    "Name -> (first, last) line in the exported module"
    p = ROOT/'cxr_llava'/f'{module.replace(".", "/")}.py'
    return {n: (min([o.lineno, *(d.lineno for d in o.decorator_list)]), o.end_lineno) for n,o in defined(ast.parse(p.read_text('utf-8')))} if p.exists() else {}

def linked(md, names, here):
    "Names in backticks become links, outside code blocks and existing links"
    def one(m):
        to = names.get(m[1].removesuffix('()')) or m[1].startswith('cxr_') and names.get(m[1].split()[0])
        if not to or to == f'{here}.html': return m[0]
        return f'<a class="api" href="{to}"><code>{html.escape(m[1])}</code></a>'
    parts = re.split(r'(```.*?```|~~~.*?~~~|\[[^\]]*\]\([^)]*\))', md, flags=re.S)
    return ''.join(o if i % 2 else re.sub(r'(?<!`)`([\w./]+(?:\(\))?|cxr_\w+ [^`\n]+)`(?!`)', one, o) for i,o in enumerate(parts))

EVERYDAY = {'split', 'study', 'token', 'view', 'window', 'x-ray'} # of the glossary, but mostly used as anybody would: never linked

def terms():
    "Words of the glossary -> page#anchor; `frontal, lateral` are two words with one entry"
    heads = re.findall(r'^(\S.*)\n(?=: )', (ROOT/'nbs/pages/glossary.md').read_text('utf-8'), re.M)
    return {w.lower(): f'glossary.html#{anchor(h)}' for h in heads for w in h.split(', ') if w.lower() not in EVERYDAY}

def anchor(head): return 'term-' + re.sub(r'\W+', '-', head.lower()).strip('-')

_NOT_PROSE = r'```.*?```|~~~.*?~~~|^#.*?$|^:::.*?$|`[^`]*`|!?\[[^\]]*\]\([^)]*\)|<(?P<tag>a|p|span)\b.*?</(?P=tag)>|<[^>]+>|\$[^$]*\$'

def glossed(md, words, seen):
    "The first use of each word of the glossary on a page becomes a link; `seen` holds those already linked"
    def one(m):
        word = (m['word'] or '').lower()
        if not word or words[word] in seen: return m[0]
        seen.add(words[word])
        return f'<a class="term" href="{words[word]}">{m[0]}</a>'
    longest = '|'.join(map(re.escape, sorted(words, key=len, reverse=True)))
    return re.sub(rf'{_NOT_PROSE}|\b(?P<word>{longest})s?\b', one, md, flags=re.S | re.M | re.I)

def tidied(md, stems, wing=''):
    "Quarto callouts to MyST, links between notebooks to links between pages; a chapter may name others of its `wing` alone"
    def to_page(m):
        stem = next((o for o in (m[1], f'{wing}/{m[1]}') if o in stems), None)
        return f']({page_name(stem)}.ipynb{m[2] or ""})' if stem else m[0]
    md = re.sub(r'^::: ?\{\.callout-(\w+)\}\n(.*?)^:::$', lambda m: f':::{{{m[1]}}}\n{m[2]}:::', md, flags=re.S | re.M)
    return re.sub(r'\]\((?:nbs/|\.\./)?((?:\w+/)?\d\d[a-z]?_\w+)\.ipynb(#[\w.-]*)?\)', to_page, md)

# ---- one notebook, one page

def parsed(code):
    "Statements of a cell; none when it holds notebook magic"
    try: return ast.parse(code).body
    except SyntaxError: return [None]

def header(src, node):
    "Source of a definition up to its body; all fields of a dataclass"
    lines = src.splitlines()
    body = node.body[0]
    if isinstance(node, ast.ClassDef) and any('dataclass' in ast.dump(d) for d in node.decorator_list):
        fields = [o for o in node.body if isinstance(o, ast.AnnAssign)]
        if fields: return '\n'.join([lines[node.lineno-1], *(l for o in fields for l in lines[o.lineno-1:o.end_lineno])])
    if body.lineno == node.lineno: return lines[node.lineno-1][:body.col_offset].rstrip()
    return '\n'.join(lines[node.lineno-1:body.lineno-1])

def short_signature(node):
    if isinstance(node, ast.ClassDef): return ''
    a = node.args
    def arg(o, d=None):
        d = ast.unparse(d) if d is not None else ''
        return o.arg + (f'={d if len(d) < 20 and d.isascii() else "..."}' if d else '')
    pos = a.posonlyargs + a.args
    defaults = [None]*(len(pos) - len(a.defaults)) + a.defaults
    parts = [arg(o, d) for o,d in zip(pos, defaults) if o.arg not in ('self', 'cls')]
    if a.vararg: parts.append('*' + a.vararg.arg)
    elif a.kwonlyargs: parts.append('*')
    parts += [arg(o, d) for o,d in zip(a.kwonlyargs, a.kw_defaults)] + (['**' + a.kwarg.arg] if a.kwarg else [])
    return f'({", ".join(parts)})'

def api(src, module, where, ini, names, done):
    "MyST entries for the public definitions of an exported cell"
    for name,node in defined(ast.parse(src)):
        kind = 'class' if isinstance(node, ast.ClassDef) else 'method' if '.' in name else 'function'
        doc = linked(ast.get_docstring(node) or '', names, module)
        a, b = where.get(name, (1, 1))
        again = ':no-index:\n' if name in done else ''
        done.add(name)
        yield f'''
``````{{py:{kind}}} {name}{short_signature(node)}
:module: cxr_llava.{module}
{again}
<span id="{name}"></span><a class="src" href="{ini['git_url']}/blob/{ini['branch']}/cxr_llava/{module.replace(".", "/")}.py#L{a}-L{b}">source</a>{doc}

```python
{textwrap.dedent(header(src, node))}
```
``````
'''

def shown(out):
    "A saved output without what only a live kernel can use; None when nothing is left"
    if out.get('output_type') == 'stream': return out if out.get('name') != 'stderr' and text_of(out['text']).strip() else None
    data = {k: v for k,v in out.get('data', {}).items() if k in ('image/png', 'image/jpeg', 'image/svg+xml', 'text/html', 'text/markdown', 'text/plain')}
    if any('widget' in k for k in out.get('data', {})): return None
    if 'text/html' in data: data['text/html'] = re.sub(r'<a [^>]*href="(?!https?:|#|data:)[^"]*"[^>]*>(.*?)</a>', r'\1', text_of(data['text/html']), flags=re.S) # files of that run
    if re.fullmatch(r'<(Figure|IPython|PIL)[^\n]*>', text_of(data.get('text/plain'))): data.pop('text/plain')
    return {**out, 'data': data} if data else None

def page(path, names, stems, ini, words):
    "The notebook as MyST-NB shall read it"
    nb = json.loads(path.read_text('utf-8'))
    module = next((m[1] for c in nb['cells'] for m in [re.match(r'#\|\s*default_exp\s+([\w.]+)', text_of(c['source']))] if m), '')
    where, done, cells, seen = lines_of(module), set(), [], set()
    def md(s):
        if s.strip(): cells.append(dict(cell_type='markdown', metadata={}, source=s))
    for i,c in enumerate(nb['cells']):
        src = text_of(c['source'])
        flags = set(re.findall(r'^#\|\s*(\w+)', src, re.M))
        code = '\n'.join(o for o in src.splitlines() if not o.startswith('#|')).strip('\n')
        if c['cell_type'] == 'markdown':
            s = tidied(src, stems, path.parent.name)
            if not i: s = re.sub(r'\n> (.*)', lambda m: f'\n\n<p class="subtitle">{html.escape(m[1])}</p>\n\n' + links(path, module, ini), s, count=1)
            md(linked(glossed(s, words, seen), names, page_name(stem_of(path))))
            continue
        if c['cell_type'] != 'code' or flags & {'hide', 'default_exp'} or not code.strip(): continue
        exported, body = bool(flags & {'export', 'exports'}), parsed(code)
        if exported and (re.match(r'(#.*\n)*_all_ =', code) or all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in body)): continue
        if exported: md('\n'.join(api(code, module, where, ini, names, done)))
        folded = exported and any(isinstance(o, (ast.FunctionDef, ast.ClassDef)) for o in body) # tables of words stay open
        outs = [o for o in map(shown, c.get('outputs', [])) if o]
        cells.append(dict(cell_type='code', metadata=dict(tags=['hide-input'] if folded else []), execution_count=None, outputs=outs, source=code))
    return dict(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python'), language_info=dict(name='python')), nbformat=4, nbformat_minor=4)

def links(path, module, ini):
    "Where else this page can be had"
    at = f'{ini["git_url"]}/blob/{ini["branch"]}/nbs/{stem_of(path)}.ipynb'
    res = f'<a href="{at}">Notebook on GitHub</a>'
    if path.parent.name == 'nbs' and path.stem != 'index': res = f'<a href="{KAGGLE}{at}">Open in Kaggle</a>' + res
    if module: res += f'<a href="{ini["git_url"]}/blob/{ini["branch"]}/cxr_llava/{module.replace(".", "/")}.py">Module <code>cxr_llava.{module}</code></a>'
    return f'<p class="links">{res}</p>'

def toctree(names, caption=''):
    "A hidden table of contents, which makes the sidebar"
    return '```{toctree}\n:hidden:\n' + f':caption: {caption}\n'*bool(caption) + '\n' + '\n'.join(names) + '\n```\n'

def chapters(nbs):
    "Wing -> its pages; the story under ''"
    groups = {}
    for p in nbs:
        if p.stem != 'index': groups.setdefault(stem_of(p).rpartition('/')[0], []).append(page_name(stem_of(p)))
    return groups

def caption(wing):
    "Heading of a wing in the sidebar: the title of its first page"
    first = ROOT/f'nbs/{wing}/00_{wing}.ipynb'
    if not wing: return 'Story'
    return head_of(first)[0] if first.exists() else wing

def write_source(src):
    "Everything Sphinx reads"
    ini, names, nbs, words = settings(), symbols(), notebooks(), terms()
    stems, inside = {stem_of(p) for p in nbs}, chapters(nbs)
    (src/'_static').mkdir(parents=True)
    for name in ('site.css', 'favicon.svg'): shutil.copy(SITE/name, src/'_static')
    (src/'conf.py').write_text((SITE/'conf.py.in').read_text().format(**{k: ini[k] for k in ('author', 'copyright', 'version', 'git_url', 'branch')}))
    if (ROOT/'nbs/images').exists(): shutil.copytree(ROOT/'nbs/images', src/'images')
    pages = [o for o in PAGES if (ROOT/f'nbs/pages/{o}.md').exists()]
    for p in nbs:
        nb = page(p, names, stems, ini, words)
        if p.stem == 'index':
            tables = f'{notebook_table(ROOT)}\n\n{wing_table(ROOT)}'
            table = tidied(tables.replace('](nbs/', ']('), stems)
            for c in nb['cells']: c['source'] = text_of(c['source']).replace('<!-- notebooks -->', table)
            nb['cells'].append(dict(cell_type='markdown', metadata={}, source=''.join(toctree(v, caption(k)) for k,v in inside.items()) + toctree(pages, 'Guide')))
        (src/f'{page_name(stem_of(p))}.ipynb').write_text(json.dumps(nb), 'utf-8')
    for o in pages:
        md = (ROOT/f'nbs/pages/{o}.md').read_text('utf-8')
        if '<!-- results -->' in md: md = md.replace('<!-- results -->', results_page(ROOT))
        if o == 'glossary': md = re.sub(r'^(\S.*)\n(?=: )', lambda m: f'<span id="{anchor(m[1])}"></span>{m[0]}', md, flags=re.M)
        elif o != 'results': md = glossed(md, words, set())
        (src/f'{o}.md').write_text(linked(tidied(md, stems), names, o), 'utf-8')

# ---- links

class _Links(HTMLParser):
    def __init__(self): super().__init__(); self.ids, self.links, self.outside = set(), [], []
    def handle_starttag(self, tag, attrs):
        d = dict(attrs)
        if d.get('id'): self.ids.add(d['id'])
        for k in ('href', 'src'):
            v = d.get(k)
            if not v or v.startswith(('data:', 'mailto:')): continue
            if urlsplit(v).scheme in ('http', 'https') or v.startswith('//'):
                if tag not in ('a',) and d.get('rel') not in ('canonical',): self.outside.append(v)
            else: self.links.append(v)

def broken_links(out):
    "Complaints about links and anchors inside the site, and about anything a page would fetch from outside"
    parsed = {}
    for p in out.rglob('*.html'):
        parsed[p] = _Links()
        parsed[p].feed(p.read_text('utf-8'))
    for p,d in parsed.items():
        yield from (f'{p.name}: fetches {o}' for o in d.outside)
        for o in d.links:
            u = urlsplit(o)
            to = (p.parent/unquote(u.path)).resolve() if u.path else p
            if to.is_dir(): to = to/'index.html'
            if not to.exists(): yield f'{p.name}: no page {o}'
            elif u.fragment and to in parsed and unquote(u.fragment) not in parsed[to].ids: yield f'{p.name}: no anchor {o}'

def reachable(page):
    "A page whose long lines scroll by keyboard, and whose sidebar headings have a level"
    return page.replace('<pre>', '<pre tabindex="0">').replace(' role="heading">', ' role="heading" aria-level="2">')

def build(out):
    "Seconds it took. Raises `SystemExit` with the complaints"
    t = time.time()
    with tempfile.TemporaryDirectory() as d:
        src, new = Path(d)/'src', Path(d)/'html'
        write_source(src)
        r = subprocess.run([sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', '-j', 'auto', str(src), str(new)], capture_output=True, text=True)
        if r.returncode: sys.exit((r.stderr or r.stdout).replace(str(src), 'nbs') + 'the docs site was not built: mend the warnings above.')
        shutil.rmtree(new/'.doctrees', ignore_errors=True)
        (new/'.nojekyll').write_text('')
        for p in new.rglob('*.html'): p.write_text(reachable(p.read_text('utf-8')), 'utf-8')
        bad = sorted(set(broken_links(new)))
        if bad: sys.exit('\n'.join(bad) + f'\n{len(bad)} broken links: the docs site was not written.')
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(new, out)
    return time.time() - t

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--out', type=Path, default=ROOT/'_docs', help='folder of the site')
    out = p.parse_args().out
    secs = build(out)
    n = len(list(out.glob('*.html')))
    print(f'{out}: {n} pages in {secs:.0f} s, {sum(f.stat().st_size for f in out.rglob("*") if f.is_file())/1e6:.1f} MB, no warning, no broken link')

if __name__ == '__main__': main()
