"Hostile and odd X-rays: the right picture with a note, or one `ImageError` sentence; nothing else, and nothing changed for the user"
import io, os, random, struct, zlib
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from cxr_llava.images import ImageError, XRay, MAX_PIXELS, read_xray, prepare_xray
from cxr_llava.phantom import phantom_xray

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

def test_missing_decoder_names_the_extra():
    from pydicom.pixels import get_decoder
    if get_decoder('1.2.840.10008.1.2.4.80').is_available: pytest.skip('decoder installed')
    with pytest.raises(ImageError, match='dicom'): read_xray(compressed('JPEG', '1.2.840.10008.1.2.4.80'))

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
    dcm_bits=dcm(A, BitsAllocated=7), dcm_syntax=dcm(A, syntax='1.2.3.4.5'), dcm_mpeg=compressed('JPEG', '1.2.840.10008.1.2.4.100'), dcm_deflated_bomb=deflated_bomb(),
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
