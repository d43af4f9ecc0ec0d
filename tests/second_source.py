"A made-up source: one folder per patient, a report and an X-ray per study, and a file that says what it is"
from cxr_llava.sources.registry import Licence, Source, source
from cxr_llava.sources.study import from_report, no_text, NO_TEXT

@source('shoebox')
class Shoebox(Source):
    "X-rays in a shoebox"
    licence = Licence('A made-up agreement: nothing may be passed on.', may_leave=False)
    published = dict(reports=3, xrays=4)

    def detect(self, path):
        sign = path if path.is_file() else path/'shoebox.txt'
        return sign.parent if sign.name == 'shoebox.txt' and sign.is_file() else None

    def read(self, path, rejects, found, **options):
        found.update(reports=0, xrays=0)
        for text in sorted(path.glob('*/*.txt')):
            images = sorted(text.parent.glob(f'{text.stem}_*.jpg'))
            found['reports'] += 1
            found['xrays'] += len(images)
            patient, name = text.parent.name, f'{text.parent.name}-{text.stem}'
            study = from_report(name, patient, self.name, [(image, 'pa') for image in images], text.read_text())
            if not images: rejects.add(name, 'X-ray file missing', patient=patient)
            elif no_text(study): rejects.add(name, NO_TEXT, patient=patient)
            else: yield study

def write_shoebox(folder):
    "A shoebox with three good studies of three patients and one without an X-ray"
    from cxr_llava.xray.drawing import phantom_xray
    from cxr_llava.xray.read import save_jpeg
    for number,patient in enumerate(('ann', 'bob', 'cid')):
        save_jpeg(phantom_xray(number, size=64), folder/patient/'1_a.jpg')
        (folder/patient/'1.txt').write_text(f'FINDINGS: Clear lungs {number}. IMPRESSION: Normal.')
    save_jpeg(phantom_xray(9, size=64), folder/'ann/1_b.jpg')
    (folder/'bob/2.txt').write_text('FINDINGS: Clear. IMPRESSION: Normal.')
    (folder/'shoebox.txt').write_text('X-rays inside')
