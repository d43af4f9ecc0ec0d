"Hostile and odd X-rays: the right picture with a note, or one `ImageError` sentence; nothing else, and nothing changed for the user"
import io, os, random, struct, sys, zlib
from pathlib import Path
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from cxr_llava.xray.pixels import ImageError, MAX_PIXELS
from cxr_llava.xray.read import prepare_xray, read_xray, XRay
from cxr_llava.xray.drawing import phantom_xray
sys.path.append(str(Path(__file__).resolve().parents[1]/'tools'))

IM = phantom_xray(4, size=192, cardiomegaly='moderate')
A = np.asarray(IM)

def enc(im, fmt, **kw):
    b = io.BytesIO(); im.save(b, fmt, **kw); return b.getvalue()

def dcm(a, syntax='1.2.840.10008.1.2.1', pixels=None, drop=(), **tags):
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    m = FileMetaDataset()
    m.TransferSyntaxUID, m.MediaStorageSOPClassUID, m.MediaStorageSOPInstanceUID = syntax, '1.2.840.10008.5.1.4.1.1.1.1', '1.2.3'
    ds = FileDataset('', {}, file_meta=m, preamble=b'\0'*128)
    bits = a.dtype.itemsize*8
    kw = dict(SOPClassUID='1.2.840.10008.5.1.4.1.1.1.1', Modality='DX', PatientName='Zebra^Quagga', PatientID='77123', Rows=a.shape[-2], Columns=a.shape[-1],
        SamplesPerPixel=1, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(a.dtype.kind == 'i'),
        PhotometricInterpretation='MONOCHROME2') | tags
    for k,v in kw.items():
        if k not in drop: setattr(ds, k, v)
    if 'PixelData' not in drop:
        ds.PixelData = a.tobytes() if pixels is None else pixels
        ds['PixelData'].VR = 'OW'
        if pixels is not None: ds['PixelData'].is_undefined_length = True
    b = io.BytesIO(); ds.save_as(b, enforce_file_format=True)
    return b.getvalue()

def like(x, a=A, most=2.5): return np.abs(np.asarray(x.image).astype(int) - a.astype(int)).mean() <= most

def png_bomb(w, h, depth=1):
    def chunk(t, d): return struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t + d))
    rows = zlib.compress(b'\0'*1000)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, depth, 0, 0, 0, 0)) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')

A16, A12 = A.astype(np.uint16)*257, A.astype(np.uint16)*16
def exif(o): e = Image.Exif(); e[274] = o; return e
def tiff_white_is_zero(a):
    from PIL import TiffImagePlugin
    b = io.BytesIO(); Image.fromarray(a).save(b, 'TIFF', tiffinfo={262: 0})
    return b.getvalue()
def alpha(v): im = IM.convert('RGBA'); im.putalpha(v); return im

RIGHT = dict(
    png=enc(IM, 'PNG'), jpeg=enc(IM, 'JPEG', quality=95), jpeg_progressive=enc(IM, 'JPEG', quality=95, progressive=True), tiff=enc(IM, 'TIFF'), bmp=enc(IM, 'BMP'),
    tiff_lzw=enc(IM, 'TIFF', compression='tiff_lzw'), tiff_deflate=enc(IM, 'TIFF', compression='tiff_adobe_deflate'), webp=enc(IM, 'WEBP', lossless=True),
    rgb=enc(IM.convert('RGB'), 'PNG'), rgba=enc(IM.convert('RGBA'), 'PNG'), la=enc(IM.convert('LA'), 'PNG'), palette=enc(IM.convert('P'), 'PNG'),
    cmyk_jpeg=enc(IM.convert('CMYK'), 'JPEG', quality=95), cmyk_tiff=enc(IM.convert('CMYK'), 'TIFF'), alpha_zero=enc(alpha(0), 'PNG'),
    png16=enc(Image.fromarray(A16), 'PNG'), png12in16=enc(Image.fromarray(A12), 'PNG'), tiff16=enc(Image.fromarray(A16), 'TIFF'), tiff12=enc(Image.fromarray(A12), 'TIFF'),
    tiff16_min_is_white=tiff_white_is_zero(65535 - A16), tiff_float01=enc(Image.fromarray((A/255).astype(np.float32)), 'TIFF'),
    tiff_float255=enc(Image.fromarray(A.astype(np.float32)), 'TIFF'), tiff32=enc(Image.fromarray(A.astype(np.int32)*257), 'TIFF'), array=A, array16=A16, array_float=A/255.,
    array_chw=A[None], array_hw1=A[..., None], array_rgb=np.stack([A]*3, -1), pil=IM, pil_rgb=IM.convert('RGB'), memory=memoryview(enc(IM, 'PNG')), file=io.BytesIO(enc(IM, 'PNG')),
    dcm8=dcm(A), dcm16=dcm(A16), dcm12=dcm(A12, BitsStored=12, HighBit=11), dcm_mono1=dcm(255 - A, PhotometricInterpretation='MONOCHROME1'),
    dcm_inverse=dcm(255 - A, PresentationLUTShape='INVERSE'), dcm_both=dcm(255 - A, PresentationLUTShape='INVERSE', PhotometricInterpretation='MONOCHROME1'),
    dcm_identity=dcm(A, PresentationLUTShape='IDENTITY'), dcm_window=dcm(A12, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096),
    dcm_windows=dcm(A12, BitsStored=12, HighBit=11, WindowCenter=[2048, 1], WindowWidth=[4096, 2]), dcm_width0=dcm(A, WindowCenter=1, WindowWidth=0),
    dcm_off_window=dcm(A, WindowCenter=-9000, WindowWidth=10), dcm_exact=dcm(A, WindowCenter=127.5, WindowWidth=255, VOILUTFunction='LINEAR_EXACT'),
    dcm_signed=dcm(A12.astype(np.int16) - 2048, WindowCenter=0, WindowWidth=4096), dcm_rescale=dcm(A12, RescaleSlope=.5, RescaleIntercept=-10, WindowCenter=1014, WindowWidth=2048),
    dcm_frames=dcm(np.stack([A, A*0]), NumberOfFrames=2), dcm_burned=dcm(A, BurnedInAnnotation='YES'), dcm_no_photometric=dcm(A, drop=('PhotometricInterpretation',)),
    dcm_implicit=dcm(A, syntax='1.2.840.10008.1.2'), dcm_text_view=dcm(A, ViewPosition='Zebra'))
