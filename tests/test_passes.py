"The quick pass: the numbers of the model itself, for all it takes on, and nothing taken on that it cannot do"
import copy
import pytest, torch
from transformers import DynamicCache, LlavaConfig, LlavaForConditionalGeneration
from cxr_llava.vlm.bases import load_base, tiny_adapter
from cxr_llava.vlm.adapters import attach_adapter
from cxr_llava.vlm.passes import quick_pass

def llava(**text):
    torch.manual_seed(0)
    text = dict(dict(model_type='llama', hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, vocab_size=200, max_position_embeddings=256), **text)
    cfg = LlavaConfig(text_config=text, vision_config=dict(model_type='clip_vision_model', hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14),
        image_token_index=199)
    return LlavaForConditionalGeneration(cfg).eval().requires_grad_(False)

def tuned(model, **kw):
    from peft import LoraConfig, get_peft_model
    kw = dict(dict(r=4, lora_alpha=12, target_modules=r'.*language_model.*\.(q_proj|v_proj|down_proj)'), **kw)
    model = get_peft_model(model, LoraConfig(**kw))
    torch.manual_seed(1)
    for n,p in model.named_parameters():
        if 'lora_B' in n: p.data.normal_(std=.1)
    return model.eval()

def start(model, rows=2, n=30):
    "A cache with `n` tokens of each row"
    cache = DynamicCache()
    with torch.inference_mode(): model(torch.randint(5, 150, (rows, n)), None, None, None, cache, use_cache=True)
    return cache

def both(model, new=1, keep=None, mask=None, n=30, rows=2):
    "Logits, and the keys and values left behind, of the model and of its quick pass"
    ids, cache, keep = torch.randint(5, 150, (rows, new)), start(model, rows, n), keep or new
    pos, res, go = torch.arange(n, n + new).expand(rows, -1), [], quick_pass(model)
    for fn in (lambda c: model(ids, None, mask, pos, c, use_cache=True, logits_to_keep=keep).logits, lambda c: go(ids, c, pos, mask, keep)):
        c = copy.deepcopy(cache)
        with torch.inference_mode(): res.append([fn(c), *(t for l in c.layers for t in (l.keys, l.values))])
    return zip(*res)

def same(pairs, tol=2e-5):
    pairs = list(pairs)
    assert len(pairs) > 3
    for a,b in pairs:
        assert a.shape == b.shape and a.dtype == b.dtype
        assert (a - b).abs().max() <= tol*max(1, a.abs().max())

@pytest.mark.parametrize('new,keep', [(1, 1), (2, 1), (9, 9), (40, 1), (40, 5)])
def test_numbers_of_the_model(new, keep):
    same(both(llava(), new, keep))
    same(both(load_base('tiny')[0], new, keep))

def test_the_adapter_of_the_package_on_and_off():
    model = attach_adapter(load_base('tiny')[0], tiny_adapter())
    base, on = model.get_base_model(), quick_pass(model.get_base_model())
    same(both(base, 9))
    with model.disable_adapter():
        same(both(base, 9))
        off = quick_pass(base)
    ids, pos, cache = torch.randint(5, 900, (1, 1)), torch.tensor([[30]]), start(base, 1)
    with torch.inference_mode(): assert (on(ids, copy.deepcopy(cache), pos) - off(ids, copy.deepcopy(cache), pos)).abs().max() > 1e-3

@pytest.mark.parametrize('kw', [dict(), dict(use_rslora=True), dict(lora_bias=True), dict(use_dora=True), dict(lora_dropout=.5), dict(target_modules='all-linear')], ids=str)
def test_every_kind_of_adapter(kw):
    model = tuned(llava(), **kw)
    same(both(model.get_base_model(), 5))
    model.add_adapter('other', model.peft_config['default'])
    model.set_adapter('other')
    same(both(model.get_base_model(), 5))
    if not kw.get('lora_bias'): model.merge_adapter() # which peft cannot
    same(both(model.get_base_model(), 5))

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_short_numbers(dtype):
    "Base in 16 bits, adapter in 32 as peft makes it, or in 16"
    model = tuned(llava().to(dtype))
    same(both(model.get_base_model(), 5), 2e-2)
    same(both(model.to(dtype).get_base_model(), 5), 2e-2)

