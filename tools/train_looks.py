"""Train and measure the two scores of `cxr_llava.xray.checks`: `python tools/train_looks.py [--xrays FOLDER] [--others FOLDER]`

Trains on phantoms and drawn pictures only and prints the weights to paste into `nbs/xray/03_checks.ipynb`, with areas under the ROC curve on
unseen phantoms and pictures, and on folders of real X-rays and other pictures if given (nothing of those goes into the weights).
"""
import argparse
from pathlib import Path
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from cxr_llava.xray.pixels import ImageError
from cxr_llava.xray.read import read_xray
from cxr_llava.xray.checks import appearance_features, looks_inverted
from cxr_llava.xray.drawing import draw_lateral, draw_xray, sample_body
from cxr_llava.xray.phantom import sample_truth
from other_pictures import other_picture, OTHERS

def vary(im, rng):
    "Cropped, tilted, lighter or darker, mirrored, framed, marked"
    w, h = im.size
    if rng.random() < .6: im = im.crop([int(o) for o in (rng.uniform(0, .08)*w, rng.uniform(0, .08)*h, w*rng.uniform(.92, 1), h*rng.uniform(.92, 1))])
    im = im.rotate(rng.uniform(-5, 5), resample=Image.BILINEAR)
    gamma, lo, hi = rng.uniform(.6, 1.7), rng.uniform(0, 30), rng.uniform(200, 255)
    im = im.point([int(lo + (hi - lo)*(v/255)**gamma) for v in range(256)])
    if rng.random() < .3: im = ImageOps.mirror(im)
    if rng.random() < .3: im = ImageOps.expand(im, border=int(rng.integers(2, 25)), fill=int(rng.choice([0, 0, 255])))
    if rng.random() < .4: ImageDraw.Draw(im).text((int(rng.choice([8, im.width - 30])), 8), str(rng.choice(['L', 'R', 'AP'])), fill=255, font=ImageFont.load_default(16))
    return im

def phantoms(n, seed, lateral):
    "`n` varied phantoms, a share of them lateral"
    rng = np.random.default_rng(seed)
    for _ in range(n):
        t, k = sample_truth(rng), int(rng.integers(10**6))
        yield vary(draw_lateral(t, sample_body(rng), k, 256) if rng.random() < lateral else draw_xray(t, None, k, 256), rng)

def rows(ims): return np.array([appearance_features(o) for o in ims])

def chest(ims, w):
    "As `chest_score`, with weights `w`"
    return np.array([max(score(appearance_features(p), w) for p in ([o, ImageOps.invert(o)] if looks_inverted(o) else [o])) for o in ims])

def fit(yes, no, C=.1):
    "Weights in thousandths, the constant last"
    x = np.r_[yes, no]
    mu, sd = x.mean(0), x.std(0) + 1e-3
    mu[:144], sd[:144] = 0, 1
    m = LogisticRegression(C=C, max_iter=5000, class_weight='balanced').fit((x - mu)/sd, np.r_[np.ones(len(yes)), np.zeros(len(no))])
    w = m.coef_[0]/sd
    return np.round(1000*np.r_[w, m.intercept_[0] - w @ mu]).astype(int)

def score(x, w): return x @ (w[:-1]/1000) + w[-1]/1000
def auroc(a, b): return roc_auc_score(np.r_[np.ones(len(a)), np.zeros(len(b))], np.r_[a, b])

def folder(d):
    "Every picture below a folder that can be read, and its name"
    for p in sorted(Path(d).rglob('*')):
        if p.is_file():
            try: yield p.name, read_xray(p).image
            except ImageError: pass

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--xrays', help='folder of real chest X-rays, to measure')
    p.add_argument('--others', help='folder of other real pictures, to measure')
    p.add_argument('--each', action='store_true', help='also train without each kind of picture in turn (slow)')
    args = p.parse_args()
    yes, no = rows(phantoms(300, 1, .12)), rows(other_picture(k, i) for k in OTHERS for i in range(30))
    w = fit(yes, no)
    front, side = rows(phantoms(120, 12, 0)), rows(phantoms(120, 11, 1))
    lateral = fit(side, front)
    print('_CHEST =', *w), print('_LATERAL =', *lateral)
    seen = [chest(phantoms(100, 2, .12), w), chest((other_picture(k, 10**6 + i) for k in OTHERS for i in range(10)), w)]
    print(f'unseen phantoms against unseen drawn pictures: AUROC {auroc(*seen):.4f}; lateral: {auroc(score(rows(phantoms(30, 13, 1)), lateral), score(rows(phantoms(30, 14, 0)), lateral)):.4f}')
    if args.each:
        for k in OTHERS: # left out of training in turn
            v = fit(yes, rows(other_picture(o, i) for o in OTHERS if o != k for i in range(25)))
            print(f'  {k} never seen: AUROC {auroc(chest(phantoms(100, 2, .12), v), chest((other_picture(k, 10**6 + i) for i in range(20)), v)):.4f}', flush=True)
    real = {k: list(folder(d)) for k,d in (('xrays', args.xrays), ('others', args.others)) if d}
    got = {k: chest((im for _,im in v), w) for k,v in real.items()}
    for k,v in got.items():
        print(f'{len(v)} real {k}: AUROC against the {"drawn pictures" if k == "xrays" else "phantoms"} {auroc(v, seen[1]) if k == "xrays" else auroc(seen[0], v):.4f}')
        print('   nearest to the other side:', sorted(zip(np.round(v*(1 if k == 'xrays' else -1), 1), (n[:24] for n,_ in real[k])))[:8])
    if len(got) == 2: print(f'real X-rays against other real pictures: AUROC {auroc(got["xrays"], got["others"]):.4f}')
    if 'xrays' in real: print('most lateral:', sorted(zip(np.round(score(rows(im for _,im in real['xrays']), lateral), 1), (n[:24] for n,_ in real['xrays'])))[-8:])

if __name__ == '__main__': main()
