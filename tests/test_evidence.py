"Relevance maps leave the model as it was; certainty is about findings. How well both work is measured and tested on the page of `vlm/06_certainty`"
import numpy as np
import pytest
from cxr_llava.core.files import CXRError
from cxr_llava.vlm.certainty import Certainty, SURE
from cxr_llava.vlm.bases import tiny_adapter
from cxr_llava.vlm.load import load_model
from cxr_llava.xray.drawing import phantom_xray

@pytest.fixture(scope='module')
def m(): return load_model(tiny_adapter())

@pytest.fixture(scope='module')
def case(m):
    x = phantom_xray(2, effusion='left', effusion_size='large')
    return x, m.generate_report(x)

def test_map_of_a_sentence(m, case):
    x, rep = case
    i = next(i for i,s in enumerate(rep.sentences) if 'effusion' in s)
    heat, = m.relevance(x, rep, i)
    assert heat.shape == (8, 8) and heat.min() >= 0 and heat.sum() == pytest.approx(1)
    assert heat[:, 4:].sum() > .5 # the patient's left is on the right of the picture
    assert np.array_equal(heat, m.relevance(x, rep, i)[0])
    assert not np.allclose(heat, m.relevance(x, rep, i, tuned=False)[0])

def test_maps_leave_the_model_as_it_was(m, case):
    x, rep = case
    kind = m.bare.model.language_model.config._attn_implementation
    m.relevance(x, rep, 0, steps=1)
    assert m.bare.model.language_model.config._attn_implementation == kind
    assert not m.bare.model.multi_modal_projector._forward_hooks
    assert all(p.grad is None for p in m.model.parameters())
    assert m.generate_report(x).text == rep.text

def test_two_views_and_edited_text(m, case):
    x, rep = case
    maps = m.relevance([x, phantom_xray(5)], 'FINDINGS:\nA new sentence.', 0, steps=1)
    assert len(maps) == 2 and sum(o.sum() for o in maps) == pytest.approx(1)
    for i in (-1, len(rep.sentences)):
        with pytest.raises(CXRError, match='no sentence'): m.relevance(x, rep, i)

def test_certainty(m, case):
    x, rep = case
    got = m.certainty(x, rep, 4)
    assert [c.text for c in got] == rep.sentences and got == m.certainty(x, rep, 4)
    assert all(c.words in (*SURE, 'not rated') and (c.agree is None or 0 <= c.agree <= 1) for c in got)
    assert all(c.agree*4 == int(c.agree*4) for c in got if c.agree is not None)
    false = m.certainty(x, 'FINDINGS:\nSevere pulmonary edema. There is a right pneumothorax. Sternotomy wires. Indeed.', 4)
    assert [c.words for c in false][:2] == ['unsure', 'unsure'] and false[-1] == Certainty('Indeed.', None)

def test_drawn_reports_differ_and_can_be_drawn_again(m, case):
    x, rep = case
    a = m.draw_reports(x, 4, seed=1)
    assert a == m.draw_reports(x, 4, seed=1) and len(set(a)) > 1 and a != m.draw_reports(x, 4, seed=2)
    assert m.draw_reports(x, 4, seed=1, tuned=False) != a