for o,t in {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE, 6: Image.ROTATE_90, 7: Image.TRANSVERSE, 8: Image.ROTATE_270}.items():
    RIGHT[f'exif{o}_jpeg'] = enc(IM.transpose(t), 'JPEG', quality=95, exif=exif(o))
    RIGHT[f'exif{o}_png'] = enc(IM.transpose(t), 'PNG', exif=exif(o))
    RIGHT[f'exif{o}_tiff'] = enc(IM.transpose(t), 'TIFF', exif=exif(o))

@pytest.mark.parametrize('name', RIGHT)
def test_comes_out_right(name):
    x = read_xray(RIGHT[name])
    assert isinstance(x, XRay) and x.image.mode == 'L' and not x.image.info
    assert like(x, most=6 if 'palette' in name else 2.5)
    assert 'Zebra' not in str(x.meta) + str(x.notes) and '77123' not in str(x.meta)

@pytest.mark.parametrize('name,word', [('exif6_jpeg', 'rotated'), ('exif3_tiff', 'rotated'), ('dcm_windows', 'windows'), ('dcm_burned', 'burned-in'), ('dcm_frames', 'frames'), ('alpha_zero', 'transparent')])
def test_notes(name, word): assert word in ' '.join(read_xray(RIGHT[name]).notes)

