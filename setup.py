"""For tools that ask for a setup.py; pyproject.toml says all there is to say."""

from setuptools import setup

setup()
