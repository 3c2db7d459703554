"""pip install --no-build-isolation ."""

from setuptools import Extension, setup

import pylocks

setup(ext_modules=[Extension("ledger", ["ledger.c"], include_dirs=[pylocks.get_include()])])
