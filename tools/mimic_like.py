"""A tree in the form of MIMIC-CXR-JPG at any size, made up from a seed: `python tools/mimic_like.py FOLDER [--scale 0.01]`

Tables, folders, report layouts and counts are those of the official tree; every id is drawn at run time and belongs to nobody, every
report is put together from the sentences below, and every X-ray is a link to one small grey picture."""
import argparse, csv, gzip, io, os, random, sys, time, zipfile
from pathlib import Path

PATIENTS, STUDIES, XRAYS = 65_379, 227_827, 377_110 # MIMIC-CXR-JPG 2.1.0
LABELS = ('Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,'
          'Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices').split(',')
WHO = '___ year old woman|___ year old man|___F|___M|Patient'.split('|')
WHY = 'with cough and fever|with shortness of breath|with chest pain|status post line placement|with altered mental status|with hypoxia|preoperative evaluation|fall'.split('|')
SEEN = '''The lungs are clear without focal consolidation.
There is no pleural effusion or pneumothorax.
The cardiomediastinal silhouette is {size}.
Heart size is {size}.
Mild bibasilar atelectasis is {change}.
A {amount} {side} pleural effusion is {change}.
There is {amount} pulmonary vascular congestion without overt edema.
The endotracheal tube tip terminates {n} cm above the carina.
A {side} internal jugular central venous catheter terminates in the {where}.
Patchy opacity in the {side} {zone} may reflect aspiration or early infection.
Median sternotomy wires and mediastinal clips are noted.
No acute osseous abnormality is identified.
Degenerative changes are seen in the thoracic spine.
There is a {n} mm nodular opacity projecting over the {side} {zone}.
Low lung volumes accentuate the bronchovascular markings.
The {side} hemidiaphragm is elevated, as on ___.
Linear opacity at the {side} base is compatible with scarring.
The aorta is tortuous with atherosclerotic calcification at the arch.
A nasogastric tube courses below the diaphragm, out of view.
Compared with the prior study of ___, aeration of the {side} {zone} has improved.
Left-sided pacemaker leads are in unchanged position.
Multiple healed {side} rib fractures are again noted.'''.split('\n')
SAID = '''No acute cardiopulmonary process.
No evidence of pneumonia.
{amount} {side} pleural effusion, {change}.
Findings suggest {amount} pulmonary edema.
Possible early pneumonia in the {side} {zone}; follow-up is recommended.
Standard position of the support devices.
{amount} bibasilar atelectasis.
Stable cardiomegaly without acute failure.'''.split('\n')
FILL = dict(size=['normal', 'mildly enlarged', 'moderately enlarged', 'top normal', 'stable'], change=['unchanged', 'increased', 'decreased', 'new', 'stable since ___'],
    amount=['small', 'moderate', 'large', 'trace', 'mild'], side=['right', 'left'], zone=['lower lobe', 'upper lobe', 'mid lung', 'base'],
    where=['low SVC', 'mid SVC', 'right atrium', 'cavoatrial junction'], n=[str(i) for i in range(2, 30)])

def sentence(rng, bank): return rng.choice(bank).format(**{k: rng.choice(v) for k,v in FILL.items()})

def wrapped(text, width=80):
    "Text broken into lines the way the hospital's printer did"
    lines, line = [], ''
    for w in text.split():
        if len(line) + len(w) > width: lines.append(line); line = ''
        line += w + ' '
    return '\n '.join(lines + [line.rstrip()])

def report(rng):
    "One report in one of the layouts that occur"
    r = rng.random()
    why = f'{rng.choice(WHO)} {rng.choice(WHY)}.  // {rng.choice(("pneumonia?", "interval change", "eval for effusion"))}'
    findings = wrapped('  '.join(sentence(rng, SEEN) for _ in range(rng.randint(4, 11))))
    said = [sentence(rng, SAID) for _ in range(rng.randint(1, 3))]
    impression = said[0] if len(said) == 1 else '\n '.join(f'{i}. {s}' for i,s in enumerate(said, 1))
    head = f'{" "*33}FINAL REPORT\n EXAMINATION:  CHEST ({rng.choice(("PA AND LAT", "PORTABLE AP"))})\n \n INDICATION:  {wrapped(why)}\n \n '
    compare = f'COMPARISON:  {rng.choice(("___", "None.", "Chest radiograph ___"))}\n \n '
    if r < .62: return f'{head}TECHNIQUE:  {rng.choice(("Chest PA and lateral", "Single portable view"))}\n \n {compare}FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n'
    if r < .80: return f'{head}{compare}IMPRESSION:  {impression}\n'
    if r < .88: return f'{head}{compare}FINDINGS:  {findings}\n'
    if r < .96: return f'{" "*33}FINAL REPORT\n PORTABLE CHEST, ___\n \n COMPARISON:  ___.\n \n {findings}\n'
    if r < .98: return f' WET READ: ___ ___ ___ 9:12 PM\n {said[0]}\n______________________________________________________________________________\n{head}FINDINGS:  {findings}\n \n IMPRESSION:  {impression}\n'
    return f'{head}{compare}FINDINGS:  {findings}\n \n IMPRESSION:  {impression}\n \n ADDENDUM:  {sentence(rng, SEEN)}\n'

