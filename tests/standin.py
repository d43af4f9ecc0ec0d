"A stand-in for the model: it writes known words at a known pace, so that the panel is tested without weights"
import re, time
from types import SimpleNamespace
import numpy as np
from cxr_llava.vlm.generate import Report

TEXT = 'FINDINGS:\nThere is a left pleural effusion. No pneumothorax.\n\nIMPRESSION:\nLeft pleural effusion.'
BASE = 'FINDINGS:\nThe lungs are clear.\n\nIMPRESSION:\nNormal.'

class Standin:
    "Writes one word after another, like a model"
    max_new_tokens = 64
    def __init__(self, delay=.001, fail=None, text=TEXT):
        self.delay, self.fail, self.text, self.last, self.busy = delay, fail, text, None, 0
        self.info = dict(base='tiny', adapter_hash='0123abcd')
    def _write(self, text, q, stop):
        assert not self.busy, 'two texts at once'
        self.busy, done = 1, []
        try:
            for word in re.findall(r'\S+\s*', text):
                if self.fail: raise self.fail
                if stop is not None and stop.is_set(): break
                time.sleep(self.delay)
                done.append(word)
                yield word
            self.last = res = Report(''.join(done).strip(), ''.join(done) == text, q, dict(self.info, adapter='/somewhere/adapter'))
            return res
        finally: self.busy = 0
    def stream(self, src, indication=None, max_new_tokens=None, stop=None, tuned=True):
        self.limit = max_new_tokens
        return self._write(self.text if tuned else BASE, 'report', stop)
    def chat(self, src, question, history=(), max_new_tokens=None, stop=None): return self._write(f'{len(history)} turns before {question}', question, stop)
    def generate_report(self, src): return Report(self.text, provenance=self.info)
    def ask(self, src, question): return 'Yes.'
    def certainty(self, src, report, n=8, seed=0, stop=None):
        return [SimpleNamespace(text=o, words='unsure' if 'left' in o else 'confident') for o in report.sentences]
    def relevance(self, src, report, sentence=0):
        heat = np.zeros((8, 8))
        heat[5, 5 - sentence % 4] = 1
        return [heat for _ in (src if isinstance(src, list) else [src])]