def test_more_notes():
    assert 'inverted' in ' '.join(read_xray(ImageOps.invert(IM)).notes)
    photo = Image.merge('RGB', [IM, IM.point(lambda v: v//2), IM.point(lambda v: v//4)])
    assert 'colour photo' in ' '.join(read_xray(enc(photo, 'JPEG')).notes)
    assert 'animated' in ' '.join(read_xray(enc(IM, 'WEBP', save_all=True, append_images=[IM.rotate(9)], lossless=True)).notes)
    assert 'blank' in ' '.join(read_xray(np.zeros((64, 64), np.uint8)).notes)
    assert 'not frontal' in ' '.join(read_xray(dcm(A, ViewPosition='LL')).notes)
    assert 'modality CT' in ' '.join(read_xray(dcm(A, Modality='CT')).notes)

def test_modality_lut():
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    lut = Dataset(); lut.LUTDescriptor = [256, 0, 16]; lut.LUTData = (np.arange(256, dtype=np.uint16)*257).tobytes(); lut.ModalityLUTType = 'US'
    lut['LUTData'].VR = 'OW'; lut['LUTDescriptor'].VR = 'US'
    assert like(read_xray(dcm(A, ModalityLUTSequence=Sequence([lut]))))
    del lut.ModalityLUTType
    assert like(read_xray(dcm(A, VOILUTSequence=Sequence([lut]))))

def compressed(fmt, syntax, a=A, **kw):
    from pydicom.encaps import encapsulate
    return dcm(a, syntax=syntax, pixels=encapsulate([enc(Image.fromarray(a), fmt, **kw)]))

def test_compressed():
    assert like(read_xray(compressed('JPEG', '1.2.840.10008.1.2.4.50', quality=95)))
    assert like(read_xray(compressed('JPEG2000', '1.2.840.10008.1.2.4.90', irreversible=False)))
    import pydicom
    ds = pydicom.dcmread(io.BytesIO(dcm(A))); ds.compress('1.2.840.10008.1.2.5')
    b = io.BytesIO(); ds.save_as(b); assert like(read_xray(b))

def deflated_bomb():
    d = dcm(A, syntax='1.2.840.10008.1.2.1.99')
    at = 132 + 12 + int.from_bytes(d[140:144], 'little'); c = zlib.compressobj(9, zlib.DEFLATED, -15)
    return d[:at] + c.compress(b'\0'*300_000_000) + c.flush()

whole = {k: RIGHT[k] for k in ('png', 'jpeg', 'tiff', 'webp', 'bmp', 'dcm8', 'png16', 'tiff_lzw')}
WRONG = {f'cut_{k}_{p}': v[:int(len(v)*p)] for k,v in whole.items() for p in (.1, .5, .9, .99)}
WRONG |= {f'head_{k}': v[:20] for k,v in whole.items()}
WRONG |= {f'tail_lost_{k}': v[:len(v)//3] + os.urandom(len(v)//2) for k,v in whole.items() if k in ('png', 'png16')}
WRONG |= dict(empty=b'', one=b'\0', text=b'hello', gif=enc(IM, 'GIF'), pdf=b'%PDF-1.7\n', html=b'<html>', svg=b'<svg/>', zip=b'PK\3\4' + b'0'*99, gz=b'\x1f\x8b' + b'0'*99, eps=b'%!PS-Adobe',
    ico=enc(IM, 'ICO'), ppm=enc(IM, 'PPM'), tga=enc(IM, 'TGA'), j2k=enc(IM, 'JPEG2000'), random=os.urandom(5000), zeros=b'\0'*5000, elf=b'\x7fELF' + b'0'*99, npy=b'\x93NUMPY', xml=b'<?xml version="1.0"?>',
    bomb=png_bomb(20000, 20000), bomb_wide=png_bomb(60000, 900), bomb_huge=png_bomb(2**31 - 1, 2**31 - 1), bomb_just=png_bomb(10000, 5001), ribbon=enc(Image.new('L', (900, 200)), 'PNG'),
    tower=enc(Image.new('L', (100, 401)), 'PNG'), tiny=enc(IM.resize((31, 31)), 'PNG'), one_pixel=enc(Image.new('L', (1, 1)), 'PNG'), dcm_magic=b'\0'*128 + b'DICM', dcm_noise=b'\0'*128 + b'DICM' + os.urandom(900),
    dcm_rgb=dcm(np.stack([A]*3, -1).reshape(A.shape[0], -1), SamplesPerPixel=3, PhotometricInterpretation='RGB', PlanarConfiguration=0, Columns=A.shape[1]),
    dcm_ybr=dcm(A, SamplesPerPixel=3, PhotometricInterpretation='YBR_FULL'), dcm_palette=dcm(A, PhotometricInterpretation='PALETTE COLOR'), dcm_us=dcm(A, Modality='US'),
    dcm_pdf=dcm(A, drop=('PixelData',), SOPClassUID='1.2.840.10008.5.1.4.1.1.104.1', EncapsulatedDocument=b'%PDF'), dcm_none=dcm(A, drop=('PixelData',)),
    dcm_short=dcm(A, pixels=None, Rows=A.shape[0]*2), dcm_huge=dcm(A, Rows=65000, Columns=65000), dcm_many=dcm(A, NumberOfFrames=2000), dcm_zero=dcm(A, Rows=0), dcm_norows=dcm(A, drop=('Rows',)),
    dcm_bits=dcm(A, BitsAllocated=7), dcm_no_bits=dcm(A, BitsStored=0), dcm_syntax=dcm(A, syntax='1.2.3.4.5'), dcm_mpeg=compressed('JPEG', '1.2.840.10008.1.2.4.100'), dcm_deflated_bomb=deflated_bomb(),
    dcm_bad_jpeg=compressed('JPEG', '1.2.840.10008.1.2.4.50')[:-3000], dcm_frame_size=compressed('JPEG', '1.2.840.10008.1.2.4.50').replace(struct.pack('<HHI', 0x28, 0x10, 0)[:4] + b'US\2\0' + struct.pack('<H', A.shape[0]), struct.pack('<HH', 0x28, 0x10) + b'US\2\0' + struct.pack('<H', 64)),
    nothing=None, number=7, listed=[1, 2], dictionary={}, text_file=io.StringIO('x'), closed=(lambda f: (f.close(), f)[1])(io.BytesIO(b'x')), missing='/no/such/file.png', url='https://example.org/x.png',
    nul='a\0b.png', surrogate='\ud800.png', long='x'*5000, folder=os.path.dirname(os.path.abspath(__file__)), empty_name='', nan=np.full((64, 64), np.nan), strings=np.array([['a']*64]*64), cube=np.zeros((64, 64, 64)),
    flat=np.zeros(4096), empty_array=np.zeros((0, 0)), complex=np.zeros((64, 64), complex), objects=np.full((64, 64), None), big_array=np.broadcast_to(np.uint8(0), (10000, 10000)), device='/dev/zero', pipe='/dev/stdin')

@pytest.mark.parametrize('name', WRONG)
def test_refused_in_one_sentence(name):
    with pytest.raises(ImageError) as e: read_xray(WRONG[name])
    s = str(e.value)
    assert 20 < len(s) < 400 and '\n' not in s and s.endswith('.') and 'site-packages' not in s and 'Traceback' not in s and '/images.py' not in s
    assert e.value.__cause__ is None

def test_every_flip_of_a_bit_is_safe():
    rng = random.Random(0)
    for name in ('png', 'jpeg', 'tiff', 'webp', 'bmp', 'dcm8', 'dcm_windows', 'tiff_lzw', 'exif6_jpeg'):
        for _ in range(25):
            d = bytearray(RIGHT[name])
            for _ in range(rng.choice([1, 3, 30])): d[rng.randrange(min(len(d), rng.choice([60, 400, len(d)])))] = rng.randrange(256)
            try: assert read_xray(bytes(d)).image.mode == 'L'
            except ImageError as e: assert '\n' not in str(e)

def test_suffix_does_not_matter(tmp_path):
    for n in ('x.png', 'x.dcm', 'x', 'x.txt', 'x.exe', 'a\nb.jpg'):
        p = tmp_path/n; p.write_bytes(RIGHT['jpeg']); assert like(read_xray(p)) and like(read_xray(str(p)))
        p.write_bytes(b'junk')
        with pytest.raises(ImageError) as e: read_xray(p)
        assert '\n' not in str(e.value) and str(tmp_path) not in str(e.value)

def test_settings_of_pillow_are_left_alone():
    old = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    for v in (RIGHT['png'], RIGHT['dcm8'], WRONG['bomb'], WRONG['cut_jpeg_0.5']):
        try: read_xray(v)
        except ImageError: pass
    assert old == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)

def test_source_is_left_alone():
    im = IM.copy(); a = A.copy(); f = io.BytesIO(RIGHT['png']); f.seek(5)
    read_xray(im); x = read_xray(a); read_xray(f)
    x.image.putpixel((0, 0), 99)
    assert np.array_equal(np.asarray(im), A) and np.array_equal(a, A) and f.tell() == 5

def test_large_pictures_stay_small_in_memory():
    import resource, time
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
    big = Image.new('RGBA', (7000, 7000), (90, 90, 90, 200))
    x = read_xray(enc(big.convert('RGB'), 'JPEG')); del big
    assert x.image.size == (7000, 7000) and prepare_xray(x).size == (336, 336)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000 and time.time() - start < 60

# Compressed DICOM, encoded with GDCM where it is installed

def gdcm_encoded(data, syntax, tmp_path):
    gdcm = pytest.importorskip('gdcm')
    a, b = tmp_path/'a.dcm', tmp_path/'b.dcm'; a.write_bytes(data)
    r, c, w = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    r.SetFileName(str(a)); assert r.Read()
    c.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax))); c.SetInput(r.GetImage()); assert c.Change()
    w.SetFileName(str(b)); w.SetFile(r.GetFile()); w.SetImage(c.GetOutput()); assert w.Write()
    return b.read_bytes()

PLAIN = dict(u8=lambda: dcm(A), u12=lambda: dcm(A12, BitsStored=12, HighBit=11), s16=lambda: dcm(A12.astype(np.int16) - 2048, WindowCenter=0, WindowWidth=4096))
@pytest.mark.parametrize('syntax,kinds', [('JPEGExtendedProcess2_4', ['u8', 'u12']), ('JPEGLosslessProcess14', ['u12']), ('JPEGLosslessProcess14_1', ['u8', 'u12', 's16']),
    ('JPEGLSLossless', ['u8', 'u12', 's16']), ('JPEG2000Lossless', ['u12', 's16']), ('RLELossless', ['u12'])])
def test_compressed_like_plain(syntax, kinds, tmp_path):
    for k in kinds:
        data = gdcm_encoded(PLAIN[k](), syntax, tmp_path)
        assert like(read_xray(data)), k
        if syntax != 'RLELossless':
            with pytest.raises(ImageError): read_xray(data[:len(data)*2//3])

def test_damaged_frames_cannot_crash(tmp_path):
    "GDCM ends the process on some of these; it runs in one of its own"
    data, rng = gdcm_encoded(PLAIN['u12'](), 'JPEGLosslessProcess14_1', tmp_path), random.Random(0)
    for _ in range(8):
        d = bytearray(data)
        for _ in range(20): d[rng.randrange(len(d)*2//3, len(d))] = rng.randrange(256)
        try: read_xray(bytes(d))
        except ImageError: pass

def test_without_the_extra_one_sentence_names_it(tmp_path, monkeypatch):
    import importlib.util
    data = gdcm_encoded(PLAIN['u12'](), 'JPEGLSLossless', tmp_path)
    real = importlib.util.find_spec
    monkeypatch.setattr('importlib.util.find_spec', lambda n, *a: None if n == 'gdcm' else real(n, *a))
    with pytest.raises(ImageError, match=r'cxr_llava\[dicom\]'): read_xray(data)
    assert like(read_xray(dcm(A))) and like(read_xray(compressed('JPEG2000', '1.2.840.10008.1.2.4.90', irreversible=False)))

# DICOM tags that move brightness

def lut(n, first, bits, values, word='<u2'):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    d = Dataset(); d.LUTDescriptor = [n % 65536, first, bits]; d['LUTDescriptor'].VR = 'SS' if first < 0 else 'US'
    d.LUTData = np.asarray(values).astype(word).tobytes(); d['LUTData'].VR = 'OW'
    return Sequence([d])

B12 = dict(BitsStored=12, HighBit=11)
def enhanced():
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence
    g, v, r = Dataset(), Dataset(), Dataset()
    v.WindowCenter, v.WindowWidth, r.RescaleSlope, r.RescaleIntercept = 2048, 4096, -1, 4095
    g.FrameVOILUTSequence, g.PixelValueTransformationSequence = Sequence([v]), Sequence([r])
    return dcm(4095 - A12, SharedFunctionalGroupsSequence=Sequence([g]), **B12)

TAGS = dict(sigmoid=lambda: dcm(A12, WindowCenter=2048, WindowWidth=4096, VOILUTFunction='SIGMOID', **B12), high_bit=lambda: dcm(A12 << 4, BitsStored=12, HighBit=15), overlay_bits=lambda: dcm(A12 | 0x8000, **B12),
    signed12=lambda: dcm(((A12.astype(int) - 2048) & 0xfff).astype(np.uint16), PixelRepresentation=1, **B12), u32=lambda: dcm(A.astype(np.uint32)*65537), slope_minus=lambda: dcm(4095 - A12, RescaleSlope=-1, RescaleIntercept=4095, **B12),
    mono1_window=lambda: dcm(4095 - A12, PhotometricInterpretation='MONOCHROME1', WindowCenter=2048, WindowWidth=4096, **B12), mono1_lower=lambda: dcm(255 - A, PhotometricInterpretation='monochrome1'),
    modality_lut=lambda: dcm(A12, ModalityLUTSequence=lut(4096, 0, 16, np.arange(4096)*16), **B12), voi_lut=lambda: dcm(4095 - A12, VOILUTSequence=lut(4096, 0, 12, 4095 - np.arange(4096)), **B12),
    voi_lut8=lambda: dcm(A12, VOILUTSequence=lut(4096, 0, 8, np.arange(4096)//16), **B12), voi_lut8_packed=lambda: dcm(A12, VOILUTSequence=lut(4096, 0, 8, np.arange(4096)//16, 'u1'), **B12),
    voi_lut_signed=lambda: dcm(((A12.astype(int) - 2048) & 0xfff).astype(np.uint16), PixelRepresentation=1, VOILUTSequence=lut(4096, -2048, 12, np.arange(4096)), **B12), voi_lut_64k=lambda: dcm(A16, VOILUTSequence=lut(65536, 0, 16, np.arange(65536))),
    lying_lut=lambda: dcm(A12, VOILUTSequence=lut(4096, 0, 16, np.arange(4096)), **B12), mono1_voi=lambda: dcm(4095 - A12, PhotometricInterpretation='MONOCHROME1', VOILUTSequence=lut(4096, 0, 12, np.arange(4096)), **B12), enhanced=enhanced,
    slope_zero=lambda: dcm(A12, RescaleSlope=0, RescaleIntercept=0, **B12), deflated=lambda: dcm(A16, syntax='1.2.840.10008.1.2.1.99'), no_preamble=lambda: dcm(A12, **B12)[132:], tiff_preamble=lambda: b'II*\0' + b'\0'*124 + dcm(A12, **B12)[128:],
    no_samples=lambda: dcm(A, drop=('SamplesPerPixel',)), no_sign=lambda: dcm(A12, drop=('PixelRepresentation',), **B12), no_stored=lambda: dcm(A12, drop=('BitsStored', 'HighBit')), no_high=lambda: dcm(A12, drop=('HighBit',), BitsStored=12),
    long_pixels=lambda: dcm(A) + b'\0'*1000, window_text=lambda: dcm(A12, WindowCenter='2048', WindowWidth='4096', **B12), nan_slope=lambda: dcm(A12, RescaleSlope='1e300', RescaleIntercept='0', **B12))

@pytest.mark.parametrize('name', TAGS)
def test_dicom_tags(name):
    b = np.asarray(read_xray(TAGS[name]()).image).astype(float)
    assert np.corrcoef(b.ravel(), A.ravel())[0, 1] > .98 and abs(b.mean() - A.mean()) < 25

def test_marker_does_not_turn_the_film_black():
    "A 12-bit film with a marker of 16 bits, as an array, a PNG and a DICOM file, is as bright as without it"
    a = (np.asarray(phantom_xray(1)).astype(np.uint16)*15)
    for share in (.0005, .002, .01, .03):
        n = int((share*a.size)**.5)
        marked = a.copy(); marked[:n, :n] = 65535
        b = io.BytesIO(); Image.fromarray(marked).save(b, 'PNG')
        for src in (marked, b.getvalue(), dcm(marked)):
            x = read_xray(src)
            assert 'brightness range stretched' in x.notes and abs(np.asarray(x.image)[n:].mean() - a[n:].mean()/16) < 20, (share, x.notes)

def test_big_endian():
    import pydicom
    ds = pydicom.dcmread(io.BytesIO(dcm(A16))); ds.PixelData = A16.astype('>u2').tobytes(); ds['PixelData'].VR = 'OW'; ds.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.2'
    b = io.BytesIO(); pydicom.dcmwrite(b, ds, little_endian=False, implicit_vr=False, enforce_file_format=True)
    assert like(read_xray(b.getvalue()))

def test_padding_is_black():
    top = np.arange(A.shape[0])[:, None] < 12
    for v,tags in ((4000, dict(PixelPaddingValue=4000)), (4000, dict(PixelPaddingValue=3990, PixelPaddingRangeLimit=4095)), (0, dict(PixelPaddingValue=0, PhotometricInterpretation='MONOCHROME1'))):
        a = A12//2 if v else 4095 - A12//2
        b = np.asarray(read_xray(dcm(np.where(top, v, a).astype(np.uint16), **tags, **B12)).image)
        assert b[:12].max() == 0 and np.corrcoef(b[12:].ravel(), A[12:].ravel())[0, 1] > .98

# Files made to be slow or large

def many_tags(n): d = dcm(A); at = len(d) - A.size - 12; return d[:at] + b''.join(struct.pack('<HH2sH', 0x6001 + 2*(i % 1000), i//1000, b'LO', 0) for i in range(n)) + d[at:]
def rle_bomb():
    from pydicom.encaps import encapsulate
    return dcm(np.zeros((5000, 5000), np.uint8), syntax='1.2.840.10008.1.2.5', pixels=encapsulate([struct.pack('<16I', 1, 64, *[0]*14) + b'\x01ab'*9_000_000]))
def scans(n):
    d = enc(Image.new('L', (7000, 7000)), 'JPEG', progressive=True, quality=20); at, end = d.rfind(b'\xff\xda'), d.rfind(b'\xff\xd9')
    return d[:end] + d[at:end]*n + d[end:]
SLOW = dict(many_tags=lambda: many_tags(200_000), rle=rle_bomb, scans=lambda: scans(30), fragments=lambda: dcm(A, syntax='1.2.840.10008.1.2.4.50', pixels=b'\xfe\xff\0\xe0\0\0\0\0'*200_000), short_bmp=lambda: enc(IM, 'BMP')[:-4000],
    tiff_lies=lambda: enc(IM, 'TIFF').replace(struct.pack('<HHI', 256, 4, 1) + struct.pack('<I', 192), struct.pack('<HHI', 256, 4, 1) + struct.pack('<I', 4000)), restarts=lambda: b'\xff\xd8' + b'\xff\xd0'*1_000_000,
    jpeg_lossless_lies=lambda: dcm(A, syntax='1.2.840.10008.1.2.4.70', pixels=b'\xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\x10\0\0\0\xff\xd8\xff\xc3\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\0'))
@pytest.mark.parametrize('name', SLOW)
def test_slow_files_are_refused_quickly(name):
    import time
    data, start = SLOW[name](), time.process_time()
    with pytest.raises(ImageError): read_xray(data)
    assert time.process_time() - start < 4

# Odd sources

def test_special_files(tmp_path):
    os.mkfifo(tmp_path/'fifo.png'); (tmp_path/'loop.png').symlink_to(tmp_path/'loop.png'); (tmp_path/'empty.png').touch(); (tmp_path/'gone.png').symlink_to(tmp_path/'nowhere.png')
    for n in ('fifo.png', 'loop.png', 'empty.png', 'gone.png', '.'):
        with pytest.raises(ImageError) as e: read_xray(tmp_path/n)
        assert str(tmp_path) not in str(e.value)
    (tmp_path/'link.png').symlink_to(tmp_path/'real.jpg'); (tmp_path/'real.jpg').write_bytes(RIGHT['jpeg']); assert like(read_xray(tmp_path/'link.png'))
    if os.geteuid():
        (tmp_path/'real.jpg').chmod(0)
        with pytest.raises(ImageError, match='permissions'): read_xray(tmp_path/'real.jpg')

class Nasty:
    def __init__(self, **kw): self.__dict__.update(kw)
    def __getattr__(self, k): raise RuntimeError('no ' + k)
class BadPath(os.PathLike):
    def __fspath__(self): raise RuntimeError('no path')
class Endless:
    def read(self, n=-1): return b'\0'*min(max(n, 0), 1000)
class Greedy:
    def read(self, n=-1): return 'text'
@pytest.mark.parametrize('src', [Nasty(), BadPath(), Endless(), Greedy(), Nasty(read=lambda n: 1/0), object, iter([1]), b'\xff'*40, True, float('nan'), range(3), memoryview(np.zeros((9, 9))), np.zeros((40, 40), 'M8[s]'), np.zeros((0, 40)), np.zeros((2, 40, 40, 3))], ids=lambda o: type(o).__name__)
def test_nasty_objects(src):
    with pytest.raises(ImageError): read_xray(src)

@pytest.mark.parametrize('name', ['<img src=x onerror=alert(1)>.png', 'a\nb\r.png', '\u202egnp.exe', 'x'*240 + '.png', '-rf', "'; drop table.png", '\x1b[31mred.png', '😀.png', ' '])
def test_hostile_names(name, tmp_path):
    p = tmp_path/name; p.write_bytes(RIGHT['png']); assert like(read_xray(p))
    p.write_bytes(b'junk junk')
    with pytest.raises(ImageError) as e: read_xray(p)
    assert str(e.value).isprintable() and len(str(e.value)) < 250

def test_more_arrays_and_depths():
    for a in (np.stack([A]*3), A.astype(np.float16)/255, A16.astype('>u2'), np.asfortranarray(A), np.ma.array(A), A.astype(np.int64), A.astype(np.int32) - 128): assert np.corrcoef(np.asarray(read_xray(a).image).ravel(), A.ravel())[0, 1] > .98

def test_truncation_is_seen_whatever_pillow_was_told():
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        for k in ('png', 'jpeg', 'tiff', 'bmp', 'webp', 'png16'):
            with pytest.raises(ImageError): read_xray(RIGHT[k][:len(RIGHT[k])*3//4])
    finally: ImageFile.LOAD_TRUNCATED_IMAGES = False

def test_threads_leave_nothing_behind():
    import warnings
    from concurrent.futures import ThreadPoolExecutor
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    def one(i):
        try: return read_xray([RIGHT['png'], RIGHT['dcm_windows'], WRONG['bomb'], WRONG['cut_jpeg_0.5']][i % 4])
        except ImageError as e: return e
    with ThreadPoolExecutor(8) as ex: res = list(ex.map(one, range(80)))
    assert all(like(o) for o in res[::4] + res[1::4]) and all(isinstance(o, ImageError) for o in res[2::4] + res[3::4])
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before

# Prepared X-rays

def test_resize_many(tmp_path, capsys):
    from cxr_llava.xray.read import resize_xrays
    for i in range(6): enc_ = phantom_xray(i, size=160); enc_.save(tmp_path/f'{i}.png')
    (tmp_path/'6.png').write_bytes(b'junk')
    jobs = [(tmp_path/f'{i}.png', f'p{i}/1.jpg') for i in range(8)]
    got = resize_xrays(jobs, tmp_path/'out', 96, 1)
    assert 'per second' in capsys.readouterr().out and {k for k,v in got.items() if 'error' in v} == {'p6/1.jpg', 'p7/1.jpg'}
    files = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path/'out').rglob('*.jpg')}
    index = (tmp_path/'out/index.jsonl').read_bytes()
    assert resize_xrays(jobs, tmp_path/'out', 96, 1) == got and files == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files}
    (tmp_path/'out/p2/1.jpg').unlink(); (tmp_path/'out/index.jsonl').write_bytes(index[:len(index)//2]) # as after kill -9
    assert resize_xrays(jobs, tmp_path/'out', 96, 1) == got
    assert (tmp_path/'out/index.jsonl').read_bytes() == index and all(p.read_bytes() == b for p,(b,_) in files.items())
    assert all(Image.open(p).size == (96, 96) and Image.open(p).mode == 'L' for p in files)

# Looks

def test_damaged_index_costs_time_only(tmp_path):
    from cxr_llava.xray.read import resize_xrays
    phantom_xray(1, size=64).save(tmp_path/'a.png')
    (tmp_path/'out').mkdir(); (tmp_path/'out/index.jsonl').write_bytes(b'\xff\xfe{half')
    facts = resize_xrays([(tmp_path/'a.png', 'a/1.jpg')], tmp_path/'out', workers=1)
    assert 'error' not in facts['a/1.jpg'] and resize_xrays([(tmp_path/'a.png', 'a/1.jpg')], tmp_path/'out', workers=1) == facts

def test_looks():
    from cxr_llava.xray.checks import chest_score
    from other_pictures import other_picture, OTHERS # in tools/
    good, bad = [chest_score(phantom_xray(900 + i, size=160)) for i in range(15)], [chest_score(other_picture(k, 900)) for k in OTHERS]
    assert np.mean([g > b for g in good for b in bad]) > .95
    assert 'does not look like a chest X-ray' in read_xray(other_picture('page')).notes and not read_xray(IM).notes
    assert 'heavy borders' in ' '.join(read_xray(ImageOps.expand(Image.fromarray(A), 60, 255)).notes)

def test_trimming_never_cuts_what_was_exposed():
    from cxr_llava.xray.checks import trim_borders
    for fill in (0, 128, 255):
        for border in ((50, 0, 0, 0), (0, 40, 0, 40), 60): assert np.array_equal(np.asarray(trim_borders(ImageOps.expand(Image.fromarray(A), border, fill)))[1:-1, 1:-1], A[1:-1, 1:-1]) or np.asarray(trim_borders(ImageOps.expand(Image.fromarray(A), border, fill))).size >= A.size
    assert trim_borders(IM).size == IM.size

# Properties

from hypothesis import HealthCheck, given, settings, strategies as st

def reads_or_refuses(src):
    try: x = read_xray(src)
    except ImageError as e: assert '\n' not in str(e) and str(e).endswith('.') and e.__cause__ is None; return None
    assert x.image.mode == 'L' and min(x.image.size) >= 32 and all(isinstance(n, str) for n in x.notes)
    return x

@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b'', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff\xe0', b'II*\0\x08\0\0\0', b'MM\0*', b'RIFF\xff\0\0\0WEBP', b'BM', b'\0'*128 + b'DICM', b'\x08\0\5\0']))
def test_any_bytes(data, start): reads_or_refuses(start + data)

@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(k for k,v in RIGHT.items() if isinstance(v, bytes))), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=6)), min_size=1, max_size=5))
def test_any_mutation(name, changes):
    d = bytearray(RIGHT[name])
    for at,new in changes: i = int(at**3*(len(d) - 1)); d[i:i+len(new)] = new
    reads_or_refuses(bytes(d))

@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(k for k,v in RIGHT.items() if isinstance(v, bytes) and not k.startswith('dcm'))), st.floats(.02, .95))
def test_any_cut_is_refused(name, share):
    with pytest.raises(ImageError): read_xray(RIGHT[name][:int(len(RIGHT[name])*share)])

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(32, 90), st.integers(32, 90), st.sampled_from(['u1', 'u2', '>u2', 'i2', 'i4', 'u4', 'i8', 'f2', 'f4', 'f8', '?']), st.floats(-1e4, 1e4), st.floats(0, 1e4), st.integers(0, 99))
def test_any_array(h, w, kind, lo, width, seed):
    with np.errstate(all='ignore'): a = (lo + width*np.random.default_rng(seed).random((h, w))).astype(kind)
    x = reads_or_refuses(a)
    assert x is None or x.image.size == (w, h)

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 16), st.booleans(), st.sampled_from(['MONOCHROME1', 'MONOCHROME2']), st.floats(-5000, 5000), st.floats(.5, 9000), st.sampled_from(['LINEAR', 'LINEAR_EXACT', 'SIGMOID', 'WRONG']), st.floats(-10, 10), st.floats(-5000, 5000))
def test_any_dicom_tags(stored, signed, kind, centre, width, fn, slope, intercept):
    assert reads_or_refuses(dcm(A16, BitsStored=stored, HighBit=stored - 1, PixelRepresentation=int(signed), PhotometricInterpretation=kind, WindowCenter=round(centre, 2), WindowWidth=round(width, 2), VOILUTFunction=fn,
        RescaleSlope=f'{slope:.4g}', RescaleIntercept=f'{intercept:.5g}'))

@settings(max_examples=40, deadline=None)
@given(st.integers(32, 300), st.integers(32, 300), st.integers(8, 120))
def test_prepared_is_square_and_never_larger(w, h, size):
    if max(w, h) > 4*min(w, h): return
    im = prepare_xray(Image.effect_noise((w, h), 60), size)
    assert im.size[0] == im.size[1] <= max(size, 1) or max(w, h) <= size and im.size[0] == max(w, h)

def test_preparing_goes_on_after_an_interruption(tmp_path, monkeypatch, capsys):
    from cxr_llava.xray import read
    for i in range(4): phantom_xray(i).save(tmp_path/f'{i}.png')
    jobs = [(tmp_path/f'{i}.png', f'{i}.jpg') for i in range(4)]
    with monkeypatch.context() as m:
        prepare = read._prepare_file
        def stop(job):
            if '3.png' in job[0]: raise KeyboardInterrupt
            return prepare(job)
        m.setattr(read, '_prepare_file', stop)
        with pytest.raises(KeyboardInterrupt): read.resize_xrays(jobs, tmp_path/'out', 64, 1)
    read.resize_xrays(jobs, tmp_path/'out', 64, 1)
    assert '3 X-rays were prepared before' in capsys.readouterr().out
