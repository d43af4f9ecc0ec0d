"""README.md from nbs/index.ipynb, without Quarto: `python tools/readme.py` writes, `--check` only compares."""
import argparse, base64, json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = Path('nbs/images')

def text_of(x): return ''.join(x) if isinstance(x, list) else x or ''

def outputs_of(cell, pictures):
    "Outputs of a code cell as Markdown; pictures are put into `pictures`, name -> bytes"
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        if 'image/png' in data:
            name = f'index-{len(pictures) + 1}.png'
            pictures[name] = base64.b64decode(text_of(data['image/png']))
            yield f'![]({PICTURES}/{name})'
        elif 'text/markdown' in data: yield text_of(data['text/markdown']).strip()
        elif o.get('name') != 'stderr':
            text = (text_of(o.get('text')) or text_of(data.get('text/plain'))).rstrip()
            if text: yield '```text\n' + text + '\n```'

def head_of(p):
    "Title and subtitle of a notebook"
    lines = text_of(json.loads(p.read_text('utf-8'))['cells'][0]['source']).strip().splitlines()
    return lines[0].lstrip('# '), next((o[2:] for o in lines if o.startswith('> ')), '')

WINGS = ['core', 'xray', 'report', 'vlm', 'sources', 'train', 'score', 'panel'] # in the order of imports

def table(paths, root):
    "Notebooks with their subtitles"
    return '\n'.join(['| notebook | |', '|---|---|', *(f'| [`{p.stem}`]({p.relative_to(root)}) | {head_of(p)[1]} |' for p in paths)])

def notebook_table(root):
    "The story notebooks in order"
    return table(sorted((root/'nbs').glob('[0-9]*.ipynb')), root)

def wing_table(root):
    "The first page of each wing, in the order of imports"
    return table([p for p in (root/f'nbs/{w}/00_{w}.ipynb' for w in WINGS) if p.exists()], root)

def readme(nb, root=ROOT):
    "Markdown of the notebook, and its pictures"
    parts, pictures = [], {}
    for c in nb['cells']:
        src = text_of(c['source']).rstrip()
        if c['cell_type'] == 'markdown':
            src = re.sub(r'^> (.*)', r'*\1*', src) if not parts or len(parts) == 1 and src.startswith('> ') else src
            parts.append(src.replace('](images/', f']({PICTURES}/'))
            continue
        lines = src.split('\n')
        flags = [o for o in lines if o.startswith('#|')]
        if c['cell_type'] != 'code': continue
        if any(re.match(r'#\|\s*hide\b', o) for o in flags): # its pictures may be shown elsewhere, its words not
            list(outputs_of(c, pictures))
            continue
        code = '\n'.join(o for o in lines if not o.startswith('#|')).strip()
        if code: parts.append(f'```python\n{code}\n```')
        parts += outputs_of(c, pictures)
    parts = [o.replace('<!-- notebooks -->', notebook_table(root)) for o in parts]
    head = '<!-- Written by tools/readme.py from nbs/index.ipynb: edit that notebook. -->\n\n'
    return head + '\n\n'.join(o for o in parts if o) + '\n', pictures

def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--check', action='store_true', help='compare only; exit 1 when they differ')
    p.add_argument('--root', type=Path, default=ROOT, help='the repository')
    args = p.parse_args()
    text, pictures = readme(json.loads((args.root/'nbs/index.ipynb').read_text('utf-8')), args.root)
    files = {args.root/'README.md': text.encode()} | {args.root/PICTURES/k: v for k,v in pictures.items()}
    differ = [f for f,v in files.items() if not f.exists() or f.read_bytes() != v]
    if args.check:
        if differ: sys.exit(f'{", ".join(str(o.relative_to(args.root)) for o in differ)} not as nbs/index.ipynb says: run `python tools/readme.py`.')
        return print('README.md is as nbs/index.ipynb says')
    for f in differ:
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_bytes(files[f])
    print(f'README.md: {len(text.splitlines())} lines, {len(pictures)} pictures, {len(differ)} files changed')

if __name__ == '__main__': main()
