"Packaging of cxr_llava: every fact is read from settings.ini"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
ends = '_requirements'
extras = {k[:-len(ends)]: v.split() for k,v in cfg.items() if k.endswith(ends)}
extras['all'] = sorted({o for v in extras.values() for o in v})
readme = here/'README.md'

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
    license='MIT', license_files=['LICENSE'],
    classifiers=['Intended Audience :: Science/Research', 'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Medical Science Apps.'],
    long_description=readme.read_text('utf-8') if readme.exists() else cfg['description'],
    long_description_content_type='text/markdown',
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
    package_data={cfg['lib_path']: ['tiny_llava/*', 'tiny_llava/adapter/*', '*.json', 'templates/*']}, include_package_data=False, zip_safe=False,
    install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
)
