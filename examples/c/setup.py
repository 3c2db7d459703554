"""pip install --no-build-isolation ."""

import pylocks
from setuptools import Extension, setup

setup(ext_modules=[Extension("ledger", ["ledger.c"], include_dirs=[pylocks.get_include()])])
