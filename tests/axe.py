"axe-core, which finds what readers of a page with a keyboard or a screen reader cannot use"
from importlib.util import find_spec
from pathlib import Path

def axe(page, inside):
    "Rules of axe-core that are broken: id -> impact"
    js = Path(find_spec('axe_playwright_python').submodule_search_locations[0])/'axe.min.js'
    page.evaluate(js.read_text('utf-8') + ';0')
    found = page.evaluate('async s => (await axe.run(s)).violations.map(v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))])', inside)
    print(found)
    return {i: impact for i,impact,_ in found}
