"""Pictures that are not chest X-rays, drawn from a seed, to train and test the scores of `cxr_llava.xray.checks`: pages, windows of programs, plots,
limbs, heads and bellies as X-rays, slices, ultrasound, landscapes, faces, things, textures"""
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

def _fractal(rng, n=256, slope=2.4):
    "Cloudy texture; `slope`: how fast detail falls with frequency"
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n)))
    f[0, 0] = 1
    a = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, n)))/f**(slope/2)).real
    return 255*(a - a.min())/(np.ptp(a) + 1e-9)

def _grey(a, blur=0):
    "Array -> picture"
    im = a if isinstance(a, Image.Image) else Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))
    return im.filter(ImageFilter.GaussianBlur(blur)) if blur else im

def _oval(d, x, y, rx, ry, fill): d.ellipse([x - rx, y - ry, x + rx, y + ry], fill=int(fill))

def _page(rng):
    im, size = Image.new('L', (256, 330), int(rng.choice([20, 245, 245]))), int(rng.integers(6, 14))
    d, ink = ImageDraw.Draw(im), 230 if im.getpixel((0, 0)) < 99 else 10
    words = 'the lungs are clear heart size normal no effusion report patient date total sum figure table of and in 12 37 2024'.split()
    for y in range(8, 320, int(size*1.4)):
        if rng.random() > .1: d.text((10, y), ' '.join(rng.choice(words, int(rng.integers(3, 14)))), fill=ink, font=ImageFont.load_default(size))
    return im

def _program(rng):
    im = Image.new('L', (400, 256), int(rng.integers(20, 250)))
    d = ImageDraw.Draw(im)
    for _ in range(int(rng.integers(4, 14))):
        x, y, w, h = (int(rng.integers(a, b)) for a,b in ((0, 360), (0, 236), (20, 200), (10, 120)))
        d.rectangle([x, y, x + w, y + h], fill=int(rng.integers(0, 255)), outline=int(rng.integers(0, 255)))
        d.text((x + 4, y + 2), 'File Edit View Settings Cancel'[:int(rng.integers(5, 30))], fill=int(rng.integers(0, 255)), font=ImageFont.load_default(9))
    return im

def _plot(rng):
    im = Image.new('L', (330, 256), 250)
    d = ImageDraw.Draw(im)
    d.line([30, 10, 30, 226, 320, 226], fill=0)
    for _ in range(int(rng.integers(1, 4))):
        y = np.cumsum(rng.standard_normal(60))
        d.line([(30 + 5*i, float(v)) for i,v in enumerate(15 + 200*(y - y.min())/np.ptp(y))], fill=int(rng.integers(0, 160)), width=2)
    for i in range(int(rng.integers(0, 9))): d.rectangle([40 + i*30, 226 - int(rng.integers(10, 150)), 60 + i*30, 226], fill=int(rng.integers(30, 200)))
    return im

def _limb(rng):
    h, n, half = int(rng.uniform(256, 380)), int(rng.integers(1, 6)), rng.uniform(40, 100)
    im, lean = Image.new('L', (256, h), int(rng.integers(0, 25))), rng.uniform(-50, 50)
    d = ImageDraw.Draw(im)
    def bar(x, w, fill): d.polygon([(x - w + lean, 0), (x + w + lean, 0), (x + w - lean, h), (x - w - lean, h)], fill=int(fill))
    bar(128, half, rng.integers(60, 120))
    for i in range(n):
        x, w, y = 128 + (i - (n - 1)/2)*half*1.6/n, half*.5/n + 3, rng.uniform(.3, .7)*h
        bar(x, w, rng.integers(150, 235)), bar(x, w*.45, rng.integers(110, 180))
        if rng.random() > .6: continue
        for k in (-14, 14): _oval(d, x, y + k, w*1.5, 11, 190)
        d.rectangle([x - w*1.4, y - 4, x + w*1.4, y + 4], fill=70)
    return _grey(im, 1.5)

def _skull(rng):
    im, r = Image.new('L', (256, 256), 5), rng.uniform(90, 118)
    d = ImageDraw.Draw(im)
    _oval(d, 128, 115, r*.85, r, 200), _oval(d, 128, 115, r*.75, r*.9, rng.integers(110, 160)), d.rectangle([128 - r*.4, 180, 128 + r*.4, 230], fill=190)
    for s in (-1, 1): _oval(d, 128 + s*r*.4, 128, 20, 15, 70)
    for i in range(8): d.rectangle([128 - r*.35 + i*r*.09, 200, 128 - r*.3 + i*r*.09, 215], fill=240)
    return _grey(im, 2)

def _belly(rng):
    im = _grey(_fractal(rng, slope=2.6)/4 + 100)
    d = ImageDraw.Draw(im)
    for y in range(0, 250, 50): d.rectangle([112, y, 144, y + 40], fill=190), d.rectangle([93, y + 14, 163, y + 22], fill=175)
    for s in (-1, 1): _oval(d, 128 + s*75, 230, 55, 51, 185), _oval(d, 128 + s*60, 233, 25, 23, 120)
    for _ in range(int(rng.integers(2, 9))): _oval(d, rng.uniform(30, 226), rng.uniform(20, 180), r := rng.uniform(8, 25), r*.7, rng.integers(50, 90))
    return _grey(im, 2.5)

