"""Expected values of the text metrics, by the tools they are named after: `python tools/make_metric_references.py OUT.json`

Run it in an environment of its own: `pip install pycocoevalcap==1.2 rouge-score==0.1.2`
(none of pycocoevalcap's Java is used), with `clean_r2gen` imported from this repository's `cxr_llava/report/text_metrics.py`.
The texts were written for this purpose. `tests/metric_references.json` holds the result.
"""
import contextlib, importlib.util, io, json, sys, types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAIRS = [ # prediction, reference
    ('The heart is mildly enlarged. No pleural effusion.', 'Mild cardiomegaly. There is no pleural effusion.'),
    ('There is a left effusion.', 'There is no left effusion.'),
    ('Lungs clear.', 'The lungs are clear. Heart size is normal.'),
    ('1. No pneumothorax. 2. Small right effusion, unchanged.', '1. No pneumothorax. 2. Small right effusion, unchanged.'),
    ('FINDINGS: The ET tube ends 4.5 cm above the carina; no pneumothorax.\n\nIMPRESSION: Tube in place.',
     'FINDINGS: Endotracheal tube tip is 4.5 cm above the carina.\nThere is no pneumothorax.\n\nIMPRESSION: Standard position of the tube.'),
    ('XXXX opacity at the left base , may be atelectasis/scarring .', 'Left basilar opacity (atelectasis vs. scarring) -- unchanged since ___.'),
    ('no acute disease', 'no acute disease'), ('Normal', 'Normal'), ('normal.', 'Normal.'), ('clear', 'Clear lungs.'),
    ('', 'Clear lungs.'), ('Clear lungs.', ''), ('', ''), ('...', '...'), ('1. 2. 3.', 'No change.'),
    ("Patient's lungs are hyper-inflated & emphysematous; no effusion/pneumothorax.", "The patient's lungs are hyperinflated. No effusion or pneumothorax."),
    ('\u0152d\u00e8me pulmonaire mod\u00e9r\u00e9.', 'Moderate pulmonary \u0153dema.'),
    ('effusion effusion effusion effusion effusion', 'small effusion with effusion'),
    ('There is no focal consolidation, effusion, or pneumothorax. '*4, 'There is no focal consolidation, pleural effusion or pneumothorax.'),
    ('No.', 'There is moderate cardiomegaly with pulmonary edema and bilateral pleural effusions, larger on the right.')]

def ours():
    "`text_metrics.clean_r2gen` without importing the package and what it needs"
    for name in ('cxr_llava', 'cxr_llava.core', 'cxr_llava.core.files', 'cxr_llava.report'): sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules['cxr_llava.core.files'].CXRError = ValueError
    spec = importlib.util.spec_from_file_location('cxr_llava.report.text_metrics', ROOT/'cxr_llava/report/text_metrics.py')
    m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)
    return m.clean_r2gen

def coco(pairs):
    "Corpus and per-pair BLEU of pycocoevalcap"
    from pycocoevalcap.bleu.bleu import Bleu
    gts, res = ({i: [p[k]] for i,p in enumerate(pairs)} for k in (1, 0))
    with contextlib.redirect_stdout(io.StringIO()): bleu, each = Bleu(4).compute_score(gts, res)
    return dict(bleu=list(bleu), bleu_each=[list(b) for b in each])

def rouge(pairs):
    from rouge_score.rouge_scorer import RougeScorer
    kinds = ['rouge1', 'rouge2', 'rougeL']
    return dict(plain=[[RougeScorer(kinds).score(r, p)[k].fmeasure for k in kinds] for p,r in pairs])

def main(out):
    from importlib.metadata import version
    clean = ours()
    packages = ('pycocoevalcap', 'rouge-score')
    result = dict(made_by='tools/make_metric_references.py', versions={p: version(p) for p in packages}, pairs=PAIRS,
                  coco={'raw': coco(PAIRS), 'r2gen': coco([(clean(p), clean(r)) for p,r in PAIRS])}, rouge=rouge(PAIRS))
    Path(out).write_text(json.dumps(result, indent=1)+'\n', encoding='utf-8')

if __name__=='__main__': main(*sys.argv[1:])
