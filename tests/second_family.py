"A second model family, with random weights: Qwen2-VL, whose chat template, picture tokens and positions are all unlike LLaVA's"
import types
from cxr_llava.vlm.family import family, Family, Shape

SIZE, PATCH, MERGE = 112, 14, 2 # Pixels of an X-ray, of a patch, and patches that become one token, per side

@family
class QwenVL(Family):
    "Qwen2-VL: X-rays as rows of patches on a grid, ChatML, positions with three numbers"
    model_type, title, model_class, processor_class = 'qwen2_vl', 'Qwen2-VL', 'Qwen2VLForConditionalGeneration', 'QwenProcessor'
    image, not_in_4bit = '<|image_pad|>', ('model.visual', 'lm_head')

    def load_processor(self, folder):
        from transformers import AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
        return QwenProcessor(AutoTokenizer.from_pretrained(folder), Qwen2VLImageProcessorPil(min_pixels=SIZE**2, max_pixels=SIZE**2))
    def render(self, turns, add_generation_prompt=False):
        text, spans = '', []
        for turn in turns:
            value = turn['value'].replace('<image>\n', f'<|vision_start|>{self.image}<|vision_end|>')
            text += '<|im_start|>' + dict(human='user', gpt='assistant')[turn['from']] + '\n'
            if turn['from'] == 'gpt': spans.append((len(text), len(text) + len(value.strip()) + len('<|im_end|>')))
            text += value.strip() + '<|im_end|>\n'
        return text + '<|im_start|>assistant\n'*add_generation_prompt, spans
    def image_tokens(self, processor): return (SIZE//PATCH//MERGE)**2
    def xray_size(self, processor): return SIZE
    def pixels(self, processor, src):
        squares = self.squares(processor, src)
        return processor.image_processor(squares, return_tensors='pt')['pixel_values'].reshape(len(squares), (SIZE//PATCH)**2, -1)
    def inputs(self, processor, pixels, ids):
        grid = ids.new_tensor([[1, SIZE//PATCH, SIZE//PATCH]]*len(pixels))
        return dict(pixel_values=pixels.flatten(0, 1), image_grid_thw=grid, mm_token_type_ids=(ids == self.image_token_id(processor)).int())
    def positions(self, model, ids, mask, inputs):
        return model.model.get_rope_index(ids, inputs['mm_token_type_ids'], inputs['image_grid_thw'], attention_mask=mask)[0]
    def vision_tower(self, model): return model.model.visual
    def projector(self, model): return model.model.visual.merger
    def features(self, model, pixels):
        grid = model.lm_head.weight.new_tensor([[1, SIZE//PATCH, SIZE//PATCH]]*len(pixels)).long()
        return self.vision_tower(model)(pixels.flatten(0, 1), grid_thw=grid).pooler_output.reshape(len(pixels), -1, 64).mean(1)
    def shape(self, config):
        text, patches = config['text_config'], (SIZE//PATCH)**2
        return Shape(text['hidden_size'], text['num_hidden_layers'], text['intermediate_size'], text['vocab_size'], 32, 32, 2, patches, patches//MERGE**2, dict(vision=60_000, projector=30_000))

class QwenProcessor(types.SimpleNamespace):
    def __init__(self, tokenizer, image_processor): super().__init__(tokenizer=tokenizer, image_processor=image_processor)

def save_base(folder, tokenizer):
    "A folder with a tiny Qwen2-VL and the packaged tokenizer with Qwen's special tokens"
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    tokenizer.add_special_tokens(dict(eos_token='<|im_end|>', additional_special_tokens=['<|im_start|>', '<|vision_start|>', '<|vision_end|>', '<|image_pad|>']))
    torch.manual_seed(0)
    text = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=len(tokenizer),
        max_position_embeddings=512, rope_parameters=dict(rope_type='default', rope_theta=1e4, mrope_section=[2, 3, 3]), eos_token_id=tokenizer.eos_token_id)
    vision = dict(depth=2, embed_dim=32, hidden_size=64, num_heads=2, patch_size=PATCH)
    ids = {f'{name}_token_id': tokenizer.convert_tokens_to_ids(f'<|{name}|>') for name in ('vision_start', 'vision_end')}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=tokenizer.convert_tokens_to_ids(QwenVL.image), **ids)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder/'processor_config.json').write_text('{}')