def spread(rng, total, bins):
    "`total` things over `bins`, at least one each, a few with very many"
    res = [1]*bins
    weights = [rng.paretovariate(2.5) for _ in range(bins)]
    for i in rng.choices(range(bins), weights, k=total - bins): res[i] += 1
    return res

def plan(scale, seed=0):
    "(patient number, split, [(study number, [X-ray names])]) of every patient"
    rng = random.Random(seed)
    np, ns, nx = (max(1, round(o*scale)) for o in (PATIENTS, STUDIES, XRAYS))
    patients = sorted(rng.sample(range(10**7, 2*10**7), np))
    studies = iter(rng.sample(range(5*10**7, 6*10**7), ns))
    views = iter(spread(random.Random(seed + 1), nx, ns))
    for p,k in zip(patients, spread(rng, ns, np)):
        r = rng.random()
        split = 'test' if r < .0045 else 'validate' if r < .0122 else 'train'
        yield p, split, [(s, ['-'.join(f'{rng.getrandbits(32):08x}' for _ in range(5)) for _ in range(next(views))]) for _,s in zip(range(k), studies)]

def grey_jpeg(size=96):
    "A small grey picture as JPEG bytes"
    from PIL import Image
    b = io.BytesIO()
    Image.linear_gradient('L').resize((size, size)).save(b, 'JPEG')
    return b.getvalue()

class Links:
    "Puts the one X-ray under many names: hard links, a fresh copy where the file system allows no more of them"
    def __init__(self, top): self.top, self.n, self.data = top, 0, grey_jpeg()
    def put(self, path):
        if self.n % 30_000 == 0:
            self.base = self.top/f'shared{self.n//30_000}.jpg'
            self.base.write_bytes(self.data)
        os.link(self.base, path)
        self.n += 1

def table(folder, name, columns, packed):
    "An open CSV writer, gzipped as PhysioNet has it"
    path = folder/f'mimic-cxr-2.0.0-{name}.csv{".gz" if packed else ""}'
    f = io.TextIOWrapper(gzip.GzipFile(path, 'wb', 1, mtime=0), 'utf-8', newline='') if packed else open(path, 'w', newline='')
    w = csv.writer(f)
    w.writerow(columns)
    return f, w

def write_tree(folder, scale=1., seed=0, reports='tree', packed=True, say=print):
    "Write the whole tree; (patients, studies, X-rays)"
    folder, start, n = Path(folder), time.time(), [0, 0, 0]
    folder.mkdir(parents=True, exist_ok=True)
    rng, links = random.Random(seed + 2), Links(folder)
    (f1, split), (f2, meta), (f3, chex), (f4, negbio) = (table(folder, *o, packed) for o in (
        ('split', ['dicom_id', 'study_id', 'subject_id', 'split']),
        ('metadata', ['dicom_id', 'subject_id', 'study_id', 'PerformedProcedureStepDescription', 'ViewPosition', 'Rows', 'Columns', 'StudyDate', 'StudyTime']),
        ('chexpert', ['subject_id', 'study_id'] + LABELS), ('negbio', ['subject_id', 'study_id'] + LABELS)))
    z = zipfile.ZipFile(folder/'mimic-cxr-reports.zip', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) if reports == 'zip' else None
    for p,name,studies in plan(scale, seed):
        home = f'files/p{str(p)[:2]}/p{p}'
        n[0] += 1
        for s,xrays in studies:
            os.makedirs(folder/home/f's{s}')
            if z: z.writestr(f'{home}/s{s}.txt', report(rng))
            else: (folder/home/f's{s}.txt').write_text(report(rng))
            labels = [rng.choice(('', '', '', '1.0', '0.0', '-1.0')) for _ in LABELS]
            for w in (chex, negbio): w.writerow([p, s] + labels)
            day = f'{rng.randint(2110, 2200)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}'
            for k,x in enumerate(xrays):
                links.put(folder/home/f's{s}'/f'{x}.jpg')
                split.writerow([x, s, p, name])
                meta.writerow([x, p, s, 'CHEST (PA AND LAT)', ('PA', 'LATERAL', 'AP', 'LL', '')[k % 5] if rng.random() < .7 else 'AP', 3056, 2544, day, '120000.5'])
            n[1] += 1; n[2] += len(xrays)
        if n[0] % 10_000 == 0: say(f'  {n[0]} patients, {n[1]} reports, {n[2]} X-rays')
    for f in (f1, f2, f3, f4) + ((z,) if z else ()): f.close()
    say(f'{n[0]} patients, {n[1]} reports, {n[2]} X-rays written to {folder} in {time.time() - start:.0f} s')
    return tuple(n)

def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('folder', type=Path, help='new or empty')
    p.add_argument('--scale', type=float, default=1., help='1 is the size of MIMIC-CXR-JPG')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--reports', choices=('tree', 'zip'), default='tree', help='report files beside the X-rays, or mimic-cxr-reports.zip')
    args = p.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()): sys.exit(f'{args.folder} is not empty: give a new folder.')
    write_tree(args.folder, args.scale, args.seed, args.reports)

if __name__ == '__main__': main()
