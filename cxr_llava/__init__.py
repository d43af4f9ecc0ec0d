__version__ = "0.1.0"
# The line above is written by nbdev_export from settings.ini; the rest by hand. Importing this loads nothing heavy:
# each public name is fetched from its module when first used (PEP 562).

_WHERE = dict(load_model='model', read_xray='images', label_report='labels', label_reports='labels',
    parse_sections='reports', CXRError='files')

__all__ = ['load_model', 'read_xray', 'label_report', 'label_reports', 'parse_sections', 'CXRError']

def __getattr__(name):
    "Fetch a public name from its module"
    if name not in _WHERE: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    res = getattr(import_module(f'{__name__}.{_WHERE[name]}'), name)
    globals()[name] = res
    return res

def __dir__(): return sorted({*globals(), *__all__})