def _ct(rng):
    im, rx, ry = Image.new('L', (256, 256), 0), rng.uniform(97, 123), rng.uniform(72, 97)
    d = ImageDraw.Draw(im)
    _oval(d, 128, 128, rx, ry, rng.integers(100, 140)), _oval(d, 128, 128, rx*.92, ry*.9, rng.integers(140, 170))
    for s in (-1, 1): _oval(d, 128 + s*rx*.45, 128, rx*.36, ry*.67, rng.integers(5, 40))
    _oval(d, 128 + rx*.08, 128 - ry*.1, rx*.28, ry*.32, 175), _oval(d, 128, 128 + ry*.7, 14, ry*.15, 240)
    for t in np.arange(0, 6.2, .45): _oval(d, 128 + rx*.84*np.cos(t), 128 + ry*.8*np.sin(t), 7, 4, 235)
    return _grey(im, 1.2)

def _mr(rng):
    im, r = Image.new('L', (256, 256), 0), rng.uniform(84, 115)
    d = ImageDraw.Draw(im)
    for k,v in ((1, 200), (.91, 30), (.87, 130)): _oval(d, 128, 128, r*.8*k, r*k, v)
    im = _grey(np.asarray(im) + _fractal(rng, slope=2.)/5*(np.asarray(im) == 130))
    for s in (-1, 1): _oval(ImageDraw.Draw(im), 128 + s*18, 118, 9, 30, rng.integers(10, 60))
    return _grey(im, 1.2)

def _ultrasound(rng):
    im, fan = Image.new('L', (330, 256), 0), Image.new('L', (330, 256), 0)
    ImageDraw.Draw(fan).pieslice([-20, -230, 350, 250], 50, 130, fill=255)
    im.paste(_grey(rng.gamma(1., 60, (256, 330))*(.5 + _fractal(rng, 512, 2.5)[:256, :330]/255), 1), (0, 0), fan)
    return im

def _landscape(rng):
    y, ridge = np.arange(256)[:, None], rng.uniform(80, 180) + np.cumsum(rng.standard_normal(360))*2
    sky = np.linspace(rng.uniform(150, 250), rng.uniform(120, 220), 256)[:, None]
    return _grey(np.where(y > ridge, _fractal(rng, 512, 1.6)[:256, :360]*.6 + rng.uniform(10, 80), sky))

def _face(rng):
    im, x, r = _grey(_fractal(rng, slope=2.6)*.5 + 60), rng.uniform(108, 148), rng.uniform(51, 90)
    d = ImageDraw.Draw(im)
    _oval(d, x, 100, r*1.1, r*1.35, rng.integers(20, 90)), d.rectangle([x - r*1.8, 107 + r*1.5, x + r*1.8, 260], fill=int(rng.integers(30, 200)))
    _oval(d, x, 115, r*.85, r*1.2, rng.integers(140, 220)), _oval(d, x, 107 + r*.6, r*.3, 6, 110)
    for s in (-1, 1): _oval(d, x + s*r*.4, 97, 7, 4, 40)
    return _grey(im, 2)

def _things(rng):
    im = _grey(_fractal(rng)*.4 + rng.uniform(0, 150))
    d = ImageDraw.Draw(im)
    for _ in range(int(rng.integers(2, 12))):
        x, y, r, f, k = rng.uniform(0, 256), rng.uniform(0, 256), rng.uniform(8, 90), int(rng.integers(0, 255)), rng.integers(3)
        if k == 0: _oval(d, x, y, r, r*.8, f)
        elif k == 1: d.polygon([(x + r*np.cos(t), y + r*np.sin(t)) for t in np.sort(rng.uniform(0, 6.3, 5))], fill=f)
        else: d.rectangle([x - r, y - r*.6, x + r, y + r*.6], fill=f)
    return _grey(im, rng.uniform(0, 2))

def _texture(rng): return _grey(_fractal(rng, slope=rng.uniform(1, 3.2)))
def _noise(rng): return _grey(rng.normal(rng.uniform(60, 200), rng.uniform(2, 90), (256, 256)))
def _checks(rng): return _grey((np.add.outer(*[np.arange(256)//rng.integers(4, 60)]*2) % 2)*rng.uniform(60, 255))

def _stripes(rng):
    y, x = np.mgrid[:256, :256]
    return _grey(127 + rng.uniform(40, 120)*np.sin((x*np.cos(t := rng.uniform(0, 3.2)) + y*np.sin(t))*rng.uniform(.03, .8)))

def _slope(rng):
    y, x = np.mgrid[:256, :256]/256 - .5
    a = x*np.cos(t := rng.uniform(0, 6.3)) + y*np.sin(t) if rng.random() < .5 else np.hypot(x, y)*rng.choice([-1, 1])
    return _grey(255*(a - a.min())/np.ptp(a))

OTHERS = dict(page=_page, program=_program, plot=_plot, limb=_limb, skull=_skull, belly=_belly, ct=_ct, mr=_mr, ultrasound=_ultrasound, landscape=_landscape,
    face=_face, things=_things, texture=_texture, noise=_noise, checks=_checks, stripes=_stripes, slope=_slope)

def other_picture(
    kind:str, # Key of `OTHERS`
    seed:int=0, # The same seed gives the same picture
)->Image.Image: # Mode 'L'
    "Draw a picture that is not a chest X-ray"
    return OTHERS[kind](np.random.default_rng(seed))
