__version__ = "0.1.0"
# The line above is written by nbdev_export from settings.ini; the rest by hand. Importing this loads nothing heavy:
# each public name is fetched from its module when first used (PEP 562).

_WHERE = dict(load_model='vlm.load', read_xray='xray.read', label_report='report.labels', label_reports='report.labels',
    OBSERVATIONS='report.labels', parse_sections='report.sections', bleu='report.text_metrics', rouge='report.text_metrics',
    phantom_xray='xray.drawing', CXRError='core.files', ImageError='xray.pixels',
    build_dataset='data', DataConfig='sources.prepare', make_conversations='prompts', PromptConfig='sources.conversations',
    FinetuneConfig='train.settings', evaluate='eval', EvalConfig='score.systems') # `finetune` is the module: `from cxr_llava.finetune import finetune`

__all__ = list(_WHERE)

def __getattr__(name):
    "Fetch a public name from its module"
    if name not in _WHERE: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    res = getattr(import_module(f'{__name__}.{_WHERE[name]}'), name)
    globals()[name] = res
    return res

def __dir__(): return sorted({*globals(), *__all__})