def test_four_bits(tmp_path):
    pytest.importorskip('bitsandbytes')
    from transformers import BitsAndBytesConfig
    llava(intermediate_size=128).save_pretrained(tmp_path) # some processors want whole blocks of 64
    skip = ['model.vision_tower', 'model.multi_modal_projector', 'lm_head']
    cfg = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=skip)
    model = LlavaForConditionalGeneration.from_pretrained(tmp_path, quantization_config=cfg, device_map={'': 'cpu'}).eval()
    assert type(model.model.language_model.layers[0].self_attn.q_proj).__name__ == 'Linear4bit'
    same(both(model, 5))
    same(both(tuned(model).get_base_model(), 5))

@pytest.mark.parametrize('new', [1, 6])
def test_padding_on_the_left(new):
    mask = torch.ones(2, 30 + new, dtype=torch.long)
    mask[1, :11] = 0
    (a, b), *_ = both(llava(), new, mask=mask)
    assert (a - b).abs().max() < 2e-5
    (c, _), *_ = both(llava(), new)
    assert (a[1] - c[1]).abs().max() > 1e-4 # the mask says something

def test_attention_with_biases(): same(both(llava(attention_bias=True, mlp_bias=True), 5))

def refuse(model): assert quick_pass(model) is None

def test_what_it_cannot_do_is_left_to_the_model():
    refuse(llava(num_key_value_heads=2))
    refuse(llava(hidden_act='gelu'))
    refuse(llava(rope_parameters=dict(rope_type='linear', factor=2., rope_theta=10000.)))
    refuse(llava(model_type='mistral'))
    refuse(llava().train())
    eager = llava()
    eager.set_attn_implementation('eager')
    refuse(eager)
    refuse(torch.nn.Linear(2, 2))

@pytest.mark.parametrize('where', ['', 'rotary_emb', 'layers.1', 'layers.0.self_attn', 'layers.2.mlp'])
def test_hooks_on_what_is_passed_over_are_not_missed(where):
    for name in ('register_forward_hook', 'register_forward_pre_hook'):
        model = llava()
        handle = getattr(model.model.language_model.get_submodule(where), name)(lambda *a: None)
        refuse(model)
        handle.remove()
        assert quick_pass(model)
    model = llava()
    part = model.model.language_model.get_submodule(where)
    part.forward = part.forward # as accelerate does for a model over several devices
    refuse(model)

@pytest.mark.parametrize('where', ['layers.0.self_attn.q_proj', 'layers.1.mlp.up_proj', 'layers.2.input_layernorm', 'norm', 'embed_tokens'])
def test_hooks_inside_are_called(where):
    model, called = llava(), []
    model.model.language_model.get_submodule(where).register_forward_hook(lambda mod, args, out: called.append(1) or out*1.5)
    same(both(model, 3))
    assert len(called) == 3 # the cache, the model, the quick pass
    model = tuned(llava())
    called.clear()
    model.get_base_model().get_submodule('model.language_model.layers.0.self_attn.q_proj').register_forward_hook(lambda mod, args, out: called.append(1) or out*1.5)
    same(both(model.get_base_model(), 3))
    assert len(called) == 3

def test_a_model_without_a_quick_pass_writes_the_same(monkeypatch):
    from cxr_llava.vlm.load import load_model
    from cxr_llava.xray.drawing import phantom_xray
    x, why = phantom_xray(2, effusion='left'), [None, 'Cough.']
    def texts():
        m = load_model()
        rep = m.generate_report(x)
        return rep.text, m.ask(x, 'Is there an effusion?', [rep], 24), [r.text for r in m.generate_reports([x, x], 2, why)]
    want = texts()
    monkeypatch.setattr('cxr_llava.vlm.passes.quick_pass', lambda llava: None)
    assert texts() == want

def test_only_xrays_go_through_the_whole_model(monkeypatch):
    "Every pass after the first is a quick one, for one text and for a batch"
    from cxr_llava.vlm.load import load_model
    from cxr_llava.xray.drawing import phantom_xray
    m, x, calls = load_model(), phantom_xray(2, effusion='left'), []
    forward = m._llava.forward
    monkeypatch.setattr(m._llava, 'forward', lambda *a, **kw: calls.append(a[1] is not None) or forward(*a, **kw))
    rep = m.generate_report(x)
    m.ask(x, 'Is there an effusion?', [rep], 24)
    m.generate_reports([x, x], 2, [None, 'Cough.'])
    assert len(rep.tokens) > 20 and calls == [True, True]
